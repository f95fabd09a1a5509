package members

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"muster/cluster/gossip"
	"muster/cluster/meta"
	"muster/cluster/stream"
)

// A node that lost its disk comes back under its name, once the cluster holds its former self as down; the name
// of a node that lives is refused in the end.
func TestNameOfFormerSelf(t *testing.T) {
	for _, down := range []time.Duration{10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			n, begin := &Node{log: slog.New(slog.DiscardHandler)}, time.Now()
			_, err := n.knock(t.Context(), func(context.Context) (meta.Joined, error) {
				if time.Since(begin) < down {
					return meta.Joined{}, fmt.Errorf("%w: c1 is node 1", meta.ErrNameInUse)
				}
				return meta.Joined{}, nil
			})
			if refused := errors.Is(err, meta.ErrNameInUse); refused != (down == time.Hour) || !refused && err != nil {
				t.Errorf("down after %v: %v", down, err)
			}
		})
	}
}

// Shards go to a core of the cluster that stays, and to nobody else.
func TestHeirs(t *testing.T) {
	self := gossip.Member{Node: 1, Role: gossip.Core, Cluster: "c", Draining: true}
	for name, c := range map[string]struct {
		other gossip.Member
		want  bool
	}{
		"a core":             {gossip.Member{Node: 2, Role: gossip.Core, Cluster: "c"}, true},
		"both":               {gossip.Member{Node: 2, Role: gossip.Core | gossip.Edge, Cluster: "c"}, true},
		"a core that leaves": {gossip.Member{Node: 2, Role: gossip.Core, Cluster: "c", Draining: true}, false},
		"an empty core":      {gossip.Member{Node: 2, Role: gossip.Core}, false},
		"an edge":            {gossip.Member{Node: 2, Role: gossip.Edge, Cluster: "c"}, false},
		"itself":             {gossip.Member{Node: 1, Role: gossip.Core, Cluster: "c"}, false},
	} {
		if got := heirs([]gossip.Member{self, c.other}, self.Node); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Who is connected stays a peer although gossip has lost sight of it; who is not goes.
func TestStill(t *testing.T) {
	peers := func(nodes ...uint64) (list []stream.Peer) {
		for _, n := range nodes {
			list = append(list, stream.Peer{Node: n})
		}
		return list
	}
	got := still(peers(1, 2), peers(2, 3, 4), func(node uint64) bool { return node == 3 })
	if want := peers(1, 2, 3); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// Links end with processes that neither gossip nor a stream knows.
func TestLost(t *testing.T) {
	members := []gossip.Member{{Node: 1}, {Node: 2}}
	got := lost([]uint64{1, 2, 3, 4}, members, func(node uint64) bool { return node == 2 || node == 3 })
	if want := []uint64{4}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
