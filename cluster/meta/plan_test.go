package meta

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// TestMoveEndsWhenItIsKnown reports a swap of replica 3 for 4 that the leader, on node 1, has finished: the replica that left may go when
// nobody can need it any more, be it that group 0 recorded the move or lost it (Take).
func TestMoveEndsWhenItIsKnown(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	final := &raftpb.ConfState{Voters: []uint64{1, 2, 4}}
	both := &raftpb.ConfState{Voters: []uint64{1, 2, 4}, VotersOutgoing: []uint64{1, 2, 3}}
	members := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 4, Node: 4}}
	state := State{Cluster: Cluster{ID: "c", Shards: 1}, Nodes: map[uint64]Node{}, Groups: []Group{{}, {
		Replicas: []Replica{{1, 1, true}, {2, 2, true}, {3, 3, true}, {4, 4, false}}, Next: 5,
		Move: &Move{Add: []uint64{4}, Remove: []uint64{3}, Since: now.UnixMilli()},
	}}}
	for id := range uint64(4) {
		state.Nodes[id+1] = Node{ID: id + 1, State: Active, Since: now.UnixMilli()}
	}
	forgot := state.Clone()
	forgot.Groups[1] = Group{Replicas: state.Groups[1].Replicas[:3], Next: 4}
	for _, tt := range []struct {
		name   string
		confs  map[uint64]*raftpb.ConfState // of the replicas whose nodes report
		behind uint64                       // of replica 2
		want   bool
	}{
		{"the leader alone", map[uint64]*raftpb.ConfState{1: final, 2: both, 3: both, 4: both}, 0, false},
		{"the leader and who left", map[uint64]*raftpb.ConfState{1: final, 3: final}, 0, false},
		{"a majority, and one is about to be told", map[uint64]*raftpb.ConfState{1: final, 2: both, 3: final, 4: final}, 0, false},
		{"a majority, and one lags far behind", map[uint64]*raftpb.ConfState{1: final, 2: both, 3: final, 4: final}, keepsUp + 1, true},
		{"a majority, and one is silent", map[uint64]*raftpb.ConfState{1: final, 4: final}, 0, true},
		{"all", map[uint64]*raftpb.ConfState{1: final, 2: final, 3: both, 4: final}, 0, true},
		{"nobody", map[uint64]*raftpb.ConfState{1: both, 2: both, 3: both, 4: both}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reports := Reports{}
			for id := range state.Nodes {
				reports[id] = Report{Node: id, Asked: now.Add(-freshFor - time.Second)}
			}
			for id, conf := range tt.confs {
				r := ReplicaReport{Group: 1, ID: id, Term: 7, Applied: 9, Conf: conf}
				if id == 1 {
					r.Open, r.Members, r.Behind = 7, members, map[uint64]uint64{1: 0, 2: tt.behind, 4: 0}
				}
				reports[id] = Report{Node: id, Incarnation: 1, Asked: now, Replicas: []ReplicaReport{r}}
			}
			over := func(s State) (adopt, take bool) {
				for _, step := range Plan(s, reports, now) {
					if c, ok := step.(Command); ok {
						next, _, err := s.Apply(c, now)
						if err != nil {
							t.Fatalf("%T%+v: %v", c, c, err)
						}
						s = next
					}
					switch step.(type) {
					case Adopt:
						adopt = true
					case Take:
						take = true
					}
				}
				if gone := s.Groups[1].find(3) == nil; gone != (adopt || take) {
					t.Errorf("%+v", s.Groups[1])
				}
				return adopt, take
			}
			if adopt, take := over(state); adopt != tt.want || take {
				t.Errorf("the move is over: %v, another history: %v", adopt, take)
			}
			if adopt, take := over(forgot); take != tt.want || adopt {
				t.Errorf("a move that group 0 does not know is over: %v, %v", take, adopt)
			}
		})
	}
}

