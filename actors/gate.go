package actors

import (
	"errors"
	"slices"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// gate is what the shard keeps of a user whose records are not all durable. It exists
// only as long as there are such.
type gate struct {
	key   presence.Key
	fly   []*part           // records proposed and not committed, in order
	lazy  []presence.Record // records to be proposed with the next flush
	queue []*stepped        // what may not leave yet; the first waits for a commit
}

// part is what a proposal holds of one user.
type part struct {
	gate    *gate
	records []presence.Record
	lazy    bool
	more    bool // what the activation's more was before
}

// flight is a proposal that is not committed.
type flight struct {
	seq     uint64
	at      int64   // Unix ms
	writes  []Write // until the store has taken them
	parts   []*part
	debris  []Write     // of writes, what is not for anybody who waits
	fresh   []string    // keys of rows that are looked up before the commit
	send    []*transfer // to be sent when it is committed
	events  uint64      // the last event in it; 0: none
	counted bool        // it changes the counters
	done    func(error) // nil: nobody waits
}

// freshRow is a row of a flight.
type freshRow struct {
	seq   uint64
	value []byte
}

// proposals is what an open shard has asked of its store.
type proposals struct {
	seq     uint64 // of the last one
	taken   int    // of flights: the store has them
	flights []*flight
	gates   map[presence.Key]*gate
	lazy    []*gate // those with lazy records, in order
	fresh   map[string]freshRow
	full    bool    // the store has no room
	debris  []Write // rows that are no longer needed, for the next flush
	durable uint64  // proposals up to it are committed
	index   uint64  // of the last commit in the log
}

const (
	maxFlights = 1024 // proposals of a shard in flight; over it commands are refused
	maxLazy    = 16   // lazy records of one user; over it they are flushed at once
	mostLazy   = 64   // and over it, when there is no room, the oldest events are lost
	flushUsers = 256  // users whose lazy records go into one proposal
)

func newProposals() proposals {
	return proposals{gates: map[presence.Key]*gate{}, fresh: map[string]freshRow{}}
}

// gateOf returns the user's gate, made if need be.
func (g *gateway) gateOf(k presence.Key) *gate {
	t := g.gates[k]
	if t == nil {
		t = &gate{key: k}
		g.gates[k] = t
		if a := g.users[k]; a != nil {
			a.gate = t
		}
	}
	return t
}

// keep makes records of a user durable and returns the proposal that what follows must
// wait for; 0: none. The error is ErrNoRoom; nothing was kept then.
func (g *gateway) keep(a *activation, records []presence.Record, now time.Time) (uint64, error) {
	var firm, lazy []presence.Record
	for _, r := range records {
		if presence.Lazy(r) {
			lazy = append(lazy, r)
		} else {
			firm = append(firm, r)
		}
	}
	if len(firm) > 0 {
		f, t := &flight{}, g.gateOf(a.key)
		if slices.ContainsFunc(firm, isErased) {
			t.lazy = slices.DeleteFunc(t.lazy, func(r presence.Record) bool { return !isEvent(r) })
		}
		g.carryOwn(f, t, now) // they come before what is firm
		g.carry(f, &part{gate: t, records: firm}, now)
		g.carryLazy(f, now)
		if err := g.propose(f, now); err != nil {
			return 0, err
		}
	}
	if len(lazy) > 0 {
		g.keepLazy(g.gateOf(a.key), lazy)
		if len(a.gate.lazy) > maxLazy {
			g.flush(now)
		}
	}
	if len(firm) > 0 {
		return g.seq, nil
	}
	return 0, nil
}

func (g *gateway) keepLazy(t *gate, records []presence.Record) {
	if len(t.lazy) == 0 {
		g.lazy = append(g.lazy, t)
	}
	t.lazy = presence.Fold(t.lazy, records...)
	for len(t.lazy) > mostLazy {
		oldest := slices.IndexFunc(t.lazy, isEvent)
		if oldest < 0 {
			return
		}
		t.lazy = slices.Delete(t.lazy, oldest, oldest+1)
		g.node.stats.EventsLost.Add(1)
	}
}

func isEvent(r presence.Record) bool {
	_, ok := r.(presence.Event)
	return ok
}

// carry puts records of a user into a proposal.
func (g *gateway) carry(f *flight, p *part, now time.Time) {
	if a := g.users[p.gate.key]; a != nil {
		p.more = a.more
	}
	g.encode(f, p.gate.key, p.records, now)
	p.gate.fly = append(p.gate.fly, p)
	f.parts = append(f.parts, p)
}

// carryOwn puts the lazy records of one user into a proposal.
func (g *gateway) carryOwn(f *flight, t *gate, now time.Time) {
	if len(t.lazy) > 0 {
		p := &part{gate: t, records: t.lazy, lazy: true}
		t.lazy = nil
		g.carry(f, p, now)
	}
}

// carryLazy puts the lazy records of some users into a proposal.
func (g *gateway) carryLazy(f *flight, now time.Time) {
	n := min(len(g.lazy), flushUsers)
	for _, t := range g.lazy[:n] {
		g.carryOwn(f, t, now)
	}
	if g.lazy = g.lazy[n:]; len(g.lazy) == 0 {
		g.lazy = nil
	}
	f.writes, f.debris, g.debris = append(f.writes, g.debris...), g.debris, nil
}

// flush proposes all lazy records. While there is no room it asks whether there is again.
func (g *gateway) flush(now time.Time) {
	g.push()
	for len(g.lazy) > 0 || len(g.debris) > 0 || g.full {
		f := &flight{}
		g.carryLazy(f, now)
		f.counted = f.counted || len(f.writes) == 0
		if g.propose(f, now) != nil {
			return
		}
		g.node.stats.Flushes.Add(1)
	}
}

// propose gives a proposal to the store, behind those that it has not taken yet. The
// error is ErrNoRoom: then it is taken back, and its lazy records wait on.
func (g *gateway) propose(f *flight, now time.Time) error {
	if f.counted {
		f.writes = append(f.writes, Write{Key: row.CountersKey(), Value: row.EncodeCounters(g.counters)})
	}
	g.seq++
	f.seq, f.at = g.seq, now.UnixMilli()
	g.flights = append(g.flights, f)
	if g.push(); !g.full {
		for _, t := range f.send {
			g.owe(t)
		}
		return nil
	}
	g.debris = append(g.debris, f.debris...)
	g.seq--
	g.flights = g.flights[:len(g.flights)-1]
	for _, k := range f.fresh {
		delete(g.fresh, k)
	}
	for _, p := range slices.Backward(f.parts) {
		p.gate.fly = slices.DeleteFunc(p.gate.fly, func(q *part) bool { return p == q })
		if a := g.users[p.gate.key]; a != nil {
			a.more = p.more // what was to say so was not written
		}
		if p.lazy {
			g.keepLazy(p.gate, p.records)
		}
		g.tidy(p.gate)
	}
	return ErrNoRoom
}

// whenDurable calls done when all that is proposed is durable, or cannot be.
func (g *gateway) whenDurable(done func(error)) {
	switch n := len(g.flights); {
	case g.full:
		done(ErrNoRoom)
	case n == 0:
		done(nil)
	default:
		f, before := g.flights[n-1], g.flights[n-1].done
		f.done = func(err error) {
			if before != nil {
				before(err)
			}
			done(err)
		}
	}
}

// push gives the store what it has not taken yet, in order.
func (g *gateway) push() {
	for g.taken < len(g.flights) {
		f := g.flights[g.taken]
		row.Stamp(f.writes, g.node.cfg.Records())
		err := g.node.store.Propose(g.shard, g.out.term, f.seq, f.at, f.writes)
		full := errors.Is(err, ErrNoRoom)
		if full != g.full {
			g.full = full
			g.node.cfg.Logger.Warn("room for durable changes", "shard", g.shard, "room", !full)
		}
		if err != nil {
			g.node.stats.Refused.Add(1)
			return
		}
		f.writes = nil
		g.taken++
		g.node.stats.Proposals.Add(1)
	}
}

// committed takes the news that proposals are durable, and lets out what waited for them.
func (g *gateway) committed(m committed, now time.Time) {
	var users []*gate
	var send []*transfer
	events := g.events
	for len(g.flights) > 0 && g.taken > 0 && g.flights[0].seq <= m.seq {
		f := g.flights[0]
		g.flights[0], g.flights, g.taken = nil, g.flights[1:], g.taken-1
		for _, k := range f.fresh {
			if g.fresh[k].seq == f.seq {
				delete(g.fresh, k)
			}
		}
		for _, p := range f.parts {
			p.gate.fly = slices.DeleteFunc(p.gate.fly, func(q *part) bool { return p == q })
			users = append(users, p.gate)
		}
		if f.done != nil {
			f.done(nil)
		}
		send, g.events = append(send, f.send...), max(g.events, f.events)
	}
	g.durable, g.index = m.seq, m.index
	news := g.events > events
	g.push()
	for _, t := range users {
		g.release(t, now)
	}
	for _, t := range send {
		g.transmit(t, now)
	}
	if !news {
		return
	}
	g.answerWaiting(now, true)
	if f := g.node.cfg.OnEvents; f != nil {
		f(g.shard)
	}
}

// release lets out what no longer waits, in order.
func (g *gateway) release(t *gate, now time.Time) {
	for len(t.queue) > 0 && t.queue[0].seq <= g.durable {
		s := t.queue[0]
		t.queue[0], t.queue = nil, t.queue[1:]
		g.node.stats.Gated.Add(-1)
		g.leave(s)
		g.stepped(s, now)
	}
	g.tidy(t)
}

// tidy forgets a gate that holds nothing; its user may passivate now.
func (g *gateway) tidy(t *gate) {
	if len(t.fly)+len(t.lazy)+len(t.queue) > 0 || g.gates[t.key] != t {
		return
	}
	delete(g.gates, t.key)
	a := g.users[t.key]
	if a == nil {
		return
	}
	a.gate = nil
	if a.user.Idle() {
		g.ctx.Send(g.out.gateway, &stepped{of: a, idle: true, seen: a.user.Seen(), tick: true, settled: true})
	}
}

// unknown answers what waited when the shard closed: whether it was done will turn out.
func (g *gateway) unknown(out *outlet) {
	for _, t := range g.gates {
		for _, s := range t.queue {
			g.node.stats.Gated.Add(-1)
			if d := closedReply(s.reply); d != nil {
				out.refuse(s.to, d)
			}
			if s.more != nil && s.more.outcome != nil { // of a transfer: it comes again
				s.more.outcome.GetTransferDone().Code = link.Code_MOVING
				g.node.toShard(s.more.outcome)
			}
		}
	}
	for _, f := range g.flights {
		if f.done != nil {
			f.done(ErrNotLeader)
		}
	}
	g.proposals = newProposals()
}

// closedReply is what becomes of a reply that must not leave.
func closedReply(d *link.Down) *link.Down {
	const why = "the shard closed before it was known"
	switch b := d.GetBody().(type) {
	case *link.Down_Attached:
		return &link.Down{Body: &link.Down_Attached{Attached: &link.Attached{Call: b.Attached.Call, App: b.Attached.App, User: b.Attached.User,
			Conn: b.Attached.Conn, Code: link.Code_UNKNOWN_OUTCOME, Message: why}}}
	case *link.Down_Acted:
		return &link.Down{Body: &link.Down_Acted{Acted: &link.Acted{Call: b.Acted.Call, Conn: b.Acted.Conn, Code: link.Code_UNKNOWN_OUTCOME, Message: why}}}
	}
	return nil
}
