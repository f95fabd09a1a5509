package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"muster/persistence"
)

// apply turns committed entries into rows and the group's next state: one batch. It returns the last index.
func (g *group) apply(t *Turn, m *raftpb.Message) uint64 {
	a := applied{g: g, state: g.state, responses: m.GetResponses()}
	var ops []persistence.Op
	for _, e := range m.GetEntries() {
		s := &a.state
		if e.GetIndex() != s.Applied+1 || e.GetTerm() < s.AppliedTerm {
			panic(fmt.Sprintf("cluster: I2: group %d: entry %d of term %d follows %d of term %d",
				g.id, e.GetIndex(), e.GetTerm(), s.Applied, s.AppliedTerm))
		}
		s.Applied, s.AppliedTerm, s.Hash = e.GetIndex(), e.GetTerm(), roll(s.Hash, e)
		switch {
		case e.GetType() != raftpb.EntryNormal:
			g.applyChange(s, e)
			t.Sync = !g.host.cfg.bugs.noSync // a configuration that is reported must outlive a power loss
		case len(e.GetData()) > 0:
			ops = append(ops, g.applyCommand(&a, e)...)
		case g.open != 0 && e.GetTerm() == g.open:
			g.change = 0 // raft refused the change and put an empty entry in its place
		case g.leading && g.open == 0 && e.GetTerm() == g.term: // I4: the own empty entry
			a.opens = true
		}
		if s.Applied%g.host.cfg.CompareEvery == 0 {
			g.marks[1] = g.marks[0]
			g.marks[0] = mark{s.Applied, s.Hash}
		}
	}
	u := persistence.Update{Group: g.id, Hard: g.covering(a.state.Applied), Ops: ops, Truncate: g.truncation(&a.state)}
	u.State = new(a.state)
	t.applies, t.Updates = append(t.applies, a), append(t.Updates, u)
	return a.state.Applied
}

// applyCommand drops what was proposed in another term than it was committed in.
func (g *group) applyCommand(a *applied, e *raftpb.Entry) []persistence.Op {
	c, err := decodeCommand(e.GetData())
	if err != nil {
		panic(fmt.Sprintf("cluster: I2: group %d: entry %d: %v", g.id, e.GetIndex(), err))
	}
	if c.term != e.GetTerm() && !g.host.cfg.bugs.noTermCheck {
		return nil
	}
	g.compare(c.mark)
	a.state.At = max(a.state.At, c.at)
	if g.open != 0 && g.open == e.GetTerm() {
		a.events = append(a.events, Committed{Shard: g.shard(), Term: g.open, Seq: c.seq, Index: e.GetIndex()})
	}
	return c.ops
}

// compare meets the leader's hash with the own one of the same index, if it is still known.
func (g *group) compare(m mark) {
	for _, own := range g.marks {
		if own.index == m.index && own.hash != m.hash {
			panic(fmt.Sprintf("cluster: I2: group %d: after entry %d the hash is %x here and %x at the leader",
				g.id, m.index, own.hash, m.hash))
		}
	}
}

var polynomial = crc64.MakeTable(crc64.ECMA)

func roll(hash uint64, e *raftpb.Entry) uint64 {
	var head [32]byte
	binary.BigEndian.PutUint64(head[0:], hash)
	binary.BigEndian.PutUint64(head[8:], e.GetIndex())
	binary.BigEndian.PutUint64(head[16:], e.GetTerm())
	binary.BigEndian.PutUint64(head[24:], uint64(e.GetType()))
	return crc64.Update(crc64.Update(hash, polynomial, head[:]), polynomial, e.GetData())
}

