package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/eventstream"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
	"muster/actors/row"
)

// Config configures a Node. The zero value of a field means its default.
type Config struct {
	Name     string           // of the node; required, as edges see it
	Presence *presence.Config // default: presence.DefaultConfig
	Room     room.Config
	Logger   *slog.Logger // default: discards

	// Store keeps what is durable, and opens and closes the shards; required.
	Store Store
	// OnEvents hears that a shard has new events to read. It must not block.
	OnEvents func(shard uint32)
	// Route carries a message to Routed of the node that leads a shard. It must not block. An error or silence
	// is answered by sending it again. Default: such a message waits until the shard opens here.
	Route func(shard uint32, m *link.Up) error
	// Alive are the edges that gossip holds alive now: a shard that opens waits for their announcements. It is
	// asked from any goroutine and must not call the node. Default: those with a link.
	Alive func() []presence.Edge
	// Others are the storm guard's counts, see Counts, summed over all other cores. Default: there are none.
	Others func() (sessions, lost uint64)
	// Audit is called for every published entry before its sender is told. It must not block.
	Audit func(shard uint32, term, index uint64, clientID string)
	// Records is the version in which rows are written, row.Version or, during an upgrade, the one before. Default: row.Version.
	Records func() uint8
	// Graph asks for the contacts of users of an application that keeps its own graph. done may be called from
	// any goroutine, once. nil: contacts are kept here.
	Graph func(app string, users []string, done func(contacts map[string][]string, err error))
	// EventsKept is how long events can be read; default 24 h [1 h–30 d].
	EventsKept time.Duration

	Lease   time.Duration // of an edge, renewed by each beat; default 5 s
	Linger  time.Duration // of an idle user who is more than one row to read; default 10 s, negative: none
	Parking time.Duration // of an activation after its third panic in a minute; default 30 s
}

// Node is the core of one process: it holds the actors of the shards that are open here. It implements
// link.Core.
type Node struct {
	cfg    Config
	clock  *clock
	names  *presence.Names
	system *actor.ActorSystem
	store  Store
	stats  Stats
	stop   chan struct{}
	loops  sync.WaitGroup

	gateways [link.Shards]*gateway
	pids     [link.Shards]*actor.PID
	outlets  [link.Shards]atomic.Pointer[outlet]
	terms    [link.Shards]atomic.Uint64 // 0: closed
	loads    [link.Shards]load

	drained atomic.Int64 // when an edge was last known to drain, Unix ms

	mu    sync.Mutex // taken to change links, and to post their changes in order
	links map[presence.Edge]*edgeLink
	gone  map[presence.Edge]time.Time                     // edges whose process was seen to be gone, and when
	downs atomic.Pointer[map[presence.Edge]link.Downlink] // copy of links for readers
}

// load is a shard's part of the storm guard's counts.
type load struct{ sessions, lost atomic.Uint64 }

// New makes a node that is not started.
func New(cfg Config) (*Node, error) {
	if cfg.Name == "" || cfg.Store == nil {
		return nil, fmt.Errorf("actors: the node needs a name and a store")
	}
	if cfg.Presence == nil {
		def := presence.DefaultConfig()
		cfg.Presence = &def
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Lease == 0 {
		cfg.Lease = 5 * time.Second
	}
	if cfg.Linger == 0 {
		cfg.Linger = 10 * time.Second
	}
	if cfg.Parking == 0 {
		cfg.Parking = 30 * time.Second
	}
	if cfg.Records == nil {
		cfg.Records = func() uint8 { return row.Version }
	}
	if cfg.EventsKept == 0 {
		cfg.EventsKept = 24 * time.Hour
	}
	if cfg.EventsKept < time.Hour || cfg.EventsKept > 30*24*time.Hour {
		return nil, fmt.Errorf("actors: events are kept %v, must be from 1h to 720h", cfg.EventsKept)
	}
	n := &Node{cfg: cfg, store: cfg.Store, names: presence.NewNames(&sync.Mutex{}), links: map[presence.Edge]*edgeLink{}, gone: map[presence.Edge]time.Time{}}
	n.downs.Store(&map[presence.Edge]link.Downlink{})
	return n, nil
}

// Start makes the gateways. Links may be dialled and shards opened when it returned.
func (n *Node) Start() error {
	n.clock = newClock()
	logger := slog.New(severe{n.cfg.Logger.Handler()})
	n.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return logger }))
	shrink(n.system)
	for i := range n.gateways {
		g := newGateway(n, uint32(i))
		n.loops.Go(g.turns)
		props := actor.PropsFromProducer(func() actor.Actor { return g },
			actor.WithMailbox(func() actor.Mailbox { return &g.mailbox }))
		pid, err := n.system.Root.SpawnNamed(props, fmt.Sprintf("s%02d", i))
		if err != nil {
			return fmt.Errorf("actors: shard %d: %w", i, err)
		}
		n.gateways[i], n.pids[i] = g, pid
	}
	n.stop = make(chan struct{})
	n.loops.Go(n.run)
	n.cfg.Logger.Info("core started", "node", n.cfg.Name, "shards", link.Shards)
	return nil
}

