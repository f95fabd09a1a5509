package members

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/cluster/gossip"
	"muster/cluster/stream"
)

// Classes of the actor port: the lanes of links, and what shards send each other.
const (
	routes  = stream.Class(link.Bulk) + 1
	classes = int(routes) + 1

	kindRoute = link.LastKind + 1
)

// far is the links with another process.
type far struct {
	*link.Far
	incarnation uint64
}

// up begins an epoch with a process. What there was with an older process of the node ends first: an edge has one link
// at a time with a core.
func (n *Node) up(p stream.Peer) {
	f := n.farOf(p.Node)
	if f != nil && f.incarnation != p.Incarnation {
		f.Down(true)
		f.Close()
		f = nil
	}
	if f == nil {
		f = &far{n.newFar(p), p.Incarnation}
		n.mu.Lock()
		n.fars[p.Node] = f
		n.mu.Unlock()
	}
	f.Up()
}

// newFar makes the ends that this process and the other one can have.
func (n *Node) newFar(p stream.Peer) *link.Far {
	cfg := link.FarConfig{
		Peer: p.Name, Incarnation: p.Incarnation,
		Send: func(ctx context.Context, lane link.Lane, kind byte, payload []byte) error {
			return n.actor.SendWait(ctx, p.Node, stream.Class(lane), kind, payload)
		},
	}
	if n.core != nil {
		cfg.Core = n.core
	}
	if n.edge != nil && n.role(p.Node)&gossip.Core != 0 {
		cfg.Edge = n.edge.Core(p.Name)
	}
	return link.NewFar(cfg)
}

// role of a node; one that is not known may be both.
func (n *Node) role(node uint64) gossip.Role {
	for _, m := range n.gossip.Members() {
		if m.Node == node {
			return m.Role
		}
	}
	return gossip.Core | gossip.Edge
}

func (n *Node) down(p stream.Peer, refused bool) {
	if f := n.farOf(p.Node); f != nil && f.incarnation == p.Incarnation {
		f.Down(refused)
	}
	select {
	case n.look <- struct{}{}: // not from here: it may let p go
	default:
	}
}

func (n *Node) farOf(node uint64) *far {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fars[node]
}

func (n *Node) everyFar() (all []*far) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.fars {
		all = append(all, f)
	}
	return all
}

// receive takes a message of the actor port.
func (n *Node) receive(from stream.Peer, c stream.Class, kind byte, payload []byte) {
	switch {
	case kind <= link.LastKind:
		if f := n.farOf(from.Node); f != nil {
			f.Receive(link.Lane(c), kind, payload)
		}
	case kind == kindRoute && n.core != nil:
		m := &link.Up{}
		if err := proto.Unmarshal(payload, m); err != nil {
			n.log.Warn("a message between shards cannot be read", "from", from.Name, "error", err)
			return
		}
		n.core.Routed(m)
	}
}

var errNoRoute = errors.New("members: nobody is known to lead the shard")

// Route carries a message to the shard's leader: see actors.Config.
func (n *Node) Route(shard uint32, m *link.Up) error {
	e := n.engine.Load()
	if e == nil {
		return errNoRoute
	}
	leader, _ := e.Leader(shard)
	if leader == 0 {
		return fmt.Errorf("%w: %d", errNoRoute, shard)
	}
	return n.routeTo(leader, m)
}

func (n *Node) routeTo(node uint64, m *link.Up) error {
	if node == n.self.Node {
		n.core.Routed(m)
		return nil
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return n.actor.Send(node, routes, kindRoute, b)
}

// Leaving tells the node that is about to lead a shard what this one has of it in memory alone.
func (n *Node) Leaving(ctx context.Context, shard uint32, to uint64) error {
	return n.core.Leaving(ctx, shard, func(m *link.Up) error { return n.routeTo(to, m) })
}

// Alive are the edges that gossip holds alive: see actors.Config. Each process of the cluster counts, as a core without
// clients has an edge for the HTTP API; one that is about to join has nothing to announce.
func (n *Node) Alive() (edges []presence.Edge) {
	for _, m := range n.gossip.Members() {
		if !n.ours(m) {
			continue
		}
		edges = append(edges, presence.Edge{Name: m.Name, Incarnation: m.Incarnation})
	}
	return edges
}

// Others are the counts of the other cores: see actors.Config.
func (n *Node) Others() (sessions, lost uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for node, c := range n.counts {
		if !n.raft.Connected(node) {
			continue
		}
		sessions, lost = sessions+c.sessions, lost+c.lost
	}
	return sessions, lost
}
