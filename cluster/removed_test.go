package cluster

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// swap begins to put replica 4 in the place of 3, under leader 1. lose takes messages from then on: end is the index of the entry
// that ends the joint configuration, 0 until it is there.
func swap(t *testing.T, lose func(m Message, end uint64) bool) *script {
	s := newScript(t, &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}})
	s.lead(1)
	if !s.run(caughtFor+time.Second, func() bool { return slices.Contains(s.status(1).CaughtUp, 4) }) {
		t.Fatal("4 has not caught up")
	}
	var end uint64
	s.lose = func(m Message) bool {
		for _, e := range m.Raft.GetEntries() {
			if e.GetType() == raftpb.EntryConfChangeV2 && len(e.GetData()) == 0 {
				end = e.GetIndex()
			}
		}
		return lose(m, end)
	}
	if err := s.hosts[1].Change(1, Change{From: s.status(1).State.Conf, Promote: []uint64{4}, Remove: []uint64{3}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// reaches says that with a message its receiver has entries up to an index.
func reaches(m Message, index uint64) bool {
	return m.Raft.GetType() == raftpb.MsgApp && m.Raft.GetIndex()+uint64(len(m.Raft.GetEntries())) >= index
}

// has checks what the nodes know at the moment at which 1 is lost for good.
func (s *script) has(last map[uint64]uint64, final map[uint64]bool) {
	s.t.Helper()
	for id, want := range last {
		if st := s.status(id); st.Last != want || joint(st.State.Conf) == final[id] {
			s.t.Fatalf("node %d: entries up to %d, %v", id, st.Last, st.State.Conf)
		}
	}
	s.lose = func(Message) bool { return false }
	s.die(1)
}

// heir: the end of the joint configuration is committed by 1, 3 and 4, applied by 1 and 3, and 4 does not know that it is
// committed; 2 has not got it. Only 4 can lead, if 3 votes.
func heir(t *testing.T) (s *script, leader uint64) {
	s = swap(t, func(m Message, end uint64) bool {
		return end > 0 && (m.To == 2 && reaches(m, end) || m.To == 4 && m.Raft.GetCommit() >= end)
	})
	s.settle()
	end := s.status(1).Last
	s.has(map[uint64]uint64{1: end, 2: end - 1, 3: end, 4: end}, map[uint64]bool{1: true, 3: true})
	return s, 4
}

// ahead: 1 and 4, a majority of the new voters, have the final configuration. 2 has later entries, and does not know that any of
// it is committed. Only 2 can lead, if 3 votes.
func ahead(t *testing.T) (s *script, leader uint64) {
	committing := false
	s = swap(t, func(m Message, end uint64) bool {
		switch {
		case end == 0:
			return false
		case !committing:
			return m.To > 2 && reaches(m, end) || m.From == 2
		}
		return m.To == 2 || m.From == 2 || len(m.Raft.GetEntries()) > 0 && reaches(m, end+1)
	})
	s.settle()
	end := s.status(1).Last
	if err := s.hosts[1].Propose(0, s.open[1], 1, 0, puts(1, 300<<10)); err != nil { // too much for the same message
		t.Fatal(err)
	}
	s.settle()
	committing = true
	s.run(600*time.Millisecond, func() bool { return !joint(s.status(4).State.Conf) })
	s.has(map[uint64]uint64{1: end + 1, 2: end + 1, 3: end, 4: end}, map[uint64]bool{1: true, 4: true})
	return s, 2
}

// TestRemovedReplicaVotes loses the leader when others are still in the joint configuration: they need the vote, and the log, of
// the replica that has left.
func TestRemovedReplicaVotes(t *testing.T) {
	for name, script := range map[string]func(t *testing.T) (*script, uint64){"heir": heir, "ahead": ahead} {
		t.Run(name, func(t *testing.T) {
			for name, restart := range map[string]bool{"there": false, "restarted": true} {
				t.Run(name, func(t *testing.T) {
					s, leader := script(t)
					if restart {
						s.start(3)
					}
					if !s.run(time.Minute, func() bool { return s.leader() != 0 }) || s.leader() != leader {
						t.Fatalf("node %d leads, not %d", s.leader(), leader)
					}
					s.ends(leader)
				})
			}
			t.Run("destroyed", func(t *testing.T) {
				s, _ := script(t)
				s.hosts[3].Destroy(1, 4)
				if s.run(time.Minute, func() bool { return s.leader() != 0 }) {
					t.Fatalf("node %d leads without the one vote that it needs", s.leader())
				}
			})
		})
	}
}

// ends checks that 2 and 4 leave the joint configuration, and need 3 no more.
func (s *script) ends(leader uint64) {
	s.t.Helper()
	if !s.run(time.Second, func() bool { return !joint(s.status(2).State.Conf) && !joint(s.status(4).State.Conf) }) {
		s.t.Fatalf("2 has %v, 4 has %v", s.status(2).State.Conf, s.status(4).State.Conf)
	}
	s.hosts[3].Destroy(1, 4)
	if err := s.hosts[leader].Propose(0, s.open[leader], 1, 0, puts(1, 1)); err != nil {
		s.t.Fatal(err)
	}
	s.run(time.Second, func() bool { return s.status(2).State.Applied == s.status(leader).Last })
	if a, b := s.status(2), s.status(4); a.State.Applied != b.Last || a.State.Hash != b.State.Hash {
		s.t.Errorf("2 has %+v, 4 has %+v", a, b)
	}
}
