package cluster

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"muster/persistence"
)

// Turn says what to do, in this order: tell Closed, send Before, ingest Ingests, write
// Updates as one batch, synced if Sync, call Wrote, send After, tell Events. A MsgSnap in
// Before stands for the rows as they are on the disk at that moment.
//
// Rows never wait for a sync: when entries are to be applied and others to be appended, the
// applies are a turn of their own, which asks for no sync unless a configuration changes, and the appends are the next.
type Turn struct {
	Before  []Message // a leader's: they may leave before its own sync
	Closed  []Event   // Closed and LeaderChanged
	Ingests []Ingest
	Updates []persistence.Update
	Sync    bool

	After  []Message // set by Wrote, as are Events
	Events []Event

	applies []applied
	appends []appended
}

// Ingest replaces all a replica has by a received snapshot: its rows by those received from From,
// the rest by what Update says.
type Ingest struct {
	From        uint64 // node
	Index, Term uint64
	Update      persistence.Update // Hard and State alone
}

// applied is what one group applies in a turn.
type applied struct {
	g         *group
	state     persistence.State
	responses []*raftpb.Message
	events    []Event
	opens     bool
}

// appended is what one group appends in a turn.
type appended struct {
	g         *group
	entries   []*raftpb.Entry
	hard      *raftpb.HardState  // nil: unchanged
	restored  *persistence.State // by a snapshot
	responses []*raftpb.Message
}

func (t *Turn) empty() bool {
	return len(t.Before) == 0 && len(t.Closed) == 0 && len(t.Ingests) == 0 && len(t.Updates) == 0 &&
		len(t.applies) == 0 && len(t.appends) == 0 && len(t.After) == 0 && len(t.Events) == 0
}

// Busy says that Turn has something to do.
func (h *Host) Busy() bool { return len(h.dirty) > 0 || h.next != nil || len(h.extra) > 0 }

// Turn collects what all groups that changed want. Wrote must follow.
func (h *Host) Turn() *Turn {
	h.idle()
	h.writing, h.next = h.next, nil
	if h.writing == nil {
		h.writing = &Turn{} // no snapshot while rows are about to change
		h.writing = h.collect()
	}
	return h.writing
}

func (h *Host) collect() *Turn {
	first, second := &Turn{}, &Turn{Updates: h.extra, Sync: len(h.extra) > 0}
	first.Events, h.early, h.extra = h.early, nil, nil
	dirty := h.dirty
	h.dirty = nil
	for _, g := range dirty {
		g.dirty = false
		if g.gone {
			h.drop(g, first, second)
			continue
		}
		g.flush()
		if g.raft.HasReady() {
			g.collect(first, second)
		}
	}
	if len(first.applies) == 0 {
		second.Before = append(first.Before, second.Before...) // second's: only of a bug
		second.Closed, second.Events = first.Closed, append(first.Events, second.Events...)
		return second
	}
	if !second.empty() {
		h.next = second
	}
	return first
}

// drop forgets a replica whose destruction the turns at hand write.
func (h *Host) drop(g *group, first, second *Turn) {
	g.close(first)
	delete(h.groups, g.id)
	h.order = slices.DeleteFunc(h.order, func(o *group) bool { return o == g })
	second.Events = append(second.Events, Removed{Group: g.id, Replica: g.state.Replica})
}

// collect accepts one Ready. Closed comes first, so that nothing of an ended term is
// acknowledged by the entries applied with it.
func (g *group) collect(first, second *Turn) {
	rd := g.raft.Ready()
	g.follow(first, rd.HardState, rd.SoftState != nil)
	for _, s := range rd.ReadStates {
		g.reads.confirmed(s)
	}
	g.reads.ready(g, &first.Events)
	var toAppend *raftpb.Message
	var applied uint64
	for _, m := range rd.Messages {
		switch m.GetType() {
		case raftpb.MsgStorageAppend:
			toAppend = m
		case raftpb.MsgStorageApply:
			applied = g.apply(first, m)
		case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap, raftpb.MsgTimeoutNow:
			g.send(&first.Before, m)
		default:
			g.send(&second.After, m)
		}
	}
	if toAppend != nil {
		g.append(second, toAppend, applied, rd.MustSync && !g.host.cfg.bugs.noSync)
	}
}

