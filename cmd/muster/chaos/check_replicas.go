package chaos

import (
	"fmt"
	"slices"
)

// replica is what a node said of a replica that it holds.
type replica struct {
	node       string
	Group      uint32   `json:"group"`
	Replica    uint64   `json:"replica"`
	Voters     []uint64 `json:"voters"`
	Generation uint64   `json:"generation"`
	Applied    uint64   `json:"applied"`
	Hash       string   `json:"hash"`
}

// moment is a state of a group: equal on all replicas that are in it.
type moment struct {
	group               uint32
	generation, applied uint64
}

// moments sorts what was said by moment.
func moments(said []replica) map[moment][]replica {
	all := map[moment][]replica{}
	for _, r := range said {
		m := moment{r.Group, r.Generation, r.Applied}
		all[m] = append(all[m], r)
	}
	return all
}

// uncompared lists the groups of which not all voters were heard in one moment.
func uncompared(said []replica) []uint32 {
	done, groups := map[uint32]bool{}, map[uint32]bool{}
	for m, at := range moments(said) {
		groups[m.group] = true
		heard := func(voter uint64) bool {
			return slices.ContainsFunc(at, func(r replica) bool { return r.Replica == voter })
		}
		all := len(at[0].Voters) > 0
		for _, v := range at[0].Voters {
			all = all && heard(v)
		}
		done[m.group] = done[m.group] || all
	}
	var list []uint32
	for g := range groups {
		if !done[g] {
			list = append(list, g)
		}
	}
	slices.Sort(list)
	return list
}

// equalReplicas: at an equal applied index the rows of a group are equal wherever they are. Each of groups must have been
// compared over all its voters.
func equalReplicas(said []replica, groups int) verdict {
	v := verdict{Checker: "replica equality", Of: "replicas"}
	seen := map[uint32]bool{}
	for m, at := range moments(said) {
		seen[m.group] = true
		slices.SortFunc(at, func(a, b replica) int { return int(int64(a.Replica) - int64(b.Replica)) })
		v.Examined += len(at)
		for _, r := range at[1:] {
			if r.Hash != at[0].Hash {
				v.fail("group %d after entry %d: replica %d on %s has rows with hash %s, replica %d on %s with %s",
					m.group, m.applied, at[0].Replica, at[0].node, at[0].Hash, r.Replica, r.node, r.Hash)
			}
		}
	}
	if len(seen) < groups {
		v.fail("%d groups were heard of, there are %d", len(seen), groups)
	}
	for _, g := range uncompared(said) {
		v.fail("group %d: its voters were never heard at one applied index", g)
	}
	v.Note = fmt.Sprintf("%d groups", len(seen))
	return v.done()
}
