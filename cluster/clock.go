package cluster

import (
	"fmt"
	"slices"
	"time"
)

const (
	maxOffset   = 2 * time.Second  // from the median; more and the node leads nothing
	rightOffset = time.Second      // less and it may lead again
	sampleLife  = 10 * time.Second // a clock not heard of for so long counts no more
)

// clocks are the nodes' clocks as seen from this one.
type clocks struct {
	samples map[uint64]reading
	off     bool
}

type reading struct {
	offset time.Duration // of the other clock from the own
	at     time.Duration
}

func (c *clocks) add(node uint64, offset, now time.Duration) {
	if c.samples == nil {
		c.samples = map[uint64]reading{}
	}
	c.samples[node] = reading{offset, now}
}

// error is how far the own clock is ahead of the median of all. Of an even number the median is the nearer
// one: two clocks that differ tell nothing about which is wrong.
func (c *clocks) error(now time.Duration) time.Duration {
	all := []time.Duration{0}
	for node, s := range c.samples {
		if now-s.at > sampleLife {
			delete(c.samples, node)
			continue
		}
		all = append(all, s.offset)
	}
	slices.Sort(all)
	low, high := all[(len(all)-1)/2], all[len(all)/2]
	return -max(low, min(high, 0))
}

// judge says why the clock is wrong; "" when it is right.
func (c *clocks) judge(now time.Duration) string {
	limit := maxOffset
	if c.off {
		limit = rightOffset
	}
	off := c.error(now)
	if c.off = off.Abs() > limit; !c.off {
		return ""
	}
	return fmt.Sprintf("cluster: the clock is %v off the median of %d nodes: set it right", off.Round(10*time.Millisecond), len(c.samples)+1)
}
