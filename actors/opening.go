package actors

import (
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// What the store says to a gateway.
type (
	opened struct {
		out        *outlet
		generation uint64
		at         int64
	}
	closed    struct{ out *outlet }
	committed struct{ term, seq, index uint64 }
)

// Opened opens a shard under a term, in which at is the latest time committed, Unix ms.
// generation counts the times that the shard is known to have lost history. It does not
// block.
func (n *Node) Opened(shard uint32, term, generation uint64, at int64) {
	if shard >= link.Shards {
		return
	}
	out := &outlet{node: n, shard: shard, term: term, gw: n.gateways[shard]}
	if old := n.outlets[shard].Swap(out); old != nil {
		old.cut()
	}
	n.post(shard, &opened{out, generation, at})
}

// Closed closes a shard: when it returned, nothing of the term leaves it. It does not
// block for longer than a message to an edge takes.
func (n *Node) Closed(shard uint32, term uint64) {
	if shard >= link.Shards {
		return
	}
	if out := n.outlets[shard].Load(); out != nil && out.term == term {
		out.cut()
		n.post(shard, &closed{out})
	}
}

// Committed reports that all proposals of (shard, term) up to seq are durable and
// visible, the last one in the log at index. It does not block.
func (n *Node) Committed(shard uint32, term, seq, index uint64) {
	if shard < link.Shards {
		n.post(shard, committed{term, seq, index})
	}
}

// opened begins a term of the shard: the edges announce, the store says who was online.
func (g *gateway) opened(m *opened) {
	if g.out != nil {
		g.closed(g.out)
	}
	if m.out.isCut() {
		return
	}
	defer g.giveUp(m.out)
	n := g.node
	g.term, g.generation = m.out.term, m.generation
	g.skew, g.skewed = 0, time.Now()
	if late := time.UnixMilli(m.at).Sub(n.clock.Now()); m.at != 0 && late > 0 {
		g.skew = late
		n.cfg.Logger.Warn("the shard's time is ahead of the clock", "shard", g.shard, "by", late)
	}
	g.proposals, g.transfers = newProposals(), newTransfers()
	g.graphs, g.tidied, g.swept, g.confirming = graphs{}, time.Time{}, 0, 0
	g.scanShard()
	g.anew(m.out, 0)
	g.opening = g.now()
	g.beHanded(g.opening)
	for _, seq := range g.transfers.order {
		g.transmit(g.transfers.open[seq], g.now())
	}
}

// reopen drops all that the gateway knows and begins again under its term.
func (g *gateway) reopen() {
	old := g.out
	out := &outlet{node: g.node, shard: g.shard, term: old.term, gw: g}
	if !g.node.outlets[g.shard].CompareAndSwap(old, out) {
		return // the shard closes
	}
	defer g.giveUp(out)
	g.anew(out, g.version)
	for _, e := range g.node.linked() {
		g.out.send(e, again(presence.Key{}))
	}
	g.arm()
}

// anew makes the shard anew under the outlet. Its versions go on after one.
func (g *gateway) anew(out *outlet, version uint64) {
	n := g.node
	out.gateway = g.ctx.Self()
	g.out = out
	g.users, g.rooms = map[presence.Key]*activation{}, map[presence.Key]*activation{}
	g.announcing = map[presence.Edge]*roomsAnnounced{}
	g.due, g.armed = nil, time.Time{}
	online := g.scanOnline()
	g.core = presence.NewGateway(n.cfg.Presence, n.names,
		presence.Open{At: g.now(), Term: out.term, Barrier: n.awaited(), Draining: n.drains(), Online: online, Version: version})
	g.settling = g.core.Settling()
	n.terms[g.shard].Store(out.term)
	for _, e := range n.linked() {
		g.edges[e] = true
		delete(g.away, e)
		g.core.Step(g.now(), presence.EdgeUp{Edge: e})
		if down := n.downlink(e); down != nil {
			down.Beat(n.beat())
		}
	}
}

// closed ends the term. The outlet is cut already.
func (g *gateway) closed(out *outlet) {
	if g.out != out {
		return
	}
	g.node.terms[g.shard].CompareAndSwap(out.term, 0)
	load := &g.node.loads[g.shard]
	load.sessions.Store(0)
	load.lost.Store(0)
	g.unknown(out)
	g.stopAll()
	if g.core != nil {
		g.core.Close()
	}
	g.node.stats.Transfers.Add(-int64(len(g.transfers.open)))
	g.out, g.core, g.transfers, g.waiting = nil, nil, transfers{}, nil
	g.trouble = map[string]*trouble{}
	if g.timer != nil {
		g.timer.Stop()
	}
}

// scanShard reads the counters, what is to be sent and what was taken.
func (g *gateway) scanShard() {
	v, ok, err := g.node.store.Get(g.shard, row.CountersKey())
	if g.must(err); ok {
		g.counters, err = row.DecodeCounters(v)
		g.must(err)
	} else {
		g.counters = row.Counters{}
	}
	g.events = g.counters.Events
	span := row.Transfers()
	g.must(g.node.store.Scan(g.shard, span.From, span.To, func(key, v []byte) bool {
		seq, err := row.ParseSeq(key)
		g.must(err)
		s, err := row.DecodeTransfer(v)
		g.must(err)
		g.owe(g.newTransfer(seq, *s))
		return true
	}))
	span = row.Floors()
	g.must(g.node.store.Scan(g.shard, span.From, span.To, func(key, v []byte) bool {
		source, err := row.ParseFloor(key)
		g.must(err)
		g.transfers.floors[source], err = row.DecodeFloor(v)
		g.must(err)
		return true
	}))
}

// scanOnline reads who was online.
func (g *gateway) scanOnline() (online []presence.Key) {
	r := row.AllOnline()
	g.must(g.node.store.Scan(g.shard, r.From, r.To, func(key, _ []byte) bool {
		k, err := row.ParseOnline(key)
		g.must(err)
		online = append(online, k)
		return true
	}))
	return online
}

// moving answers a message that comes while the shard is closed.
func (g *gateway) moving(m *link.Up) {
	if t := m.GetTransfer(); t != nil {
		g.node.toShard(outcome(t, link.Code_MOVING))
		return
	}
	out := &outlet{node: g.node, shard: g.shard, term: g.term}
	if d := movingReply(m); d != nil {
		out.refuse(sender(m), d)
	}
}

func movingReply(m *link.Up) *link.Down {
	const why = "the shard is not open here"
	refused := presence.Reply{Code: presence.Code(link.Code_MOVING), Message: why}
	switch b := m.GetBody().(type) {
	case *link.Up_Attach:
		return userReply(presence.Key{App: b.Attach.GetApp(), User: b.Attach.GetUser()}, m, refused)
	case *link.Up_Act:
		return userReply(presence.Key{App: b.Act.GetApp(), User: b.Act.GetUser()}, m, refused)
	case *link.Up_Interest:
		return allPending(b.Interest.GetCall(), b.Interest.GetApp(), b.Interest.GetWatcher(), b.Interest.GetAdd())
	case *link.Up_Query:
		return allPending(b.Query.GetCall(), b.Query.GetApp(), b.Query.GetWatcher(), b.Query.GetUsers())
	case *link.Up_Ask:
		return &link.Down{Body: &link.Down_Answer{Answer: &link.Answer{Call: b.Ask.GetCall(), Code: link.Code_MOVING, Message: why}}}
	case *link.Up_Room:
		if c := b.Room; c.GetCall() != 0 {
			return &link.Down{Body: &link.Down_Room{Room: &link.RoomReply{Call: c.Call, Conn: c.Conn, App: c.App, Room: c.Room,
				Code: link.Code_MOVING, Message: why}}}
		}
	}
	return nil
}

// allPending answers about users whom nobody here knows.
func allPending(call uint64, app, watcher string, users []string) *link.Down {
	if call == 0 {
		return nil
	}
	v := &link.Views{Call: call, App: app, Watcher: watcher}
	v.Rows = list(users, func(to *link.Row, u *string) { to.User, to.Pending = *u, true })
	return &link.Down{Body: &link.Down_Views{Views: v}}
}
