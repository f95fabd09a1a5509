package cluster

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// TestOverlap shows the checker of configuration changes red: no change the host proposes is of that kind.
func TestOverlap(t *testing.T) {
	conf := func(voters, outgoing []uint64) *raftpb.ConfState {
		return &raftpb.ConfState{Voters: voters, VotersOutgoing: outgoing}
	}
	for _, c := range []struct {
		what     string
		old, now *raftpb.ConfState
		want     bool
	}{
		{"one voter added", conf([]uint64{1, 2, 3}, nil), conf([]uint64{1, 2, 3, 4}, nil), true},
		{"one voter removed", conf([]uint64{1, 2, 3}, nil), conf([]uint64{1, 3}, nil), true},
		{"two voters at once", conf([]uint64{1}, nil), conf([]uint64{1, 2, 3}, nil), false},
		{"a swap at once", conf([]uint64{1, 2, 3}, nil), conf([]uint64{1, 2, 4}, nil), false},
		{"into a joint one", conf([]uint64{1, 2, 3}, nil), conf([]uint64{2, 3, 4}, []uint64{3, 2, 1}), true},
		{"into a joint one of others", conf([]uint64{1, 2, 3}, nil), conf([]uint64{2, 3, 4}, []uint64{1, 2}), false},
		{"out of a joint one", conf([]uint64{2, 3, 4}, []uint64{1, 2, 3}), conf([]uint64{2, 3, 4}, nil), true},
		{"out of a joint one to others", conf([]uint64{2, 3, 4}, []uint64{1, 2, 3}), conf([]uint64{3, 4}, nil), false},
	} {
		if got := overlap(c.old, c.now); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
