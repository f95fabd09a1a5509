package members

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"muster/actors"
	"muster/actors/link"
	"muster/actors/presence"
	"muster/cluster"
	"muster/cluster/birth"
	"muster/cluster/gossip"
	"muster/cluster/meta"
	"muster/cluster/stream"
	"muster/persistence"
)

// Config of a Node.
type Config struct {
	Name, Version, Zone string
	Core, Edge          bool // what the process does

	Bind, Advertise                 string // IP addresses
	GossipPort, ActorPort, RaftPort int
	Join                            []string // gossip addresses
	Expect                          int
	Secrets                         []string // the first is used, the others are accepted too; none: plain text on loopback

	Wire    [2]uint8            // oldest and newest version of envelopes; 0, 0: those of this build
	Records meta.Versions       // of this build
	Written func(version uint8) // every node may write records in this version; nil: nobody asks
	Fatal   func(error)         // the node can never belong to the cluster; nil: it says so and goes on

	Dir      string                // for what a birth must remember; cores
	Identity *persistence.Identity // of the data directory; nil: it is empty, or there is none
	Logger   *slog.Logger

	Backup func(w io.Writer, groups []uint32) error                  // writes what the store has of them; cores
	Replay func(ctx context.Context, shard uint32, seq uint64) error // of the webhook, of a shard that this node leads; cores

	Counters func() []byte // what others are told of this process in a call of Counters; nil: nothing
}

// Node is this process in its cluster.
type Node struct {
	birth *birth.Birth // nil on an edge
	cfg   Config
	self  gossip.Member
	log   *slog.Logger

	gossip *gossip.Gossip
	actor  *stream.Net
	raft   *stream.Net // nil on an edge, as are the next three
	wire   cluster.Transport
	agent  *meta.Agent
	engine atomic.Pointer[cluster.Engine]

	core    *actors.Node // set by Serve; nil on an edge
	edge    Edge         // set by Serve
	serving atomic.Bool

	stop    context.CancelFunc
	ctx     context.Context
	running sync.WaitGroup

	looking sync.Mutex // taken before mu

	mu     sync.Mutex
	fars   map[uint64]*far // by node
	peers  []stream.Peer   // of the actor port
	look   chan struct{}   // a stream of it broke
	table  []meta.Node     // of cores, as told last
	counts map[uint64]counts
	alive  map[presence.Edge]bool // edges that the core was told of

	fetches map[uint64]*fetch // backups that others were asked for, by id
}

// Edge is what Serve needs of an edge.
type Edge interface {
	Core(name string) link.Edge
}

type counts struct{ sessions, lost uint64 }

