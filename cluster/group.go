package cluster

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// group is this node's replica of one Raft group.
type group struct {
	host  *Host
	id    uint32
	raft  *raft.RawNode
	log   *log
	state persistence.State // as on the disk
	hard  *raftpb.HardState // as on the disk
	peers map[uint64]uint64 // replica → node, of senders that State.Members lacks
	first *raftpb.ConfState // as loaded
	dirty bool
	gone  bool // Destroy was called

	lead       uint64        // replica, as told last
	leading    bool          // raft is leader, in term
	term       uint64        // raft's
	open       uint64        // the term of Opened; 0: closed
	campaignAt time.Duration // 0: not planned
	campaigns  int           // since there was a leader

	heard  map[uint64]time.Duration // replica → when it answered last, in the own term
	caught map[uint64]time.Duration // learner → since when it is near
	until  time.Duration            // a leader's lease
	leave  farewell

	seq      uint64   // of the last proposal of term open
	batches  []*batch // not yet proposed; each becomes one entry
	flight   []flight // proposed, not yet applied
	reads    reads
	change   uint64 // index of the configuration change in flight; 0: none
	marks    [2]mark
	compared uint64 // index of the mark proposed last
}

// batch is what one entry will hold.
type batch struct {
	seq  uint64
	at   int64
	ops  []persistence.Op
	size int64
}

type flight struct {
	seq  uint64
	size int64
}

func newGroup(h *Host, id uint32, hard *raftpb.HardState, state persistence.State, last uint64) (*group, error) {
	if hard == nil {
		hard = &raftpb.HardState{}
	}
	hard = &raftpb.HardState{Term: new(hard.GetTerm()), Vote: new(hard.GetVote()), Commit: new(hard.GetCommit())}
	if state.Replica < h.retired[id] && !h.cfg.bugs.reuseReplica {
		return nil, fmt.Errorf("cluster: group %d: replica %d is behind the tombstone %d", id, state.Replica, h.retired[id]) // I5
	}
	g := &group{host: h, id: id, state: state, first: state.Conf, hard: hard, term: hard.GetTerm(), peers: map[uint64]uint64{}}
	g.log = newLog(g, last)
	var err error
	g.raft, err = raft.NewRawNode(&raft.Config{
		ID: state.Replica, ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: g.log, Applied: state.Applied, AsyncStorageWrites: true,
		MaxSizePerMsg: 256 << 10, MaxCommittedSizePerReady: 4 << 20, MaxInflightMsgs: 64, MaxInflightBytes: 4 << 20,
		MaxUncommittedEntriesSize: uint64(2 * h.cfg.ShardInFlight), // Admit refuses earlier
		CheckQuorum:               true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, StepDownOnRemoval: true, Logger: h.cfg.Logger,
	})
	return g, err
}

func (g *group) shard() uint32 { return g.id - 1 }

// node says where a replica is; 0: unknown.
func (g *group) node(replica uint64) uint64 {
	for _, m := range g.state.Members {
		if m.Replica == replica {
			return m.Node
		}
	}
	return g.peers[replica]
}

func (g *group) replicas(node uint64) (ids []uint64) {
	for _, m := range g.state.Members {
		if m.Node == node && node != 0 {
			ids = append(ids, m.Replica)
		}
	}
	return ids
}

func (g *group) voter() bool {
	return slices.Contains(g.state.Conf.GetVoters(), g.state.Replica) ||
		slices.Contains(g.state.Conf.GetVotersOutgoing(), g.state.Replica)
}

