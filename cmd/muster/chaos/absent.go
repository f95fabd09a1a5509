//go:build linux

package chaos

import (
	"context"
	"slices"
	"time"
)

const (
	absentees   = 10 // people who stay away after their edge was killed, at most
	detection   = 5 * time.Second
	graceLost   = 15 * time.Second // of a session whose edge died
	stormGrace  = 60 * time.Second // the same while very many are lost at once
	stormSpread = 20 * time.Second // over which they go offline then
	stormFloor  = 500              // sessions that must be lost at once for that
)

// absentBounds is what is promised of those who stay away after an edge was killed.
func (c *campaign) absentBounds() bounds {
	guard := !slices.Contains(c.opt.Serve, "--storm-guard=false")
	if edges := len(c.top.fronts()); guard && len(c.people)/edges >= stormFloor {
		return bounds{earliest: graceLost, latest: detection + stormGrace + stormSpread}
	}
	return bounds{earliest: graceLost, latest: detection + graceLost}
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
