package members

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"muster/cluster/birth"
	"muster/cluster/gossip"
	"muster/cluster/meta"
	"muster/persistence"
)

const (
	joinEvery = 500 * time.Millisecond // between two rounds of asking to be let in
	joinWait  = 5 * time.Second        // for one answer
	nameWait  = 30 * time.Second       // until the node that had the name, and lost its disk, counts as down
	sayEvery  = 10 * time.Second       // between two lines that say what is waited for
)

// birthMethod is what nodes that found a cluster together ask each other.
const birthMethod = "birth"

func (n *Node) openBirth() (err error) {
	cfg := birth.Config{
		Dir: n.cfg.Dir, Name: n.cfg.Name, Expect: n.cfg.Expect, Join: n.cfg.Join, Addr: address(n.cfg.Advertise, n.cfg.GossipPort), Logger: n.log,
	}
	if id := n.cfg.Identity; id != nil {
		cfg.Node, cfg.Cluster = id.Node, id.Cluster
	}
	if n.birth, err = birth.Open(cfg); err != nil {
		return err
	}
	n.self.Node = n.birth.Node()
	return nil
}

// Found gives birth to a cluster or joins one, and returns the identity that the node's data directory is to be made
// with. It waits until that has happened. Only a node without a directory calls it.
func (n *Node) Found(ctx context.Context) (persistence.Identity, error) {
	id := persistence.Identity{Node: n.self.Node, Name: n.self.Name}
	d, err := n.birth.Decide(ctx, world{n})
	if err != nil {
		return id, err
	}
	if d.Bootstrap {
		id.Cluster, id.BornAt = d.Cluster, d.BornAt.UnixMilli()
		n.log.Info("a cluster is born", "cluster", d.Cluster)
		return id, nil
	}
	joined, err := n.join(ctx)
	if err != nil {
		return id, err
	}
	id.Cluster, id.BornAt, id.Joined = joined.Cluster.ID, joined.Cluster.Born.UnixMilli(), true
	return id, nil
}

// world is what a birth sees and hears of other nodes.
type world struct{ n *Node }

func (w world) Candidates() (list []birth.Node) {
	for _, m := range w.n.gossip.Members() {
		if m.Role&gossip.Core != 0 {
			list = append(list, birth.Node{ID: m.Node, Name: m.Name, Expect: m.Expect, Cluster: m.Cluster})
		}
	}
	return list
}

func (w world) Call(ctx context.Context, to birth.Node, req []byte) ([]byte, error) {
	for _, m := range w.n.gossip.Members() {
		if m.Node == to.ID {
			return w.n.raft.CallAddr(ctx, m.Raft, birthMethod, req)
		}
	}
	return nil, fmt.Errorf("node %s is not in sight", to.Name)
}

// join asks any core of the cluster to be let in, until one does.
func (n *Node) join(ctx context.Context) (meta.Joined, error) { return n.knock(ctx, n.joinOnce) }

func (n *Node) knock(ctx context.Context, once func(context.Context) (meta.Joined, error)) (meta.Joined, error) {
	begin := time.Now()
	said := begin
	for {
		joined, err := once(ctx)
		switch {
		case err == nil, errors.Is(err, meta.ErrGone), errors.Is(err, meta.ErrVersion), errors.Is(err, meta.ErrNameInUse) && time.Since(begin) > nameWait:
			return joined, err
		case time.Since(said) > sayEvery:
			said = time.Now()
			n.log.Warn("not let into the cluster yet", "error", err)
		}
		select {
		case <-time.After(joinEvery):
		case <-ctx.Done():
			return joined, fmt.Errorf("joining: %w", ctx.Err())
		}
	}
}

func (n *Node) joinOnce(ctx context.Context) (meta.Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	var addrs []string
	for _, m := range n.gossip.Members() {
		if m.Role&gossip.Core != 0 && m.Cluster != "" {
			if err := n.speaks(m); err != nil {
				return meta.Joined{}, err
			}
			addrs = append(addrs, m.Raft)
		}
	}
	if len(addrs) == 0 {
		return meta.Joined{}, errors.New("no core of a cluster is in sight")
	}
	joined, err := meta.Join(ctx, n.raft.CallAddr, addrs, n.metaNode())
	if err == nil && joined.Cluster.ID == "" {
		err = errors.New("the cluster does not say who it is")
	}
	return joined, err
}

func (n *Node) metaNode() meta.Node {
	m := n.gossip.Self()
	return meta.Node{
		ID: m.Node, Name: m.Name, Zone: m.Zone, Version: m.Version, Gossip: m.Gossip, Actor: m.Actor, Raft: m.Raft, Incarnation: m.Incarnation,
		Records: n.cfg.Records,
	}
}

// speaks says why this node and another cannot talk. Their streams would be refused; here it is told before.
func (n *Node) speaks(m gossip.Member) error {
	own := n.cfg.Wire
	if m.Wire == [2]uint8{} || m.Wire[1] >= own[0] && own[1] >= m.Wire[0] {
		return nil
	}
	return fmt.Errorf("%w: node %s speaks versions %d to %d, this build %d to %d; upgrade all nodes by one minor version at a time",
		meta.ErrVersion, m.Name, m.Wire[0], m.Wire[1], own[0], own[1])
}

// Sight is the cluster that the cores in sight belong to: an edge waits for it.
func (n *Node) Sight(ctx context.Context) (string, error) {
	said := time.Now()
	for {
		for _, m := range n.gossip.Members() {
			if m.Cluster != "" && m.Role&gossip.Core != 0 {
				return m.Cluster, n.speaks(m)
			}
		}
		if time.Since(said) > sayEvery {
			said = time.Now()
			n.log.Warn("no core of a cluster is in sight yet", "join", n.cfg.Join)
		}
		select {
		case <-time.After(joinEvery / 5):
		case <-ctx.Done():
			return "", fmt.Errorf("joining: %w", ctx.Err())
		}
	}
}

// NewID is a new node id: random, never 0.
func NewID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])>>1 | 1
}
