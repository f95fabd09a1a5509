package actors

import (
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// transfers is what a shard owes to others, and what it has taken from them.
type transfers struct {
	open  map[uint64]*transfer
	order []uint64             // of open, ascending; those that are done go when they come first
	lines map[pair][]*transfer // the first has been sent, the others wait for its outcome

	floors map[uint32]row.Floor // of sources, as stored
	heard  map[uint32]row.Floor // as last heard, where that is higher
}

// pair is what the order of transfers is kept for.
type pair struct{ app, from, to string }

// transfer is one whose outcome is not known.
type transfer struct {
	seq    uint64
	shard  uint32 // it goes to
	stored row.Stored
	next   time.Time // when it is sent again
	wait   time.Duration
}

const (
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute
)

func newTransfers() transfers {
	return transfers{open: map[uint64]*transfer{}, lines: map[pair][]*transfer{}, floors: map[uint32]row.Floor{}, heard: map[uint32]row.Floor{}}
}

func (t *transfer) pair() pair { return pair{t.stored.App, t.stored.From, t.stored.To} }

func (g *gateway) newTransfer(seq uint64, s row.Stored) *transfer {
	return &transfer{seq: seq, shard: link.ShardOf(s.App, link.KindUser, s.To), stored: s}
}

// owe notes a transfer that will be committed.
func (g *gateway) owe(t *transfer) {
	g.transfers.open[t.seq] = t
	g.transfers.order = append(g.transfers.order, t.seq)
	g.node.stats.Transfers.Add(1)
}

// transmit sends a transfer that is committed, unless an earlier one of the same users is
// on its way.
func (g *gateway) transmit(t *transfer, now time.Time) {
	p := t.pair()
	line := append(g.transfers.lines[p], t)
	if g.transfers.lines[p] = line; len(line) == 1 {
		g.sendTransfer(t, now)
	}
}

// lowest is the lowest seq whose outcome is not known.
func (g *gateway) lowest() uint64 {
	o := g.transfers.order
	for len(o) > 0 && g.transfers.open[o[0]] == nil {
		o = o[1:]
	}
	if g.transfers.order = o; len(o) == 0 {
		return g.counters.Transfers + 1
	}
	return o[0]
}

func (g *gateway) sendTransfer(t *transfer, now time.Time) {
	t.wait = min(max(2*t.wait, firstRetry), lastRetry)
	t.next = now.Add(t.wait)
	m := &link.Up{Shard: t.shard, Body: &link.Up_Transfer{Transfer: transferOut(g.shard, g.generation, t, g.lowest())}}
	if !g.node.toShard(m) { // nobody leads that shard now
		t.wait, t.next = 0, now
	}
}

// retryTransfers sends again what has had no answer.
func (g *gateway) retryTransfers(now time.Time) {
	for _, line := range g.transfers.lines {
		if !now.Before(line[0].next) {
			g.sendTransfer(line[0], now)
		}
	}
}

// transferDone takes an outcome. Any is final but MOVING: the transfer came to a node that does not lead.
func (g *gateway) transferDone(m *link.TransferDone, now time.Time) {
	t := g.transfers.open[m.GetSeq()]
	if m.GetSource() != g.shard || m.GetGeneration() != g.generation || t == nil {
		return
	}
	p := t.pair()
	line := g.transfers.lines[p]
	if len(line) == 0 || line[0] != t {
		return // it has not been sent
	}
	if m.GetCode() == link.Code_MOVING {
		t.wait, t.next = 0, now
		return
	}
	if m.GetCode() != link.Code_OK {
		g.node.cfg.Logger.Warn("transfer refused", "shard", g.shard, "to", t.shard, "code", m.GetCode())
	}
	delete(g.transfers.open, t.seq)
	g.debris = append(g.debris, Write{Key: row.TransferKey(t.seq)})
	g.node.stats.Transfers.Add(-1)
	if line = line[1:]; len(line) == 0 {
		delete(g.transfers.lines, p)
		return
	}
	g.transfers.lines[p] = line
	g.sendTransfer(line[0], now)
}

// transfer takes one from another shard: once, and in the user's turn.
func (g *gateway) transfer(m *link.Up, now time.Time) {
	t := m.GetTransfer()
	k := presence.Key{App: t.GetApp(), User: t.GetUser()}
	in := received(t)
	if in == nil || !g.holds(k, link.KindUser) || t.GetSource() >= link.Shards {
		g.node.stats.Malformed.Add(1)
		g.node.toShard(outcome(t, link.Code_BAD_REQUEST))
		return
	}
	key := row.TakenKey(t.GetSource(), t.GetGeneration(), t.GetSeq())
	if _, coming := g.fresh[string(key)]; coming {
		return // its outcome follows the commit
	}
	_, known, err := g.get(key)
	switch below := g.belowFloor(t); {
	case err != nil:
		g.must(err)
	case known || below:
		g.node.toShard(outcome(t, link.Code_OK))
		return
	}
	if code, _ := g.admit(in); code == link.Code_OK { // else it will come again
		g.step(presence.Deliver{Key: k, In: in}, m, now)
	}
}

// belowFloor reports that a transfer is an old one that comes once more; and notes how far
// its source is.
func (g *gateway) belowFloor(t *link.Transfer) bool {
	was := g.transfers.floors[t.GetSource()]
	old := t.GetGeneration() < was.Generation || t.GetGeneration() == was.Generation && t.GetSeq() < was.Seq
	f := row.Floor{Generation: t.GetGeneration(), Seq: t.GetFloor()}
	if higher(f, was) && higher(f, g.transfers.heard[t.GetSource()]) {
		g.transfers.heard[t.GetSource()] = f
	}
	return old
}

func higher(f, than row.Floor) bool {
	return f.Generation > than.Generation || f.Generation == than.Generation && f.Seq > than.Seq
}

// raiseFloors forgets what has been taken and cannot come again.
func (g *gateway) raiseFloors() {
	for source, f := range g.transfers.heard {
		g.transfers.floors[source] = f
		g.debris = append(g.debris, row.TakenBelow(source, f.Generation, f.Seq).Delete(),
			Write{Key: row.FloorKey(source), Value: row.EncodeFloor(f)})
		delete(g.transfers.heard, source)
	}
}

// outcome answers a transfer.
func outcome(t *link.Transfer, code link.Code) *link.Up {
	return &link.Up{Shard: t.GetSource(), Body: &link.Up_TransferDone{TransferDone: &link.TransferDone{
		Source: t.GetSource(), Generation: t.GetGeneration(), Seq: t.GetSeq(), Code: code}}}
}

// toShard carries a message to a shard wherever it is open; false if that is not known. It may get lost.
func (n *Node) toShard(m *link.Up) bool {
	switch {
	case m.Shard >= link.Shards:
	case n.terms[m.Shard].Load() != 0:
		n.post(m.Shard, m)
	case n.cfg.Route == nil:
		return false
	default:
		if err := n.cfg.Route(m.Shard, m); err != nil {
			n.cfg.Logger.Debug("not routed", "shard", m.Shard, "error", err)
			return false
		}
	}
	return true
}

// transferOut is a transfer as a message.
func transferOut(source uint32, generation uint64, t *transfer, floor uint64) *link.Transfer {
	m := &link.Transfer{Source: source, Generation: generation, Seq: t.seq, App: t.stored.App, User: t.stored.To, From: t.stored.From,
		At: toMs(t.stored.At), Floor: floor}
	switch w := t.stored.What.(type) {
	case presence.Handshake:
		m.What, m.Serial = &link.Transfer_Contact{Contact: uint32(w.Stanza)}, w.Serial
	case presence.BlockedBy:
		m.What = &link.Transfer_BlockedBy{BlockedBy: w.On}
	case presence.NotifyWhen:
		m.What = &link.Transfer_NotifyWhen{NotifyWhen: &link.NotifyWhen{User: w.User, TtlMs: w.TTL.Milliseconds(), End: w.End, Hidden: uint32(w.Hidden)}}
	case presence.Publish:
		m.What = &link.Transfer_Publish{Publish: &link.Publish{Type: uint32(w.Type), Sender: w.Sender, Id: w.ID[:], ClientId: w.ClientID, Body: w.Body,
			Class: uint32(w.Class), TtlMs: w.TTL.Milliseconds(), Collapse: w.Collapse, AnyDevice: w.AnyDevice}}
	case presence.Erased:
		m.What = &link.Transfer_Erased{Erased: true}
	}
	return m
}

// received is a transfer as an input; nil if it says nothing.
func received(t *link.Transfer) presence.Input {
	in := presence.Received{Source: t.GetSource(), Generation: t.GetGeneration(), Seq: t.GetSeq(), From: t.GetFrom(), At: unixMs(t.GetAt())}
	switch w := t.GetWhat().(type) {
	case *link.Transfer_Contact:
		in.What = presence.Handshake{Stanza: enum[presence.ContactStanza](w.Contact), Serial: t.GetSerial()}
	case *link.Transfer_BlockedBy:
		in.What = presence.BlockedBy{On: w.BlockedBy}
	case *link.Transfer_NotifyWhen:
		in.What = notifyWhen(w.NotifyWhen)
	case *link.Transfer_Publish:
		p := publish(w.Publish)
		if p == nil {
			return nil
		}
		p.Type = enum[presence.EntryType](w.Publish.GetType())
		in.What = *p
	case *link.Transfer_Erased:
		in.What = presence.Erased{}
	default:
		return nil
	}
	return in
}