// truncation picks what of the log may go and says so in the state; 0: nothing.
func (g *group) truncation(s *persistence.State) uint64 {
	kept, most := s.Applied-s.Truncated, g.host.cfg.LogEntries
	over := kept > most || g.log.bytes > g.host.cfg.LogBytes
	if !over && kept <= most/2+most/8 && g.log.bytes <= g.host.cfg.LogBytes/2 {
		return 0
	}
	half := min(kept/2, most/2)
	to := s.Applied - half
	if g.log.bytes > g.host.cfg.LogBytes/2 {
		to = s.Applied - half/2
	}
	if !over {
		to = min(to, g.needed())
	}
	if to < s.Truncated+most/16 && !over || to <= s.Truncated || to > g.state.Applied {
		return 0
	}
	term, err := g.log.Term(to)
	if err != nil {
		panic(fmt.Sprintf("cluster: group %d: term of applied entry %d: %v", g.id, to, err))
	}
	s.Truncated, s.TruncatedTerm = to, term
	return to
}

// needed is the last entry that every live follower has; on a follower none may go early.
func (g *group) needed() uint64 {
	if !g.leading {
		return 0
	}
	least := g.state.Applied
	g.raft.WithProgress(func(id uint64, _ raft.ProgressType, p progress) {
		if p.RecentActive && id != g.state.Replica {
			least = min(least, max(p.Match, p.PendingSnapshot))
		}
	})
	return least
}

// restore makes the own state of a received snapshot: nothing of it but the rows' history is
// the sender's, least of all term and vote.
func (g *group) restore(s *raftpb.Snapshot, own *raftpb.HardState) Ingest {
	base, from, err := decodeBase(s.GetData())
	if err != nil {
		panic(fmt.Sprintf("cluster: group %d: snapshot: %v", g.id, err))
	}
	index, term := s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()
	base.Applied, base.AppliedTerm, base.Truncated, base.TruncatedTerm = index, term, index, term
	base.Conf, base.Replica = s.GetMetadata().GetConfState(), g.state.Replica
	g.marks = [2]mark{}
	hard := &raftpb.HardState{Term: new(own.GetTerm()), Vote: new(own.GetVote()), Commit: new(index)}
	if g.host.cfg.bugs.senderHardState {
		hard.Term, hard.Vote = new(term), new(raft.None)
	}
	return Ingest{From: from, Index: index, Term: term, Update: persistence.Update{Group: g.id, Hard: hard, State: &base}}
}

// applyChange adopts a configuration change and who came with it.
func (g *group) applyChange(s *persistence.State, e *raftpb.Entry) {
	var cc raftpb.ConfChangeV2
	if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
		panic(fmt.Sprintf("cluster: I2: group %d: entry %d: %v", g.id, e.GetIndex(), err))
	}
	s.Conf = g.raft.ApplyConfChange(&cc)
	if len(cc.GetContext()) > 0 {
		r := reader{b: cc.GetContext()}
		s.Members = append(slices.Clone(s.Members), r.members()...)
		if r.bad {
			panic(fmt.Sprintf("cluster: I2: group %d: entry %d: bad context", g.id, e.GetIndex()))
		}
	}
	s.Members = stay(s.Members, s.Conf)
	if !joint(s.Conf) {
		g.change = 0
	}
}

func joint(c *raftpb.ConfState) bool { return len(c.GetVotersOutgoing()) > 0 }

// sole tells whether a replica is all of its group.
func sole(c *raftpb.ConfState) bool {
	return len(c.GetVoters()) == 1 && len(c.GetLearners()) == 0 && !joint(c)
}

func inConf(c *raftpb.ConfState, id uint64) bool {
	return slices.Contains(c.GetVoters(), id) || slices.Contains(c.GetLearners(), id) ||
		slices.Contains(c.GetVotersOutgoing(), id) || slices.Contains(c.GetLearnersNext(), id)
}

// stay drops the members that are gone, but remembers the highest id ever given, as one of
// node 0: ids are never used again (I5).
func stay(ms []persistence.Member, conf *raftpb.ConfState) []persistence.Member {
	var highest uint64
	var kept []persistence.Member
	for _, m := range ms {
		highest = max(highest, m.Replica)
		if inConf(conf, m.Replica) {
			kept = append(kept, m)
		}
	}
	if !slices.ContainsFunc(kept, func(m persistence.Member) bool { return m.Replica == highest }) {
		kept = append(kept, persistence.Member{Replica: highest})
	}
	return kept
}
