//go:build linux

package chaos

import (
	"context"
	"slices"
	"time"

	"muster/actors/presence"
)

const (
	absentees = 10              // people who stay away after their edge was killed, at most
	detection = 5 * time.Second // of the death of an edge
)

// absentBounds is what is promised of those who stay away after an edge was killed.
func (c *campaign) absentBounds() bounds {
	is := presence.DefaultConfig()
	guard := !slices.Contains(c.opt.Serve, "--storm-guard=false")
	if guard && uint64(len(c.people)/len(c.top.fronts())) >= is.StormFloor {
		return bounds{earliest: is.GraceNodeLost, latest: detection + is.StormGrace + is.StormRelease}
	}
	return bounds{earliest: is.GraceNodeLost, latest: detection + is.GraceNodeLost}
}

// killEdge kills an edge. Some of its people stay away until everybody must have seen them go.
func (c *campaign) killEdge(ctx context.Context, n *node, hold time.Duration) error {
	var away []*person
	for _, p := range c.people {
		if len(away) < min(absentees, max(1, len(c.people)/20)) && p.on() == n.name {
			p.grounded.Store(true)
			away = append(away, p)
		}
	}
	from := c.now()
	n.kill()
	for _, p := range away {
		c.note(func() { c.absences = append(c.absences, absence{user: p.name, from: from}) })
	}
	pause(ctx, hold)
	err := c.restart([]*node{n})
	pause(ctx, c.bound.latest+time.Second-(c.now()-from))
	for _, p := range away {
		p.grounded.Store(false)
	}
	return err
}
