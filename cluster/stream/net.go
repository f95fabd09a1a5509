package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// Dial says which of two nodes dials the other. Both must agree.
type Dial uint8

const (
	BySmaller Dial = iota // the one with the smaller id
	Here                  // this node does, as an edge does with its cores
	There                 // the peer does
)

// Peer is another node, or this one.
type Peer struct {
	Node        uint64 // never 0
	Name        string
	Addr        string // host:port
	Incarnation uint64
	Dial        Dial   // for SetPeers
	Wire        uint8  // of an epoch: the version that both speak
	Via         uint64 // of an epoch: the node that relays; 0: nobody
}

// Class is a stream of its own between each two nodes: 0 to Config.Classes-1.
type Class uint8

// Config is what Listen needs. Zero durations and sizes mean the defaults.
//
// Callbacks about one peer come one after the other, except for Noted, Ping, Silent, OnStream and handlers; Receive of two
// classes may overlap. Between Down and Up of a peer nothing of it is received. None may call Stop.
type Config struct {
	Self     Peer
	Cluster  string       // id; "" until SetCluster: until then only open calls pass
	Listener net.Listener // is closed by Stop
	Keys     *Keys        // nil: plain text, between loopback addresses only
	Classes  int          // 1 to 16
	Relay    bool         // reach peers through others where no connection can be had; not for Raft

	Receive  func(from Peer, c Class, kind byte, payload []byte)              // payload is the receiver's to keep; blocking is back-pressure
	OnStream func(from Peer, kind byte, header []byte, body io.Reader) error  // what it returns is Stream's answer; nil: refused
	Up       func(p Peer)                                                     // an epoch begins
	Down     func(p Peer, refused bool)                                       // it ended; refused: so was an immediate redial, the process is gone
	Silent   func(p Peer, silent bool)                                        // no answer to pings for Silence; there is one again
	Ping     func(from uint64, pong func())                                   // calls pong when the node's main loop runs; nil: at once
	Note     func() []byte                                                    // travels with pongs, at most 1 KiB
	Noted    func(from Peer, note []byte, clock time.Time, rtt time.Duration) // the peer's, with its clock when it answered

	PingEvery time.Duration // 200 ms
	Silence   time.Duration // 700 ms
	Lost      time.Duration // silence that ends an epoch; 5 s, Silence for Raft
	Queue     int           // most bytes waiting per (peer, class); 4 MiB
	Wire      [2]uint8      // oldest and newest version spoken; those of this build
	Logger    *slog.Logger  // slog.Default()
}

// MaxPayload is the largest message, and the largest request and response of a call, in bytes.
const MaxPayload = 8 << 20

var (
	ErrDown     = errors.New("stream: the node is not connected")
	ErrFull     = errors.New("stream: the queue to the node is full")
	ErrTooLarge = errors.New("stream: a payload holds at most 8 MiB")
	ErrLost     = errors.New("stream: the connection broke before the answer came")
	ErrNoMethod = errors.New("stream: the node does not know the method")
	ErrBusy     = errors.New("stream: the node has too many calls in progress")
)

// Net is a node's end of all its connections on one port.
type Net struct {
	cfg     Config
	start   time.Time
	ctx     context.Context
	cancel  context.CancelCauseFunc
	server  *grpc.Server
	quiet   quiet
	prover  prover
	raft    *raftPort
	id      atomic.Pointer[string] // of the cluster
	skipped atomic.Uint64
	sent    atomic.Uint64
	calls   atomic.Uint64
	running sync.WaitGroup

	mu       sync.Mutex
	peers    map[uint64]*peer
	accepted map[uint64]*epoch // by id
	virtual  map[uint64]*epoch // relayed, by id
	reach    uint64            // counts changes of whom we are connected with
	handlers map[string]handler
	started  bool // SetPeers was called: epochs are accepted
	stopped  bool
}

// Listen begins to accept connections. Without keys the listener must be on a loopback address.
func Listen(cfg Config) (*Net, error) {
	if cfg.Self.Node == 0 || cfg.Listener == nil {
		return nil, errors.New("stream: a node id and a listener are needed")
	}
	if cfg.Classes < 1 || cfg.Classes > maxClasses {
		return nil, fmt.Errorf("stream: 1 to %d classes, not %d", maxClasses, cfg.Classes)
	}
	if cfg.Keys == nil && !loopback(cfg.Listener.Addr().String()) {
		return nil, errPlain
	}
	cfg.setDefaults()
	n := &Net{
		cfg: cfg, start: time.Now(), quiet: quiet{log: cfg.Logger, seen: map[string]time.Time{}},
		peers: map[uint64]*peer{}, accepted: map[uint64]*epoch{}, virtual: map[uint64]*epoch{}, handlers: map[string]handler{},
	}
	n.id.Store(&cfg.Cluster)
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.server = grpc.NewServer(n.serverOptions()...)
	n.server.RegisterService(n.service(), n)
	n.running.Go(func() {
		if err := n.server.Serve(counting{cfg.Listener, &n.sent}); err != nil && !n.stopping() {
			cfg.Logger.Error("stream: the listener failed", "error", err)
		}
	})
	n.running.Go(n.pingAll)
	return n, nil
}

