package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"muster/actors/link"
	"muster/actors/presence"
)

// outlet is the only way out of a shard that is open under a term. It is safe for
// concurrent use.
type outlet struct {
	node    *Node
	shard   uint32
	term    uint64
	gw      *gateway
	gateway *actor.PID

	mu   sync.RWMutex
	shut bool
}

// cut shuts the outlet: nothing leaves after it returns.
func (o *outlet) cut() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
}

func (o *outlet) isCut() bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.shut
}

// refuse tells an edge that a command was not done, or may not have been. It leaves even when the outlet is cut.
func (o *outlet) refuse(to presence.Edge, d *link.Down) {
	if down := o.node.downlink(to); down != nil {
		d.Node, d.Shard, d.Term = o.node.cfg.Name, o.shard, o.term
		o.node.stats.Down.Add(1)
		down.Down(d)
	}
}

// send sends d, which it fills in, to an edge. What is for an edge without a link is
// dropped: its announcement will ask for it.
func (o *outlet) send(to presence.Edge, d *link.Down) {
	down := o.node.downlink(to)
	if down == nil {
		return
	}
	d.Node, d.Shard, d.Term = o.node.cfg.Name, o.shard, o.term
	o.mu.RLock()
	defer o.mu.RUnlock()
	if !o.shut {
		o.node.stats.Down.Add(1)
		down.Down(d)
	}
}
