//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math"
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
	cores := 0
	for _, n := range s.Nodes {
		if n.State == "active" {
			cores++
		}
	}
	check := func(name, what string, n, all int) {
		mean := float64(all) / float64(cores)
		low, high := int(math.Floor(mean*(1-uneven))), int(math.Ceil(mean*(1+uneven)))
		if n < low || n > high {
			v.fail("%s %s %d shards; %d to %d would be even", name, what, n, low, high)
		}
	}
	for _, n := range s.Nodes {
		if n.State != "active" {
			continue
		}
		v.Examined++
		check(n.Name, "leads", leads[n.Name], len(s.Shards))
		if cores >= replicas {
			check(n.Name, "holds", holds[n.Name], all)
		}
		v.Note += fmt.Sprintf("%s leads %d of %d; ", n.Name, leads[n.Name], holds[n.Name])
	}
	return v.done()
}
