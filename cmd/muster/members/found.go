package members

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"muster/cluster/gossip"
	"muster/cluster/meta"
	"muster/persistence"
)

const (
	joinEvery = 500 * time.Millisecond // between two rounds of asking to be let in
	joinWait  = 5 * time.Second        // for one answer
	sayEvery  = 10 * time.Second       // between two lines that say what is waited for
)

// Found gives birth to a cluster or joins one, and returns the identity that the node's data directory is to be made
// with. It waits until that has happened. Only a node without a directory calls it.
func (n *Node) Found(ctx context.Context) (persistence.Identity, error) {
	id := persistence.Identity{Node: n.self.Node, Name: n.self.Name}
	if len(n.cfg.Join) == 0 {
		return n.born(id, uuid.NewString(), time.Now()), nil
	}
	joined, err := n.join(ctx)
	if err != nil {
		return id, err
	}
	id.Cluster, id.BornAt, id.Joined = joined.Cluster.ID, joined.Cluster.Born.UnixMilli(), true
	return id, nil
}

func (n *Node) born(id persistence.Identity, cluster string, at time.Time) persistence.Identity {
	id.Cluster, id.BornAt = cluster, at.UnixMilli()
	return id
}

// join asks any core of the cluster to be let in, until one does.
func (n *Node) join(ctx context.Context) (meta.Joined, error) {
	said := time.Now()
	for {
		joined, err := n.joinOnce(ctx)
		switch {
		case err == nil, errors.Is(err, meta.ErrNameInUse), errors.Is(err, meta.ErrGone):
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
	}
}

// Sight is the cluster that the cores in sight belong to: an edge waits for it.
func (n *Node) Sight(ctx context.Context) (string, error) {
	said := time.Now()
	for {
		for _, m := range n.gossip.Members() {
			if m.Cluster != "" && m.Role&gossip.Core != 0 {
				return m.Cluster, nil
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

func newID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])>>1 | 1
}
