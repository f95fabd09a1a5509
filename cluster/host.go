package cluster

import (
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"muster/persistence"
)

const (
	electionTicks  = 10
	heartbeatTicks = 1
)

// Host runs this node's replicas. It has no goroutine, no clock and does no I/O but reads
// of its Disk: inputs go in, Turn says what to do, Wrote says that it was done. No input
// may come between a Turn and its Wrote.
//
// Equal inputs give equal turns, but for raft's own election time-outs: raft draws them
// from crypto/rand.Reader, which a simulator replaces.
type Host struct {
	cfg      HostConfig
	disk     Disk
	now      time.Duration
	groups   map[uint32]*group
	order    []*group // by number
	dirty    []*group
	retired  map[uint32]uint64 // smallest replica id a group may have here
	suspects map[uint64]bool
	silent   []uint64      // to be suspected from calmAt on
	calmAt   time.Duration // after a stall of the own loop
	refusing string
	yield    bool
	gaveAt   time.Duration // when the last transfer for it began
	ticks    uint64
	budget   *budget
	extra    []persistence.Update // for the next append turn
	next     *Turn                // its applies were a turn of their own
	writing  *Turn                // between Turn and Wrote
	early    []Event              // of an injected bug
}

// NewHost loads all replicas. Sole voters have campaigned when it returns.
func NewHost(cfg HostConfig, disk Disk) (*Host, error) {
	cfg.setDefaults()
	retired, err := disk.Tombstones()
	if err != nil {
		return nil, err
	}
	if retired == nil {
		retired = map[uint32]uint64{}
	}
	h := &Host{
		cfg: cfg, disk: disk, groups: map[uint32]*group{}, retired: retired, suspects: map[uint64]bool{},
		budget: newBudget(cfg.ShardInFlight, cfg.TotalInFlight),
	}
	ids, err := disk.Groups()
	if err != nil {
		return nil, err
	}
	slices.Sort(ids)
	for _, id := range ids {
		hard, state, _, last, err := disk.Load(id)
		if err != nil {
			return nil, err
		}
		if _, err := h.add(id, hard, state, last); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *Host) add(id uint32, hard *raftpb.HardState, state persistence.State, last uint64) (*group, error) {
	g, err := newGroup(h, id, hard, state, last)
	if err != nil {
		return nil, err
	}
	h.groups[id] = g
	at, _ := slices.BinarySearchFunc(h.order, id, func(g *group, id uint32) int { return int(int64(g.id) - int64(id)) })
	h.order = slices.Insert(h.order, at, g)
	switch voters := state.Conf.GetVoters(); {
	case len(voters) == 1 && voters[0] == state.Replica && len(state.Conf.GetVotersOutgoing()) == 0:
		_ = g.raft.Campaign()
	case g.voter():
		g.campaignAt = h.now + campaignStart + g.rank()
	}
	h.touch(g)
	return g, nil
}

// touch puts a group into the next turn.
func (h *Host) touch(g *group) {
	if !g.dirty {
		g.dirty = true
		h.dirty = append(h.dirty, g)
	}
}

func (h *Host) idle() {
	if h.writing != nil {
		panic("cluster: an input between Turn and Wrote")
	}
}

// Tick is 100 ms gone by.
func (h *Host) Tick() {
	h.idle()
	h.ticks++
	for _, g := range h.order {
		g.raft.Tick()
		if len(h.suspects) > 0 && h.suspects[g.node(g.raft.BasicStatus().Lead)] {
			g.forget()
		}
		if len(g.batches) > 0 || g.raft.HasReady() {
			h.touch(g)
		}
		g.trail()
	}
	h.judge()
}

// Receive takes a message from another node. Those of a suspect and those for another
// replica than the one here are dropped.
func (h *Host) Receive(from uint64, group uint32, m *raftpb.Message) {
	h.idle()
	g := h.groups[group]
	if g == nil || h.suspects[from] || m.GetTo() != g.state.Replica || !between(m.GetType()) {
		return
	}
	if known := g.node(m.GetFrom()); known == 0 {
		g.peers[m.GetFrom()] = from
	} else if known != from {
		return
	}
	if m.GetType() == raftpb.MsgSnap {
		s := m.GetSnapshot()
		data := binary.AppendUvarint(slices.Clone(s.GetData()), from)
		if _, _, err := decodeBase(data); err != nil || h.refusing != "" {
			return
		}
		m = proto.Clone(m).(*raftpb.Message)
		m.Snapshot.Data = data
	}
	g.hear(m)
	_ = g.raft.Step(m)
	h.touch(g)
}

// between lists what nodes say to each other; proposals and reads are never forwarded.
func between(t raftpb.MessageType) bool {
	switch t {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow:
		return true
	}
	return false
}

// Admit reserves room in flight for a proposal; Propose calls it. It is the one method that any goroutine
// may call; ProposeAdmitted must follow.
func (h *Host) Admit(shard uint32, ops []persistence.Op) error {
	size := sizeOf(ops)
	if size > maxCommand {
		return ErrTooLarge
	}
	return h.budget.take(shard, size)
}

// Propose adds a proposal to what the shard's next entry holds. Seq rises by one within
// (shard, term); at is the time of the proposal, Unix ms. ops must not change any more.
func (h *Host) Propose(shard uint32, term, seq uint64, at int64, ops []persistence.Op) error {
	if h.refusing != "" {
		return ErrNoRoom
	}
	if err := h.Admit(shard, ops); err != nil {
		return err
	}
	return h.ProposeAdmitted(shard, term, seq, at, ops)
}

// ProposeAdmitted is Propose after Admit. Within its term it refuses nothing: the proposals after it are
// admitted already.
func (h *Host) ProposeAdmitted(shard uint32, term, seq uint64, at int64, ops []persistence.Op) error {
	h.idle()
	g, size := h.groups[shard+1], sizeOf(ops)
	if g == nil || g.open == 0 || g.open != term {
		h.budget.give(shard, size)
		return ErrNotLeader
	}
	g.enqueue(seq, at, ops, size)
	h.touch(g)
	return nil
}

// Read asks for a ReadReady with this id once all that is committed by now is applied.
func (h *Host) Read(shard uint32, id uint64) error {
	h.idle()
	g := h.groups[shard+1]
	if g == nil || g.open == 0 {
		return ErrNotLeader
	}
	g.reads.asked = append(g.reads.asked, id)
	h.touch(g)
	return nil
}

// SnapshotSent says how the snapshot sent last to a node's replica of the group fared.
func (h *Host) SnapshotSent(group uint32, node uint64, ok bool) {
	h.idle()
	g := h.groups[group]
	if g == nil {
		return
	}
	status := raft.SnapshotFinish
	if !ok {
		status = raft.SnapshotFailure
	}
	for _, id := range g.replicas(node) {
		g.raft.ReportSnapshot(id, status)
	}
	h.touch(g)
}

// Status of a group's replica here.
func (h *Host) Status(group uint32) (Status, error) {
	g := h.groups[group]
	if g == nil {
		return Status{}, ErrNoGroup
	}
	b := g.raft.BasicStatus()
	s := Status{Term: b.GetTerm(), Leader: g.node(b.Lead), Open: g.open, Commit: b.GetCommit(), Last: g.log.last, State: g.state}
	if g.leading {
		s.Behind = map[uint64]uint64{}
		g.raft.WithProgress(func(id uint64, _ raft.ProgressType, p progress) {
			s.Behind[id] = g.log.last - min(p.Match, g.log.last)
			if g.caughtUp(id) {
				s.CaughtUp = append(s.CaughtUp, id)
			}
		})
	}
	return s, nil
}