// Start opens the ports and begins to gossip. The node then is found by others; it belongs to
// the cluster when Found has returned and the caller has made its data directory.
func Start(cfg Config) (_ *Node, err error) {
	n := &Node{cfg: cfg, log: cfg.Logger, look: make(chan struct{}, 1), fars: map[uint64]*far{}, counts: map[uint64]counts{}, alive: map[presence.Edge]bool{}, fetches: map[uint64]*fetch{}}
	n.ctx, n.stop = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			n.Stop()
		}
	}()
	if n.cfg.Wire == [2]uint8{} {
		n.cfg.Wire = [2]uint8{stream.OldestWire, stream.NewestWire}
	}
	n.self = gossip.Member{
		Wire: n.cfg.Wire,
		Node: NewID(), Name: cfg.Name, Incarnation: uint64(time.Now().UnixNano()), Zone: cfg.Zone, Version: cfg.Version, Expect: cfg.Expect,
	}
	if cfg.Core {
		n.self.Role |= gossip.Core
		n.self.Raft = address(cfg.Advertise, cfg.RaftPort)
		if err := n.openBirth(); err != nil {
			return nil, err
		}
	}
	if cfg.Edge {
		n.self.Role |= gossip.Edge
	}
	n.self.Actor = address(cfg.Advertise, cfg.ActorPort)
	if id := cfg.Identity; id != nil {
		n.self.Cluster = id.Cluster
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	if err := n.startGossip(); err != nil {
		return nil, err
	}
	return n, nil
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// Pings of the actor port are for many edges, and nothing waits for them in a hurry: leases decide.
const (
	actorPing    = time.Second
	actorSilence = 3 * time.Second
)

// listen opens the ports of the streams.
func (n *Node) listen() error {
	var keys *stream.Keys
	if secrets := n.cfg.Secrets; len(secrets) > 0 {
		var others [][]byte
		for _, s := range secrets[1:] {
			others = append(others, []byte(s))
		}
		var err error
		if keys, err = stream.NewKeys([]byte(secrets[0]), others...); err != nil {
			return err
		}
	}
	var err error
	if n.actor, err = n.net(stream.Config{
		Self: n.peer(n.self.Actor), Keys: keys, Classes: classes, Relay: true, PingEvery: actorPing, Silence: actorSilence,
		Receive: n.receive, Up: n.up, Down: n.down,
	}, "actor-port", n.cfg.ActorPort); err != nil {
		return err
	}
	n.handleCounters()
	if !n.cfg.Core {
		return nil
	}
	n.raft, err = n.net(stream.Config{
		Self: n.peer(n.self.Raft), Keys: keys, Classes: 1, Ping: n.ping, Note: n.note, Noted: n.noted, OnStream: n.fetched,
	}, "raft-port", n.cfg.RaftPort)
	if err == nil {
		n.wire = stream.Raft(n.raft)
		n.handleOperator()
		n.raft.Handle(birthMethod, true, func(_ context.Context, _ stream.Peer, req []byte) ([]byte, error) { return n.birth.Serve(req) })
	}
	return err
}

func (n *Node) net(cfg stream.Config, name string, port int) (*stream.Net, error) {
	ln, err := net.Listen("tcp", address(n.cfg.Bind, port))
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen: %w", name, err)
	}
	cfg.Listener, cfg.Logger, cfg.Wire = ln, n.log, n.cfg.Wire
	return stream.Listen(cfg)
}

func (n *Node) peer(addr string) stream.Peer {
	return stream.Peer{Node: n.self.Node, Name: n.self.Name, Addr: addr, Incarnation: n.self.Incarnation}
}

func (n *Node) startGossip() error {
	cfg := gossip.Config{
		Self: n.self, ClusterName: "muster", Bind: n.cfg.Bind, Port: n.cfg.GossipPort, Advertise: address(n.cfg.Advertise, n.cfg.GossipPort),
		Logger: n.log, Changed: n.changed, Dead: n.dead,
	}
	for _, s := range n.cfg.Secrets {
		key, err := stream.GossipKey([]byte(s))
		if err != nil {
			return err
		}
		cfg.Keys = append(cfg.Keys, key)
	}
	g, err := gossip.Start(cfg)
	if err != nil {
		return fmt.Errorf("gossip-port: %w", err)
	}
	n.mu.Lock()
	n.gossip = g
	n.mu.Unlock()
	n.running.Go(func() { g.JoinLoop(n.ctx, n.cfg.Join) })
	return nil
}

// Agent makes the agent of the meta group, which tells who holds what, over the rows of the node's store.
func (n *Node) Agent(id persistence.Identity, rows meta.Rows) *meta.Agent {
	cfg := meta.Config{Self: n.metaNode(), Rows: rows, Net: n.raft, Logger: n.log, Peers: n.cores, Told: n.told}
	if !id.Joined {
		cfg.Birth = meta.Cluster{ID: id.Cluster, Born: time.UnixMilli(id.BornAt), Shards: link.Shards, Expect: n.cfg.Expect, Records: n.cfg.Records[0]}
	}
	n.agent = meta.NewAgent(cfg)
	for _, m := range meta.Methods() {
		n.raft.Handle(m.Name, m.Open, func(ctx context.Context, from stream.Peer, req []byte) ([]byte, error) {
			return n.agent.Handle(ctx, m.Name, from.Node, req)
		})
	}
	return n.agent
}