// Flush makes durable what is lazy (markers, cursors, events) of all shards that are
// open here, and waits for it.
func (n *Node) Flush(ctx context.Context) error {
	results := make(chan error, link.Shards)
	waiting := 0
	for shard := range uint32(link.Shards) {
		if n.terms[shard].Load() == 0 {
			continue
		}
		waiting++
		done := func(err error) { results <- err }
		n.post(shard, &request{done: done, do: func(g *gateway, now time.Time) {
			g.flush(now)
			g.whenDurable(done)
		}})
	}
	var all error
	for range waiting {
		select {
		case err := <-results:
			all = errors.Join(all, err)
		case <-ctx.Done():
			return errors.Join(all, ctx.Err())
		}
	}
	return all
}

// Stop closes all shards: nothing leaves after it returns. Links should be closed
// before.
func (n *Node) Stop() {
	close(n.stop)
	for i := range n.outlets {
		if out := n.outlets[i].Load(); out != nil {
			out.cut()
		}
	}
	for i, pid := range n.pids {
		_ = n.system.Root.StopFuture(pid).Wait()
		close(n.gateways[i].quit)
	}
	n.loops.Wait()
	n.system.Shutdown()
}

// shrink leaves the registry of processes 8 of its 1,024 tables, each of them 32 maps
// with a lock: with more, most of its memory would be half-empty maps. What the system
// registered itself is registered again. Nobody hears of dead letters: to count them it
// would start a goroutine for each second that has one.
func shrink(s *actor.ActorSystem) {
	tables := s.ProcessRegistry.LocalPIDs
	tables.LocalPIDs = slices.Clone(tables.LocalPIDs[:8])
	s.EventStream = eventstream.NewEventStream()
	s.ProcessRegistry.Add(s.DeadLetter, "deadletter")
	s.ProcessRegistry.Add(actor.NewEventStreamProcess(s), "eventstream")
}

// Serves reports that the shard is open here and answers.
func (n *Node) Serves(shard uint32) bool { return n.terms[shard].Load() != 0 }

// Name is the node's.
func (n *Node) Name() string { return n.cfg.Name }

// Stats are the node's counters. They live and are read while it runs.
func (n *Node) Stats() *Stats { return &n.stats }

// Stats counts what a node did since its start. All but the gauges only rise.
type Stats struct {
	Up, Down     atomic.Uint64 // messages from and to edges
	Malformed    atomic.Uint64 // messages from edges that said nothing or came to the wrong shard
	Stale        atomic.Uint64 // messages of an epoch that is over
	Spawned      atomic.Uint64 // activations, users and rooms
	Passivated   atomic.Uint64
	Panics       atomic.Uint64 // of activations and gateways
	Parked       atomic.Uint64 // activations parked after their third panic in a minute
	Reopened     atomic.Uint64 // shards reopened after a panic of their gateway
	LateTicks    atomic.Uint64 // deadlines that waited for a full inbox
	Unreachable  atomic.Uint64 // leases that lapsed
	Users, Rooms atomic.Int64  // gauges: resident activations

	Proposals   atomic.Uint64 // taken by the store
	Refused     atomic.Uint64 // not taken: another leader, too many, no room
	Busy        atomic.Uint64 // commands refused because too much was in flight, or there was no room
	Loads       atomic.Uint64 // users read from the store
	Flushes     atomic.Uint64 // proposals of nothing but lazy records
	EventsLost  atomic.Uint64 // events that were never written, because there was no room
	ResumeAhead atomic.Uint64 // devices that had read more than there is: acknowledged data was lost
	Gated       atomic.Int64  // gauge: steps whose effects wait for a commit
	Transfers   atomic.Int64  // gauge: transfers whose outcome is not known

	ReadBackIn    [len(ReadBackBuckets) + 1]atomic.Uint64 // passivated users read back and activated, by how long it took
	ReadBackNanos atomic.Uint64                           // sum of it
}

// ReadBackBuckets are the upper bounds of Stats.ReadBackIn, in seconds; the last one has none.
var ReadBackBuckets = [...]float64{5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 5e-3, 20e-3}

func (s *Stats) readBack(took time.Duration) {
	s.ReadBackNanos.Add(uint64(took))
	i := 0
	for i < len(ReadBackBuckets) && took.Seconds() > ReadBackBuckets[i] {
		i++
	}
	s.ReadBackIn[i].Add(1)
}

// post sends a message to the gateway of a shard.
func (n *Node) post(shard uint32, msg any) { n.system.Root.Send(n.pids[shard], msg) }

// severe passes on what the actor system logs as an error; failures of activations are
// logged by their gateway.
type severe struct{ slog.Handler }

func (s severe) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && s.Handler.Enabled(ctx, l)
}
