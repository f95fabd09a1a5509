package actors

import (
	"time"

	"muster/actors/link"
)

// maxConfirming is how many linearizable reads of a shard may wait; those over it are answered BUSY, or pending.
const maxConfirming = 4096

// confirmed is the store's word on a linearizable read. The shard's memory holds all that it has acknowledged in its
// term, and began with all that was acknowledged before; so what is left to know is that no later term has begun.
type confirmed struct {
	out  *outlet // under which it was asked
	read *link.Up
	err  error
}

func linearizable(m *link.Up) bool {
	return m.GetAsk().GetLinearizable() || m.GetQuery().GetLinearizable()
}

// confirm asks the store whether the shard is led here still. Every attempt asks anew.
func (g *gateway) confirm(read *link.Up) {
	if g.confirming >= maxConfirming {
		d := movingReply(read)
		if a := d.GetAnswer(); a != nil {
			a.Code, a.Message = link.Code_BUSY, "too many reads wait for a confirmation"
		}
		if d != nil {
			g.out.send(sender(read), d)
		}
		return
	}
	g.confirming++
	out := g.out
	g.node.store.Confirm(g.shard, func(err error) { g.node.post(g.shard, &confirmed{out, read, err}) })
}

// confirmed answers a read, or says that the shard may be elsewhere.
func (g *gateway) confirmed(m *confirmed, now time.Time) {
	if m.out != g.out {
		g.moving(m.read)
		return
	}
	g.confirming--
	if m.err != nil {
		g.moving(m.read)
		return
	}
	g.up(m.read, now)
}
