package members

import (
	"context"
	"sync"
	"time"

	"muster/cluster/stream"
)

const countersMethod = "counters"

// countersTime is how long a process may take to tell its counters.
const countersTime = 500 * time.Millisecond

// Traffic counts the bytes that this process has put on the network for the cluster: see gossip.Traffic and stream.Sent.
func (n *Node) Traffic() (gossip, actor, raft uint64) {
	if n.raft != nil {
		raft = n.raft.Sent()
	}
	return n.gossip.Traffic(), n.actor.Sent(), raft
}

// handleCounters lets others ask for this process's counters.
func (n *Node) handleCounters() {
	if n.cfg.Counters == nil {
		return
	}
	n.actor.Handle(countersMethod, false, func(context.Context, stream.Peer, []byte) ([]byte, error) { return n.cfg.Counters(), nil })
}

// Counters asks each process that is connected for its counters; by node, this one included. Who does not answer in
// half a second is left out.
func (n *Node) Counters(ctx context.Context) map[uint64][]byte {
	ctx, cancel := context.WithTimeout(ctx, countersTime)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	all := map[uint64][]byte{}
	for _, m := range newest(n.gossip.Members()) {
		asked.Go(func() {
			told, err := n.actor.Call(ctx, m.Node, countersMethod, nil)
			if err != nil {
				return // it is down, or of a version that does not count
			}
			mu.Lock()
			defer mu.Unlock()
			all[m.Node] = told
		})
	}
	asked.Wait()
	return all
}