// Meta is the agent that Agent made; nil on an edge.
func (n *Node) Meta() *meta.Agent { return n.agent }

// Transport of Raft; nil on an edge.
func (n *Node) Transport() cluster.Transport { return n.wire }

// Serve opens the streams in the cluster: from now on others are linked with the core, which is nil on an edge, and
// with the edge. engine is the core's.
func (n *Node) Serve(id string, core *actors.Node, edge Edge, engine *cluster.Engine) error {
	n.mu.Lock()
	n.core, n.edge = core, edge
	n.mu.Unlock()
	n.engine.Store(engine)
	if err := n.gossip.Update(func(m *gossip.Member) { m.Cluster, m.Expect = id, 0 }); err != nil {
		return err
	}
	n.actor.SetCluster(id)
	if n.raft != nil {
		n.raft.SetCluster(id)
		n.running.Go(func() { n.agent.Run(n.ctx, engine) })
		n.running.Go(n.rejoin)
	}
	n.serving.Store(true)
	n.changed()
	n.running.Go(n.watch)
	return nil
}

// watch looks again for whom to be connected with when a stream has broken.
func (n *Node) watch() {
	for {
		select {
		case <-n.look:
			n.changed()
		case <-n.ctx.Done():
			return
		}
	}
}

// rejoin tells the meta group where the node is now.
func (n *Node) rejoin() {
	_, err := n.join(n.ctx)
	switch {
	case err == nil || n.ctx.Err() != nil:
	case errors.Is(err, meta.ErrVersion) && n.cfg.Fatal != nil:
		n.cfg.Fatal(err)
	default:
		n.log.Error("this node may not belong to its cluster any more", "error", err)
	}
}

// Members are the processes that are alive.
func (n *Node) Members() []gossip.Member { return n.gossip.Members() }

// NotReady says why the cluster may not serve yet.
func (n *Node) NotReady() []string {
	if n.agent == nil {
		return nil
	}
	return n.agent.NotReady()
}

// Connected counts the processes that gossip sees and the streams to them that are up, this process left out.
func (n *Node) Connected() (seen, actor, raft int) {
	for _, m := range n.gossip.Members() {
		if m.Node == n.self.Node {
			continue
		}
		seen++
		if n.actor.Connected(m.Node) {
			actor++
		}
		if n.raft != nil && n.raft.Connected(m.Node) {
			raft++
		}
	}
	return seen, actor, raft
}

// Incarnation of this process.
func (n *Node) Incarnation() uint64 { return n.self.Incarnation }

// Drain tells the others that this process is about to leave.
func (n *Node) Drain() {
	if err := n.gossip.Update(func(m *gossip.Member) { m.Draining = true }); err != nil {
		n.log.Warn("gossip", "error", err)
	}
}

// Heirs tells whether another core is there to take what this one leads: one that gossip sees and that stays.
func (n *Node) Heirs() bool { return heirs(n.gossip.Members(), n.self.Node) }

func heirs(members []gossip.Member, self uint64) bool {
	return slices.ContainsFunc(members, func(m gossip.Member) bool {
		return m.Node != self && m.Role&gossip.Core != 0 && m.Cluster != "" && !m.Draining
	})
}

// leaving is how long a goodbye may take.
const leaving = 500 * time.Millisecond

// Rest ends the agent and what looks for others. It comes before the engine is stopped.
func (n *Node) Rest() {
	n.stop()
	n.running.Wait()
}

// Stop leaves. The engine, the core and the edge must be stopped before.
func (n *Node) Stop() {
	n.Rest()
	if n.gossip != nil {
		n.gossip.Leave(leaving)
	}
	for _, f := range n.everyFar() {
		f.Close()
	}
	if n.actor != nil {
		n.actor.Stop()
	}
	if n.raft != nil {
		n.raft.Stop()
	}
	if n.birth != nil {
		if err := n.birth.Close(); err != nil {
			n.log.Warn("birth", "error", err)
		}
	}
}
