package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/eventstream"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/edge/auth"
	"muster/edge/netpoll"
)

const (
	shards  = link.Shards
	maxHubs = 16
)

// Authenticator verifies tokens; *auth.Verifier is one. Its errors are *auth.Error.
type Authenticator interface {
	Verify(ctx context.Context, token string) (auth.Claims, error)
}

// Config is what an edge is made with. Zero values take the default in brackets.
type Config struct {
	Node string // the node's name, told to clients
	Auth Authenticator

	Origins   []string // host patterns, with a scheme if they contain "://", that browsers may come from beside the own host
	AnyOrigin bool

	Hubs       int  // a power of two up to 16 [GOMAXPROCS rounded down]
	SendBuffer int  // SO_SNDBUF in bytes [32 KiB]
	NoPoller   bool // read each socket in a goroutine of its own

	PingInterval   time.Duration // [20 s], less up to 20 %
	PongTimeout    time.Duration // [10 s]
	ConnectTimeout time.Duration // [5 s] until connect
	IdleAfter      time.Duration // [5 min] until a device is away
	AttachTimeout  time.Duration // [2 s] until connect is refused as moving
	SnapshotWait   time.Duration // [250 ms] for views in connect, watch and query
	DrainWindow    time.Duration // [20 s] over which reconnect pushes are spread

	MaxConns    int  // [1,000,000]
	MaxWatches  int  // of a session [5,000]
	ConnectRate Rate // new sessions [2,000/s, burst 4,000]
	ResumeRate  Rate // all handshakes, and resumes [10,000/s, burst 20,000]
	CommandRate Rate // of a conn [20/s, burst 50]
	UserRate    Rate // of a user's conns together [50/s, burst 100]

	Log *slog.Logger // [discards]
}

func (c *Config) fill() error {
	if c.Auth == nil {
		return errors.New("edge: no Authenticator")
	}
	if c.Hubs == 0 {
		c.Hubs = min(1<<(bits.Len(uint(runtime.GOMAXPROCS(0)))-1), maxHubs)
	}
	if c.Hubs < 1 || c.Hubs > maxHubs || bits.OnesCount(uint(c.Hubs)) != 1 {
		return fmt.Errorf("edge: Hubs is %d, want a power of two up to %d", c.Hubs, maxHubs)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	orElse(&c.SendBuffer, 32<<10)
	orElse(&c.PingInterval, 20*time.Second)
	orElse(&c.PongTimeout, 10*time.Second)
	orElse(&c.ConnectTimeout, 5*time.Second)
	orElse(&c.IdleAfter, 5*time.Minute)
	orElse(&c.AttachTimeout, 2*time.Second)
	orElse(&c.SnapshotWait, 250*time.Millisecond)
	orElse(&c.DrainWindow, 20*time.Second)
	orElse(&c.MaxConns, 1_000_000)
	orElse(&c.MaxWatches, 5000)
	orElse(&c.ConnectRate, Rate{2000, 4000})
	orElse(&c.ResumeRate, Rate{10_000, 20_000})
	orElse(&c.CommandRate, Rate{20, 50})
	orElse(&c.UserRate, Rate{50, 100})
	return nil
}

func orElse[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Edge holds sockets. Safe for concurrent use.
type Edge struct {
	cfg   Config
	start time.Time
	wall  int64 // Unix ms at start

	system   *actor.ActorSystem
	hubs     []*hub
	poller   *netpoll.Poller
	crew     crew
	sockets  table
	users    locals
	wheel    wheel
	gate     gate
	unproven atomic.Int64
	count    counters

	links    links
	calls    atomic.Uint64
	draining atomic.Bool

	stopped atomic.Bool
	done    chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

// New starts an edge. It does nothing for clients until a link is up.
func New(cfg Config) (*Edge, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	e := &Edge{cfg: cfg, start: time.Now(), done: make(chan struct{}), crew: crew{work: make(chan *socket)}}
	e.wall = e.start.UnixMilli()
	if !cfg.NoPoller {
		var err error
		if e.poller, err = netpoll.New(); err != nil {
			return nil, fmt.Errorf("edge: %w", err)
		}
	}
	// Hubs log their own panics; what else protoactor has to say is about letters to hubs that have stopped,
	// for which it would start goroutines: nobody listens.
	e.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slog.DiscardHandler)
	}))
	e.system.EventStream = eventstream.NewEventStream()
	for i := range cfg.Hubs {
		e.hubs = append(e.hubs, newHub(e, i))
	}
	e.running.Add(1)
	go e.turn()
	return e, nil
}

// Close closes all sockets at once and stops. Sessions end as if the process had died: Drain first.
func (e *Edge) Close() error {
	e.once.Do(func() {
		e.draining.Store(true)
		close(e.done)
		e.running.Wait()
		e.stopped.Store(true)
		e.sockets.each((*socket).shut)
		for _, h := range e.hubs {
			h.stop()
		}
		if e.poller != nil {
			e.poller.Close()
		}
		close(e.crew.work)
		e.system.Shutdown()
	})
	return nil
}

// clock is milliseconds since the edge's start, never 0.
func (e *Edge) clock() int64 { return int64(time.Since(e.start)/time.Millisecond) + 1 }

// unix turns clock ms into Unix ms.
func (e *Edge) unix(clock int64) int64 { return e.wall + clock }

func (e *Edge) hubOf(shard uint32) *hub { return e.hubs[shard&uint32(len(e.hubs)-1)] }

func userShard(k presence.Key) uint32 { return link.ShardOf(k.App, link.KindUser, k.User) }
