//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math"
	"strings"
)

// uneven is by how much of the mean a core may hold more or fewer shards than others.
const uneven = 0.2

// balance waits until the shards are spread evenly over the cores, replicas and leaders.
func (c *campaign) balance(ctx context.Context) verdict {
	limited, cancel := context.WithTimeout(ctx, c.opt.Settle)
	defer cancel()
	for {
		s, err := c.clusterState(limited)
		v := even(s)
		if err != nil {
			v = verdict{Checker: v.Checker, Violations: []string{err.Error()}}
		}
		if len(v.Violations) == 0 || !pause(limited, poll) {
			return v
		}
	}
}

// even: each active core has its share of replicas and of leaders, give or take a fifth, rounded away from it.
func even(s clusterState) verdict {
	v := verdict{Checker: "balance", Of: "cores"}
	leads, holds, all := map[string]int{}, map[string]int{}, 0
	for _, shard := range s.Shards {
		leads[shard.Leader]++
		for _, name := range shard.Voters {
			holds[name]++
			all++
		}
	}
	cores := s.active()
	check := func(name, what string, n, all int) {
		mean := float64(all) / float64(len(cores))
		low, high := int(math.Floor(mean*(1-uneven))), int(math.Ceil(mean*(1+uneven)))
		if n < low || n > high {
			v.fail("%s %s %d shards; %d to %d would be even", name, what, n, low, high)
		}
	}
	var notes []string
	for _, name := range cores {
		v.Examined++
		check(name, "leads", leads[name], len(s.Shards))
		if len(cores) >= replicas {
			check(name, "holds", holds[name], all)
		}
		notes = append(notes, fmt.Sprintf("%s leads %d of %d", name, leads[name], holds[name]))
	}
	v.Note = strings.Join(notes, ", ")
	return v.done()
}
