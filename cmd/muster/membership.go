package main

import (
	"context"
	"errors"
	"time"

	"muster/actors"
	"muster/cluster"
	"muster/cmd/muster/members"
	"muster/persistence"
)

// openMember opens the data directory of a node that meets others. With an empty one it first gives birth to a
// cluster or joins one.
func (s *server) openMember(ctx context.Context) error {
	err := s.openStorage(nil)
	var code persistence.Code
	if errors.As(err, &code) && code == persistence.ErrNotBorn {
		return s.enter(ctx)
	}
	if err != nil {
		return err
	}
	id := s.durable.Store.Identity()
	if err := s.startMembers(&id); err != nil {
		return err
	}
	s.replicate()
	return nil
}

// enter makes the data directory of a new node.
func (s *server) enter(ctx context.Context) error {
	if err := s.startMembers(nil); err != nil {
		return err
	}
	id, err := s.members.Found(ctx)
	if err != nil {
		return fault(err)
	}
	if err := s.openStorage(&id); err != nil {
		return err
	}
	s.replicate()
	return nil
}

// replicate prepares the store for the others: before its engine starts.
func (s *server) replicate() {
	agent := s.members.Agent(s.durable.Store.Identity(), s.durable.Store)
	s.durable.Join(s.members.Transport(), agent, s.leaving)
}

// leaving sends the sessions without a socket to the node that is about to lead their shard, and then calls ready.
func (s *server) leaving(shard uint32, to uint64, ready func()) {
	go func() {
		defer ready()
		ctx, cancel := context.WithTimeout(context.Background(), parting)
		defer cancel()
		if err := s.members.Leaving(ctx, shard, to); err != nil && !errors.Is(err, actors.ErrNotLeader) {
			s.log.Warn("a shard's next leader may not know who has just left, or may come back", "shard", shard, "error", err)
		}
	}()
}

// parting is how long a shard may take to tell its next leader what it has in memory alone.
const parting = 100 * time.Millisecond

func (s *server) startMembers(id *persistence.Identity) (err error) {
	c := s.cfg
	s.members, err = members.Start(members.Config{
		Name: c.NodeName, Version: versionString(), Zone: c.Zone, Core: c.core(), Edge: c.edge(), Bind: c.Bind, Advertise: c.Advertise,
		GossipPort: c.GossipPort, ActorPort: c.ActorPort, RaftPort: c.RaftPort, Join: c.Join, Expect: c.Expect,
		Secrets: c.ClusterSecret, Dir: c.Data, Identity: id, Logger: s.log, Counters: s.tellCounters,
		Wire: s.cfg.wire(), Records: s.cfg.records(), Written: s.written, Fatal: s.cannotBelong,
		Backup: s.writeBackup, Replay: s.replayHere,
	})
	return fault(err)
}

// serveMembers links this node with the others.
func (s *server) serveMembers(ctx context.Context) error {
	if s.members == nil {
		return nil
	}
	if s.core == nil {
		id, err := s.members.Sight(ctx)
		if err != nil {
			return fault(err)
		}
		return fault(s.members.Serve(id, nil, s.edge, nil))
	}
	return fault(s.members.Serve(s.durable.Store.Identity().Cluster, s.core, s.edge, s.engine()))
}

func (s *server) engine() *cluster.Engine { return s.durable.Engine() }

// incarnation of this process.
func (s *server) incarnation() uint64 {
	if s.members != nil {
		return s.members.Incarnation()
	}
	return uint64(time.Now().UnixNano())
}

// handingOver is how long a stop may take to give the leaderships away.
const handingOver = 5 * time.Second

// handOver gives the shards that this node leads to others, before its clients go.
func (s *server) handOver(ctx context.Context) {
	if s.members == nil {
		return
	}
	s.members.Drain()
	if s.core == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handingOver)
	defer cancel()
	go func() { // a cluster that stops as a whole would pass its shards around
		defer cancel()
		for s.members.Heirs() {
			select {
			case <-time.After(heirsPoll):
			case <-ctx.Done():
				return
			}
		}
	}()
	if err := s.engine().HandOver(ctx); err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("not all shards were given to others", "error", err)
	}
}

// heirsPoll is how often a node that gives its shards away looks whether anybody is left to take them.
const heirsPoll = 100 * time.Millisecond