// append takes entries, hard state and snapshot to the disk; what depends on them waits for Wrote. A
// commit index alone that the apply of the same Ready covers is not written twice.
func (g *group) append(t *Turn, m *raftpb.Message, applied uint64, sync bool) {
	u := persistence.Update{Group: g.id, Entries: m.GetEntries()}
	a := appended{g: g, entries: m.GetEntries(), responses: m.GetResponses()}
	if m.Term != nil && (m.GetTerm() != g.hard.GetTerm() || m.GetVote() != g.hard.GetVote() || m.GetCommit() > applied) {
		u.Hard = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
		a.hard = u.Hard
	}
	if s := m.GetSnapshot(); s.GetMetadata().GetIndex() != 0 {
		in := g.restore(s, or(u.Hard, g.hard))
		a.restored = in.Update.State
		t.Ingests = append(t.Ingests, in)
		sync = true
	}
	if g.host.cfg.bugs.answerBeforeSync {
		a.responses = g.answer(&t.Before, a.responses)
	}
	t.appends = append(t.appends, a)
	if u.Hard != nil || len(u.Entries) > 0 {
		t.Updates = append(t.Updates, u)
		t.Sync = t.Sync || sync
	}
}

// answer sends what is for others and returns what is for the replica itself.
func (g *group) answer(to *[]Message, responses []*raftpb.Message) (own []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() == g.state.Replica {
			own = append(own, m)
		} else {
			g.send(to, m)
		}
	}
	return own
}

func (g *group) send(to *[]Message, m *raftpb.Message) {
	node := g.node(m.GetTo())
	if node == 0 || node == g.host.cfg.Node {
		return
	}
	*to = append(*to, Message{Group: g.id, From: g.host.cfg.Node, To: node, Raft: m})
}

// Wrote says that the turn's writes are done: synced if asked, readable in any case.
func (h *Host) Wrote(t *Turn) {
	if h.writing != t {
		panic("cluster: Wrote of another turn")
	}
	h.writing = nil
	for _, a := range t.appends {
		if a.restored != nil {
			a.g.log.reset(a.restored.Truncated, a.restored.TruncatedTerm)
			a.g.setState(*a.restored)
		}
		a.g.log.append(a.entries)
		a.g.hard = or(a.hard, a.g.hard)
	}
	for _, a := range t.applies {
		a.g.hard = a.g.covering(a.state.Applied)
		a.g.setState(a.state)
	}
	for _, a := range t.applies {
		if a.opens {
			t.Events = append(t.Events, a.g.opened())
		}
		t.Events = append(t.Events, a.events...)
		for _, e := range a.events {
			a.g.landed(e.(Committed).Seq)
		}
		a.g.done(a.responses)
	}
	for _, a := range t.appends {
		a.g.done(a.g.answer(&t.After, a.responses))
	}
	for _, a := range t.applies {
		a.g.reads.ready(a.g, &t.Events)
	}
}

// done hands raft's own responses back to it.
func (g *group) done(own []*raftpb.Message) {
	if g.gone {
		return
	}
	for _, m := range own {
		_ = g.raft.Step(m)
	}
	if g.raft.HasReady() {
		g.host.touch(g)
	}
}

// covering is the hard state on the disk with a commit index that covers what is applied. raft's
// newest may name entries that are not on the disk yet.
func (g *group) covering(applied uint64) *raftpb.HardState {
	hard := proto.Clone(g.hard).(*raftpb.HardState)
	hard.Commit = new(max(hard.GetCommit(), applied))
	return hard
}
