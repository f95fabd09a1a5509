package actors

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
)

var _ link.Core = (*Node)(nil)

// edgeLink is what the node knows of one edge process.
type edgeLink struct {
	epoch    uint64
	down     link.Downlink // nil: no link
	lease    time.Time     // its end
	lapsed   bool          // no beat within the lease: unreachable
	draining bool
}

// What the node tells all its gateways about edges.
type (
	edgeUp       struct{ edge presence.Edge }
	edgeDown     struct{ edge presence.Edge }
	edgeDead     struct{ edge presence.Edge }
	edgeDraining struct {
		edge presence.Edge
		on   bool
	}
	edgeBack struct{ edge presence.Edge } // was unreachable: must announce again
)

func (n *Node) tellAll(msg any) {
	for shard := range uint32(link.Shards) {
		n.post(shard, msg)
	}
}

// EdgeUp begins an epoch of a link. The edge gets the first beat at once.
func (n *Node) EdgeUp(edge string, incarnation, epoch uint64, down link.Downlink) {
	e := presence.Edge{Name: edge, Incarnation: incarnation}
	n.mu.Lock()
	for old := range n.links {
		if old.Name == edge && old.Incarnation < incarnation {
			delete(n.links, old)
			n.tellAll(edgeDead{old})
		}
	}
	n.links[e] = &edgeLink{epoch: epoch, down: down, lease: n.clock.Now().Add(n.cfg.Lease)}
	n.tellAll(edgeUp{e}) // before anything can leave for it, so that it precedes all that answers
	n.publishLinks()
	n.mu.Unlock()
	down.Beat(n.beat())
}

// Up routes a message to the gateway of its shard.
func (n *Node) Up(m *link.Up) {
	n.stats.Up.Add(1)
	if m.GetShard() >= link.Shards || m.GetBody() == nil {
		n.stats.Malformed.Add(1)
		return
	}
	n.post(m.Shard, m)
}

// Beat renews an edge's lease.
func (n *Node) Beat(edge string, incarnation uint64, b *link.Beat) {
	e := presence.Edge{Name: edge, Incarnation: incarnation}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[e]
	if l == nil || l.epoch != b.GetEpoch() {
		n.stats.Stale.Add(1)
		return
	}
	l.lease = n.clock.Now().Add(n.cfg.Lease)
	if l.lapsed {
		l.lapsed = false
		n.tellAll(edgeBack{e})
	}
	if l.draining != b.GetDraining() {
		l.draining = b.GetDraining()
		n.tellAll(edgeDraining{e, l.draining})
	}
}

// EdgeDown ends an epoch. What an edge held is kept for a while unless it is dead.
func (n *Node) EdgeDown(edge string, incarnation, epoch uint64, dead bool) {
	e := presence.Edge{Name: edge, Incarnation: incarnation}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[e]
	switch {
	case dead:
		delete(n.links, e)
		n.tellAll(edgeDead{e})
	case l == nil || l.epoch != epoch || l.down == nil:
		return
	default:
		l.down, l.lapsed = nil, false
		n.tellAll(edgeDown{e})
	}
	n.publishLinks()
}

// publishLinks makes the links visible to outlets.
func (n *Node) publishLinks() {
	downs := make(map[presence.Edge]link.Downlink, len(n.links))
	for e, l := range n.links {
		if l.down != nil {
			downs[e] = l.down
		}
	}
	n.downs.Store(&downs)
}

func (n *Node) downlink(e presence.Edge) link.Downlink { return (*n.downs.Load())[e] }

// edges are those with a link, in order.
func (n *Node) edges() []presence.Edge {
	return slices.SortedFunc(maps.Keys(*n.downs.Load()), compareEdges)
}

// linked are the edges with a link, in order, with what is told to all gateways at this moment
// taken into account.
func (n *Node) linked() []presence.Edge {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.edges()
}

// alive are the edges that are not known to be dead, in order: a shard that opens waits
// for their announcements.
func (n *Node) alive() []presence.Edge {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Keys(n.links), compareEdges)
}

func compareEdges(a, b presence.Edge) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
}

// run is the node's loop: once a second leases, storm counts and beats.
func (n *Node) run() {
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for seconds := 1; ; seconds++ {
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
		n.clock.turn()
		n.expireLeases(n.clock.Now())
		sessions, lost := n.storm()
		n.tellAll(presence.Cluster{Sessions: sessions, Lost: lost})
		if seconds%flushEvery == 0 {
			n.tellAll(flush{})
		}
		for _, down := range *n.downs.Load() {
			down.Beat(n.beat())
		}
	}
}

// expireLeases makes edges unreachable whose beats stopped. They keep their link: the
// next beat brings them back.
func (n *Node) expireLeases(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for e, l := range n.links {
		switch {
		case l.down == nil && now.After(l.lease.Add(n.cfg.Presence.Unreachable)):
			delete(n.links, e) // its gateways hold it as dead
		case l.down != nil && !l.lapsed && now.After(l.lease):
			l.lapsed = true
			n.stats.Unreachable.Add(1)
			n.cfg.Logger.Warn("edge unreachable", "edge", e.Name, "incarnation", e.Incarnation)
			n.tellAll(edgeDown{e})
		}
	}
}

// beat says what this node leads.
func (n *Node) beat() *link.Beat {
	b := &link.Beat{Shards: make([]uint32, 0, link.Shards), Terms: make([]uint64, 0, link.Shards)}
	for i := range n.terms {
		if term := n.terms[i].Load(); term != 0 {
			b.Shards, b.Terms = append(b.Shards, uint32(i)), append(b.Terms, term)
		}
	}
	b.AllSessions, b.Detached_5S = n.storm()
	return b
}

// storm sums the counts of the storm guard over the gateways.
func (n *Node) storm() (sessions, lost uint64) {
	for i := range n.loads {
		sessions += n.loads[i].sessions.Load()
		lost += n.loads[i].lost.Load()
	}
	return sessions, lost
}
