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
	state    edgeState
	missed   bool // gossip holds it dead
	draining bool
}

// edgeState is how the edge's lease stands.
type edgeState uint8

const (
	leased      edgeState = iota
	unreachable           // the lease lapsed: what the edge holds is kept
	dead                  // its sessions are detached; a beat brings it back
)

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
			n.bury(old)
			delete(n.links, old)
		}
	}
	delete(n.gone, e)
	n.links[e] = &edgeLink{epoch: epoch, down: down, lease: n.clock.Now().Add(n.cfg.Lease)}
	n.tellAll(edgeUp{e}) // before anything can leave for it, so that it precedes all that answers
	n.publishLinks()
	n.mu.Unlock()
	down.Beat(n.beat())
}

// Up routes a message of an edge to the gateway of its shard.
func (n *Node) Up(m *link.Up) {
	n.stats.Up.Add(1)
	switch m.GetBody().(type) {
	case nil, *link.Up_Transfer, *link.Up_TransferDone, *link.Up_Handover: // these come from shards
		n.stats.Malformed.Add(1)
	default:
		n.toGateway(m)
	}
}

// Routed takes what Config.Route of another node carries, and what its Leaving sends. A transfer to a shard that
// is not open here is answered MOVING: its source sends it again within two seconds. It does not block.
func (n *Node) Routed(m *link.Up) {
	switch m.GetBody().(type) {
	case *link.Up_Transfer, *link.Up_TransferDone, *link.Up_Handover:
		n.toGateway(m)
	default:
		n.stats.Malformed.Add(1)
	}
}

func (n *Node) toGateway(m *link.Up) {
	if m.GetShard() >= link.Shards {
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
	if l.state != leased {
		if l.state == dead {
			n.cfg.Logger.Warn("edge is back that was held dead", "edge", e.Name, "incarnation", e.Incarnation)
			delete(n.gone, e)
		}
		l.state = leased
		n.publishLinks() // first: gateways then ask it to announce, and nothing else would
		n.tellAll(edgeBack{e})
	}
	if b.GetDraining() {
		n.drained.Store(n.clock.Now().UnixMilli())
	}
	if l.draining != b.GetDraining() {
		l.draining = b.GetDraining()
		n.tellAll(edgeDraining{e, l.draining})
	}
}

// EdgeDown ends an epoch. What an edge held is kept for a while unless it is dead.
func (n *Node) EdgeDown(edge string, incarnation, epoch uint64, gone bool) {
	e := presence.Edge{Name: edge, Incarnation: incarnation}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[e]
	switch {
	case gone:
		n.bury(e)
		delete(n.links, e)
	case l == nil || l.epoch != epoch || l.down == nil:
		return
	case l.state == dead:
		delete(n.links, e)
	default:
		l.down = nil
		if l.state == leased {
			n.tellAll(edgeDown{e})
		}
	}
	n.publishLinks()
}

// EdgeAlive is gossip's word about an edge process, which may come at any time and more than once. Alone it
// ends nothing: what the edge holds is detached when its lease has lapsed, too.
func (n *Node) EdgeAlive(e presence.Edge, alive bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[e]
	switch {
	case l != nil:
		l.missed = !alive
		n.expire(e, l, n.clock.Now())
	case !alive && n.gone[e].IsZero():
		n.bury(e) // no shard waits for it any more
	}
}

// bury tells the gateways that an edge's process is gone.
func (n *Node) bury(e presence.Edge) {
	n.gone[e] = n.clock.Now()
	if l := n.links[e]; l != nil {
		l.state = dead
	}
	n.tellAll(edgeDead{e})
}

// publishLinks makes the links visible to outlets.
func (n *Node) publishLinks() {
	downs := make(map[presence.Edge]link.Downlink, len(n.links))
	for e, l := range n.links {
		if l.down != nil && l.state != dead {
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

// awaited are the edges whose announcements a shard that opens waits for, in order: those that gossip holds
// alive or that have a link, unless their process was seen to be gone.
func (n *Node) awaited() (all []presence.Edge) {
	if n.cfg.Alive != nil {
		all = slices.Clone(n.cfg.Alive())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for e, l := range n.links {
		if n.cfg.Alive == nil || l.down != nil && l.state == leased {
			all = append(all, e)
		}
	}
	all = slices.DeleteFunc(all, func(e presence.Edge) bool { return !n.gone[e].IsZero() })
	slices.SortFunc(all, compareEdges)
	return slices.Compact(all)
}

// drains reports that an edge drains, or did so lately: many will come back later than others do.
func (n *Node) drains() bool {
	return n.clock.Now().UnixMilli()-n.drained.Load() < n.cfg.Presence.PresumeDrain.Milliseconds()
}

func compareEdges(a, b presence.Edge) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
}

// run is the node's loop: leases, and once a second storm counts and beats.
func (n *Node) run() {
	tick := time.NewTicker(turn / leasesPerTurn)
	defer tick.Stop()
	for ticks := 1; ; ticks++ {
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
		n.expireLeases()
		if ticks%leasesPerTurn != 0 {
			continue
		}
		n.clock.turn()
		sessions, lost := n.storm()
		n.tellAll(presence.Cluster{Sessions: sessions, Lost: lost})
		if ticks%(leasesPerTurn*flushEvery) == 0 {
			n.tellAll(flush{})
		}
		for _, down := range *n.downs.Load() {
			down.Beat(n.beat())
		}
	}
}

const (
	leasesPerTurn = 4
	goneKept      = 10 * time.Minute // gossip has long noticed then
)

func (n *Node) expireLeases() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.clock.Now()
	for e, l := range n.links {
		n.expire(e, l, now)
	}
	for e, at := range n.gone {
		if now.Sub(at) > goneKept {
			delete(n.gone, e)
		}
	}
}

// expire looks at an edge whose lease may have lapsed. It keeps its link: the next beat brings it back.
func (n *Node) expire(e presence.Edge, l *edgeLink, now time.Time) {
	switch {
	case !now.After(l.lease):
	case l.missed && l.state != dead:
		n.cfg.Logger.Warn("edge is dead", "edge", e.Name, "incarnation", e.Incarnation)
		n.bury(e)
		n.publishLinks()
	case l.state == leased && l.down != nil:
		l.state = unreachable
		n.stats.Unreachable.Add(1)
		n.cfg.Logger.Warn("edge unreachable", "edge", e.Name, "incarnation", e.Incarnation)
		n.tellAll(edgeDown{e})
	case l.down == nil && (l.state == dead || now.After(l.lease.Add(n.cfg.Presence.Unreachable))):
		delete(n.links, e) // its gateways hold it as dead
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

// Counts are this node's part of the storm guard's counts: live sessions, and those detached without a goodbye
// within 5 s.
func (n *Node) Counts() (sessions, lost uint64) {
	for i := range n.loads {
		sessions += n.loads[i].sessions.Load()
		lost += n.loads[i].lost.Load()
	}
	return sessions, lost
}

// storm are the storm guard's counts over all cores.
func (n *Node) storm() (sessions, lost uint64) {
	sessions, lost = n.Counts()
	if n.cfg.Others != nil {
		s, l := n.cfg.Others()
		sessions, lost = sessions+s, lost+l
	}
	return sessions, lost
}