// TestWhoIsGivenLeaderships: node 3 leads nothing and the others all. Nothing goes to it while its process is young or ends.
func TestWhoIsGivenLeaderships(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	given := func(third Report) (to []uint64) {
		s := State{Cluster: Cluster{ID: "c", Shards: 6}, Nodes: map[uint64]Node{}}
		reports := Reports{}
		for id := range uint64(3) {
			s.Nodes[id+1] = Node{ID: id + 1, State: Active, Since: now.Add(-time.Hour).UnixMilli()}
			reports[id+1] = Report{Node: id + 1, Incarnation: 1, Asked: now}
		}
		third.Node, third.Incarnation, third.Asked = 3, 2, now
		reports[3] = third
		conf := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
		for i := range uint32(7) {
			s.Groups = append(s.Groups, Group{Next: 4, Replicas: []Replica{{ID: 1, Node: 1, Voter: true}, {ID: 2, Node: 2, Voter: true}, {ID: 3, Node: 3, Voter: true}}})
			for node, r := range reports {
				own := ReplicaReport{Group: i, ID: node, Term: 7, Applied: 9, Conf: conf}
				if node == uint64(1+i%2) {
					own.Open, own.Behind = 7, map[uint64]uint64{1: 0, 2: 0, 3: 0}
				}
				r.Replicas = append(r.Replicas, own)
				reports[node] = r
			}
		}
		for _, step := range Plan(s, reports, now) {
			if o, ok := step.(Order); ok && o.Lead != 0 {
				to = append(to, o.Lead)
			}
		}
		return to
	}
	for name, c := range map[string]struct {
		third Report
		want  []uint64
	}{
		"it runs":                         {Report{UpMs: steadyFor.Milliseconds()}, []uint64{3, 3}},
		"it does not say since when":      {Report{}, []uint64{3, 3}},
		"it was restarted a moment ago":   {Report{UpMs: steadyFor.Milliseconds() - 1}, nil},
		"it gives away what it leads now": {Report{UpMs: steadyFor.Milliseconds(), Yields: true}, nil},
	} {
		if got := given(c.third); !slices.Equal(got, c.want) {
			t.Errorf("%s: leaderships go to %v, want %v", name, got, c.want)
		}
	}
}

// TestLeadershipsASecond moves no more of them than four in any second.
func TestLeadershipsASecond(t *testing.T) {
	d, now, moved := director{}, time.Unix(1_700_000_000, 0), 0
	for range 100 {
		if d.afford(now) {
			moved++
		}
		now = now.Add(50 * time.Millisecond) // 5 s in all
	}
	if moved != 5*maxLeads {
		t.Errorf("%d in 5 s", moved)
	}
}

// TestNewLeaderCountsLearners begins no move, as long as learners that it has not heard of may fill the cluster's limit.
func TestNewLeaderCountsLearners(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := State{Cluster: Cluster{ID: "c", Shards: 5}, Nodes: map[uint64]Node{}}
	reports := Reports{5: {Node: 5}}
	for id := range uint64(6) {
		s.Nodes[id+1] = Node{ID: id + 1, State: Active, Since: now.UnixMilli()}
		if id+1 != 5 {
			reports[id+1] = Report{Node: id + 1, Incarnation: 1, Asked: now}
		}
	}
	for i := range uint32(6) {
		g, conf := Group{Next: 7}, &raftpb.ConfState{}
		for _, node := range [][]uint64{{1, 2, 3, 4, 6}, {1, 2, 3, 5}, {1, 2, 3, 5}, {1, 2, 3, 5}, {1, 2, 3, 5}, {1}}[i] {
			r := Replica{ID: node, Node: node, Voter: node != 5}
			g.Replicas = append(g.Replicas, r)
			if r.Voter {
				conf.Voters = append(conf.Voters, node)
			} else {
				conf.Learners = append(conf.Learners, node)
			}
		}
		s.Groups = append(s.Groups, g)
		for _, r := range g.Replicas {
			own := ReplicaReport{Group: i, ID: r.ID, Term: 7, Applied: 9, Conf: conf}
			if r.Node == 1 {
				own.Open, own.Behind = 7, map[uint64]uint64{1: 0, 2: 0, 3: 0, 4: 0, 5: 9, 6: 0}
			}
			if report := reports[r.Node]; r.Node != 5 {
				report.Replicas = append(report.Replicas, own)
				reports[r.Node] = report
			}
		}
	}
	for age, want := range map[time.Duration]bool{0: false, freshFor: false, freshFor + 1: true} {
		reports[5] = Report{Node: 5, Asked: now.Add(-age)}
		began := slices.ContainsFunc(Plan(s, reports, now), func(step Step) bool {
			b, ok := step.(Begin)
			return ok && len(b.Nodes) > 0
		})
		if began != want {
			t.Errorf("it leads for %v and has not heard of node 5: a move has begun: %v", age, began)
		}
	}
}
