package edge

const (
	crowdSlots = 32   // connects that a hub works at
	crowdHold  = 800  // ms for which one that is not answered keeps its slot
	crowdOver  = 6000 // ms in which a crowd is let in, whatever its size: clients wait 10 s for their answer, and a shard may take 2 s for it
)

// crowd lets connects begin a few at a time, in the order in which they came: when many come at once, because a node
// has died, those who are here must not wait for all of them. A fast connect makes room when it is answered, a slow
// one after a while; the more there are, the sooner.
type crowd struct {
	waiting []*opener
	begun   []*opener // in order of time; some have no slot any more
	busy    int       // slots taken
	peak    int       // most that waited since nobody did
}

func (c *crowd) join(o *opener) {
	c.waiting = append(c.waiting, o)
	c.peak = max(c.peak, len(c.waiting))
}

// pick takes the next opener that may begin, nil if there is none now.
func (c *crowd) pick(now int64) *opener {
	hold := c.hold()
	for len(c.begun) > 0 && (!c.begun[0].slot || c.begun[0].began+hold <= now) {
		c.free(c.begun[0])
		c.begun = c.begun[1:]
	}
	if len(c.waiting) == 0 {
		c.waiting, c.peak = nil, 0
		return nil
	}
	if c.busy == crowdSlots {
		return nil
	}
	o := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.begun = append(c.begun, o)
	c.busy++
	o.slot, o.began = true, now
	return o
}

// free gives an opener's slot back, if it has one.
func (c *crowd) free(o *opener) {
	if o.slot {
		o.slot = false
		c.busy--
	}
}

// next is when somebody who waits may begin at the latest, 0 if nobody waits. It holds after pick gave nil.
func (c *crowd) next() int64 {
	if len(c.waiting) == 0 {
		return 0
	}
	return c.begun[0].began + c.hold()
}

func (c *crowd) hold() int64 { return min(crowdHold, crowdOver*crowdSlots/int64(max(c.peak, 1))) }

// letIn begins the connects whose turn it is.
func (h *hub) letIn(now int64) {
	for o := h.crowd.pick(now); o != nil; o = h.crowd.pick(now) {
		h.edge.count.waiting.Add(-1)
		if h.openers[o.s.conn] == o {
			h.begin(o)
		} else { // it has gone
			h.crowd.free(o)
		}
	}
	if at := h.crowd.next(); at != 0 {
		h.sooner(at)
	}
}

// through takes an opener out, answered or not.
func (h *hub) through(o *opener) {
	delete(h.openers, o.s.conn)
	h.crowd.free(o)
	h.letIn(h.edge.clock())
}