// follow notes what raft says of term and leader, and closes what the node does not lead any more.
func (g *group) follow(t *Turn, hard *raftpb.HardState, soft bool) {
	before := g.term
	if !raft.IsEmptyHardState(hard) {
		if hard.GetTerm() < g.term {
			panic(fmt.Sprintf("cluster: I3: group %d: term went from %d to %d", g.id, g.term, hard.GetTerm()))
		}
		g.term = hard.GetTerm()
	}
	if !soft && g.term == before {
		return
	}
	status := g.raft.BasicStatus()
	led := g.leading
	g.leading = status.RaftState == raft.StateLeader
	if !led && g.leading {
		g.elected()
	}
	if led && (!g.leading || g.term != before) {
		g.close(t)
	}
	if g.leading && g.host.cfg.bugs.openEarly {
		t.Events = append(t.Events, g.opened())
	}
	if status.Lead != raft.None {
		g.campaignAt, g.campaigns = 0, 0
	}
	if status.Lead != g.lead || g.term != before {
		g.lead = status.Lead
		t.Closed = append(t.Closed, LeaderChanged{Group: g.id, Term: g.term, Node: g.node(g.lead)})
	}
}

func (g *group) opened() Event {
	g.open, g.seq = g.term, 0
	return Opened{Shard: g.shard(), Term: g.term, Generation: g.state.Generation, At: g.state.At}
}

// close ends the node's term: what is in flight has an unknown outcome.
func (g *group) close(t *Turn) {
	if g.open != 0 {
		t.Closed = append(t.Closed, Closed{Shard: g.shard(), Term: g.open})
	}
	for _, b := range g.batches {
		g.host.budget.give(g.shard(), b.size)
	}
	for _, f := range g.flight {
		g.host.budget.give(g.shard(), f.size)
	}
	g.open, g.leading, g.batches, g.flight, g.change, g.leave = 0, false, nil, nil, 0, farewell{}
	g.reads.fail(g, &t.Events)
}

func (g *group) enqueue(seq uint64, at int64, ops []persistence.Op, size int64) {
	if seq != g.seq+1 {
		panic(fmt.Sprintf("cluster: shard %d: proposal %d of term %d follows %d", g.shard(), seq, g.open, g.seq))
	}
	g.seq = seq
	n := len(g.batches)
	if n == 0 || g.batches[n-1].size+size > maxGrouped {
		g.batches = append(g.batches, &batch{})
		n++
	}
	b := g.batches[n-1]
	if g.host.cfg.bugs.ackBeforeCommit {
		g.host.early = append(g.host.early, Committed{Shard: g.shard(), Term: g.open, Seq: seq, Index: g.log.last + 1})
	}
	b.seq, b.at, b.size, b.ops = seq, max(b.at, at), b.size+size, append(b.ops, ops...)
}

// flush proposes the batches, unless leadership is being given away: raft would drop them.
func (g *group) flush() {
	g.reads.ask(g)
	if len(g.batches) == 0 {
		return
	}
	status := g.raft.BasicStatus()
	if status.RaftState != raft.StateLeader || status.GetTerm() != g.open || status.LeadTransferee != raft.None {
		return // follow closes, or the transfer's end flushes
	}
	for i, b := range g.batches {
		c := command{term: g.open, at: max(b.at, g.state.At), seq: b.seq, ops: b.ops}
		if m := g.marks[0]; m.index > g.compared {
			c.mark, g.compared = m, m.index
		}
		if err := g.raft.Propose(c.encode()); err != nil {
			g.batches = g.batches[i:] // removed from the configuration: the term ends
			return
		}
		g.flight = append(g.flight, flight{b.seq, b.size})
	}
	g.batches = nil
}

// landed gives back the room of what is applied.
func (g *group) landed(seq uint64) {
	n := 0
	for n < len(g.flight) && g.flight[n].seq <= seq {
		g.host.budget.give(g.shard(), g.flight[n].size)
		n++
	}
	g.flight = g.flight[n:]
}

func (g *group) setState(s persistence.State) {
	if s.Applied < g.state.Applied {
		panic(fmt.Sprintf("cluster: I2: group %d: applied went from %d to %d", g.id, g.state.Applied, s.Applied))
	}
	g.state = s
	g.log.truncated(s.Truncated)
	for _, m := range s.Members {
		delete(g.peers, m.Replica)
	}
}