func (cfg *Config) setDefaults() {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&cfg.PingEvery, 200*time.Millisecond)
	or(&cfg.Silence, 700*time.Millisecond)
	or(&cfg.Lost, 5*time.Second)
	if cfg.Queue == 0 {
		cfg.Queue = 4 << 20
	}
	if cfg.Wire == [2]uint8{} {
		cfg.Wire = [2]uint8{OldestWire, NewestWire}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Receive == nil {
		cfg.Receive = func(Peer, Class, byte, []byte) {}
	}
	if cfg.Up == nil {
		cfg.Up = func(Peer) {}
	}
	if cfg.Down == nil {
		cfg.Down = func(Peer, bool) {}
	}
	if cfg.Silent == nil {
		cfg.Silent = func(Peer, bool) {}
	}
	if cfg.Ping == nil {
		cfg.Ping = func(_ uint64, pong func()) { pong() }
	}
	if cfg.Note == nil {
		cfg.Note = func() []byte { return nil }
	}
	if cfg.Noted == nil {
		cfg.Noted = func(Peer, []byte, time.Time, time.Duration) {}
	}
}

func (n *Net) cluster() string { return *n.id.Load() }

// SetCluster says which cluster the node belongs to, once.
func (n *Net) SetCluster(id string) {
	n.id.Store(&id)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		p.nudge()
	}
}

// SetPeers says with whom to be connected; those it no longer names are let go. An authenticated node of the
// cluster that connects by itself is taken too, from the first SetPeers on: Raft and Handle come before.
func (n *Net) SetPeers(peers []Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.started = true
	named := map[uint64]bool{n.cfg.Self.Node: true}
	for _, info := range peers {
		if named[info.Node] || info.Node == 0 {
			continue
		}
		named[info.Node] = true
		if p := n.keep(info.Node); p != nil {
			p.want(info)
		}
	}
	for node, p := range n.peers {
		if !named[node] {
			p.drop()
		}
	}
}

// keep finds or makes a peer; nil when the Net stops. The caller holds mu.
func (n *Net) keep(node uint64) *peer {
	p := n.peers[node]
	if p == nil && !n.stopped {
		p = &peer{net: n, node: node, poke: make(chan struct{}, 1)}
		n.peers[node] = p
		n.running.Go(p.run)
	}
	return p
}

// offer hands an accepted epoch to its peer; false when the Net stops.
func (n *Net) offer(e *epoch) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.keep(e.peer.Node)
	if p == nil {
		return false
	}
	p.offer(e)
	return true
}

// epoch with a node; nil: none.
func (n *Net) epoch(node uint64) *epoch {
	n.mu.Lock()
	p := n.peers[node]
	n.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.current.Load()
}

// Connected says whether there is an epoch with the node.
func (n *Net) Connected(node uint64) bool { return n.epoch(node) != nil }

// Skipped counts what was received, or not sent, because one of two builds does not know it.
func (n *Net) Skipped() uint64 { return n.skipped.Load() }

// Send queues a message; it never blocks, and payload must not change any more. ErrDown, ErrFull, ErrTooLarge.
// After nil it arrives, or the epoch ends. Classes that the peer's build does not know are skipped.
func (n *Net) Send(to uint64, c Class, kind byte, payload []byte) error {
	e := n.epoch(to)
	if e == nil {
		return ErrDown
	}
	return e.put(firstClass+int(c), envelope{kind: kind, payload: payload})
}

// SendWait is Send that waits for room in the queue.
func (n *Net) SendWait(ctx context.Context, to uint64, c Class, kind byte, payload []byte) error {
	e := n.epoch(to)
	if e == nil {
		return ErrDown
	}
	return e.wait(ctx, firstClass+int(c), envelope{kind: kind, payload: payload})
}

func (n *Net) stopping() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stopped
}

func (n *Net) receive(from Peer, c Class, v envelope) {
	if n.raft != nil && c == raftClass {
		n.raft.receive(from, v)
		return
	}
	n.cfg.Receive(from, c, v.kind, v.payload)
}

// Stop ends all epochs and waits for all callbacks. Down is told of each.
func (n *Net) Stop() {
	n.mu.Lock()
	n.stopped = true
	n.mu.Unlock()
	_ = n.cfg.Listener.Close() // first: peers that lose us find the port refused
	n.cancel(errStopped)
	n.server.Stop()
	n.running.Wait()
}
