package chaos

import (
	"fmt"
	"slices"
	"testing"
)

func TestEqualReplicas(t *testing.T) {
	// two groups on three nodes, all at entry 9
	said := func() (all []replica) {
		for g := range uint32(2) {
			for id := range uint64(3) {
				all = append(all, replica{node: fmt.Sprint("c", id+1), Group: g, Replica: id + 1, Voters: []uint64{1, 2, 3}, Applied: 9, Hash: "aa"})
			}
		}
		return all
	}
	for name, c := range map[string]struct {
		change func([]replica) []replica
		want   string
	}{
		"good":        {func(l []replica) []replica { return l }, ""},
		"another row": {func(l []replica) []replica { l[1].Hash = "bb"; return l }, "has rows with hash"},
		"behind":      {func(l []replica) []replica { l[1].Applied, l[1].Hash = 8, "bb"; return l }, "never heard at one applied index"},
		"caught up":   {func(l []replica) []replica { late := l[1]; l[1].Applied, l[1].Hash = 8, "bb"; return append(l, late) }, ""},
		"differed earlier": {func(l []replica) []replica {
			a, b := l[0], l[1]
			a.Applied, b.Applied, b.Hash = 7, 7, "bb"
			return append(l, a, b)
		}, "after entry 7"},
		"another history": {func(l []replica) []replica { a := l[0]; a.Generation, a.Hash = 1, "bb"; return append(l, a) }, ""},
		"a learner":       {func(l []replica) []replica { a := l[0]; a.Replica, a.Hash = 4, "bb"; return append(l, a) }, "replica 4"},
		"a voter is mute": {func(l []replica) []replica { return slices.Delete(l, 4, 5) }, "group 1: its voters were never heard"},
		"a group is mute": {func(l []replica) []replica { return l[:3] }, "1 groups were heard of"},
		"nothing":         {func([]replica) []replica { return nil }, "nothing was examined"},
	} {
		red(t, name, equalReplicas(c.change(said()), 2), c.want)
	}
}
