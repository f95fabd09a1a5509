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
