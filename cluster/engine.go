package cluster

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"muster/persistence"
)

// Leading is told what a shard's activations live by. All calls come from the engine's
// goroutine, in order, and must not block. After Closed returns nothing of that term may leave.
type Leading interface {
	Opened(shard uint32, term, generation uint64, at int64)
	Closed(shard uint32, term uint64)
	Committed(shard uint32, term, seq, index uint64)
}

// nobody hears of group 0.
type nobody struct{}

func (nobody) Opened(uint32, uint64, uint64, int64)     {}
func (nobody) Closed(uint32, uint64)                    {}
func (nobody) Committed(uint32, uint64, uint64, uint64) {}

// EngineConfig is what Start needs. Transport may be nil for a single node.
type EngineConfig struct {
	Node      uint64
	Store     *persistence.Store
	Transport Transport
	Leading   Leading
	Meta      Leading                        // told of MetaShard; nil: nobody is
	Tick      time.Duration                  // 100 ms
	Logger    *slog.Logger                   // slog.Default()
	Fatal     func(error)                    // told once, of an error of the disk; the process must end. Default: panic
	Room      func() (free uint64, low bool) // Store.Room
	Host      HostConfig                     // limits; Node, Rand and Logger are set by Start
	Failpoint func(Failpoint) bool           // tests: true ends the engine at that point as a crash would
}

// Failpoint is a moment at which a test may let an engine die.
type Failpoint string

const (
	BeforeAppend          Failpoint = "beforeAppend"
	AfterAppendBeforeSend Failpoint = "afterAppendBeforeSend"
	AfterCommitBeforeAck  Failpoint = "afterCommitBeforeAck"
	MidSnapshotIngest     Failpoint = "midSnapshotIngest"
	BeforeTransfer        Failpoint = "beforeTransfer"
)

const (
	maxInbox   = 1 << 14 // batches of messages; raft repeats what is dropped
	maxStreams = 2       // snapshots received, and sent, at a time; more are refused
	stalled    = 500 * time.Millisecond
	lookEvery  = 10 // ticks, at the room on the disk and at the clock
	stallShown = 5 * time.Second
)

// Engine is the goroutine around a Host, with its disk and its transport.
type Engine struct {
	cfg   EngineConfig
	host  *Host
	start time.Time
	log   *slog.Logger

	mu    sync.Mutex
	inbox []func()
	full  int // batches of messages in the inbox
	wake  chan struct{}
	stop  chan struct{}
	ended chan struct{}
	once  sync.Once

	// of the goroutine
	spare    []func()
	reads    map[uint64]func(error)
	lastRead uint64
	staged   map[uint32]*persistence.Staged
	sending  int
	opened   map[uint32]uint64
	ticks    int
	dead     bool
	clocks   clocks

	streams   sync.WaitGroup // of snapshots, both ways
	receiving atomic.Int32
	shards    sync.Map // shard → *shardView
	refusal   atomic.Pointer[string]
	wrong     atomic.Pointer[string] // what is wrong with the clock
	leaving   atomic.Bool
	stalledAt atomic.Int64 // Unix ns
}

// shardView is what other goroutines may know of a shard.
type shardView struct {
	open   atomic.Uint64 // term
	leader atomic.Pointer[LeaderChanged]
}

// Start loads the replicas of the store and runs them until Stop. Leading may be called before Start returns.
func Start(cfg EngineConfig) (*Engine, error) {
	if cfg.Tick == 0 {
		cfg.Tick = 100 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Fatal == nil {
		cfg.Fatal = func(err error) { panic(err) }
	}
	if cfg.Room == nil {
		cfg.Room = cfg.Store.Room
	}
	if cfg.Meta == nil {
		cfg.Meta = nobody{}
	}
	cfg.Host.Node = cfg.Node
	_, cfg.Host.Farewell = cfg.Leading.(Leaver)
	cfg.Host.Rand = rand.New(rand.NewPCG(rand.Uint64(), cfg.Node))
	if cfg.Host.Logger == nil {
		cfg.Host.Logger = raftLog{log: cfg.Logger}
	}
	host, err := NewHost(cfg.Host, cfg.Store)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: cfg, host: host, start: time.Now(), log: cfg.Logger,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		reads: map[uint64]func(error){}, staged: map[uint32]*persistence.Staged{}, opened: map[uint32]uint64{},
	}
	for _, g := range host.order {
		e.shards.Store(g.id-1, &shardView{})
	}
	if cfg.Transport != nil {
		cfg.Transport.Start(e)
	}
	go e.run()
	return e, nil
}

// view of a shard; nil: no replica here.
func (e *Engine) view(shard uint32) *shardView {
	v, _ := e.shards.Load(shard)
	view, _ := v.(*shardView)
	return view
}

// Stop ends the engine: every open shard is closed and nothing is written any more. The
// store stays open. Leading's own calls must not call it.
func (e *Engine) Stop() {
	e.once.Do(func() { close(e.stop) })
	<-e.ended
	e.streams.Wait()
}

// post hands f to the goroutine.
func (e *Engine) post(f func()) {
	e.mu.Lock()
	e.inbox = append(e.inbox, f)
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Propose adds ops to the shard's next entry; Leading hears Committed. It never blocks, and ops
// must not change any more. seq rises by 1 within (shard, term), from 1; at is now, Unix ms.
//
// ErrNotLeader, ErrBusy, ErrNoRoom, ErrTooLarge; after nil a term that ends may still leave the outcome unknown.
func (e *Engine) Propose(shard uint32, term, seq uint64, at int64, ops []persistence.Op) error {
	if v := e.view(shard); v == nil || term == 0 || v.open.Load() != term {
		return ErrNotLeader
	}
	if e.refusal.Load() != nil {
		return ErrNoRoom
	}
	if err := e.host.Admit(shard, ops); err != nil {
		return err
	}
	e.post(func() { _ = e.host.ProposeAdmitted(shard, term, seq, at, ops) }) // refused: Closed was told
	return nil
}

// ReadIndex calls done, on the engine's goroutine, when a read of the shard's rows is linearizable.
func (e *Engine) ReadIndex(shard uint32, done func(error)) {
	e.post(func() {
		e.lastRead++
		if err := e.host.Read(shard, e.lastRead); err != nil {
			done(err)
			return
		}
		e.reads[e.lastRead] = done
	})
}

// Leader says who leads the shard as far as this node knows; node 0 is nobody.
func (e *Engine) Leader(shard uint32) (node, term uint64) {
	v := e.view(shard)
	if v == nil {
		return 0, 0
	}
	if l := v.leader.Load(); l != nil {
		return l.Node, l.Term
	}
	return 0, 0
}

// Transfer begins to give the shard's leadership to a node; 0: to the best one.
func (e *Engine) Transfer(shard uint32, node uint64) error {
	return e.ask(func() error {
		if e.die(BeforeTransfer) {
			return ErrNotLeader
		}
		return e.host.Transfer(shard, node)
	})
}

// Change proposes a step of a group's configuration.
func (e *Engine) Change(group uint32, c Change) error {
	return e.ask(func() error { return e.host.Change(group, c) })
}

// Create makes an empty replica that waits for its leader's snapshot.
func (e *Engine) Create(group uint32, replica uint64) error {
	return e.ask(func() error {
		err := e.host.Create(group, replica)
		if err == nil {
			e.shards.LoadOrStore(group-1, &shardView{})
		}
		return err
	})
}

// Destroy removes the replica here and forbids all ids below min from coming back.
func (e *Engine) Destroy(group uint32, min uint64) error {
	return e.ask(func() error { e.host.Destroy(group, min); return nil })
}

// Status of a group's replica here.
func (e *Engine) Status(group uint32) (s Status, err error) {
	err = e.ask(func() (err error) { s, err = e.host.Status(group); return err })
	return s, err
}

// Ping runs pong on the engine's goroutine: a node whose disk hangs does not answer. pong must not block.
func (e *Engine) Ping(pong func()) { e.post(pong) }

// Clock says how far a node's clock is ahead of this one's, as a ping with a short round trip told. A node whose clock
// is more than 2 s off the median gives its leaderships away and says so in NotReady, until it is right to 1 s.
func (e *Engine) Clock(node uint64, offset time.Duration) {
	e.post(func() { e.clocks.add(node, offset, time.Since(e.start)) })
}

// ask runs f on the goroutine and waits.
func (e *Engine) ask(f func() error) error {
	answer := make(chan error, 1)
	e.post(func() { answer <- f() })
	select {
	case err := <-answer:
		return err
	case <-e.ended:
		return ErrNotLeader
	}
}

// Yields says that the node gives away what it leads: it is about to end, or its disk or its clock is in trouble.
func (e *Engine) Yields() bool {
	return e.leaving.Load() || e.wrong.Load() != nil || e.refusal.Load() != nil
}

// NotReady says why the node cannot serve all it holds; empty when it can.
func (e *Engine) NotReady() (why []string) {
	select {
	case <-e.ended:
		return []string{"cluster: stopped"}
	default:
	}
	if r := e.refusal.Load(); r != nil {
		why = append(why, *r)
	}
	if w := e.wrong.Load(); w != nil {
		why = append(why, *w)
	}
	if e.leaving.Load() {
		why = append(why, "cluster: the node is leaving")
	}
	if at := e.stalledAt.Load(); at != 0 && time.Since(time.Unix(0, at)) < stallShown {
		why = append(why, "cluster: the loop stalled: the disk or the processor is too slow")
	}
	all, missing, one := 0, 0, uint32(0)
	e.shards.Range(func(shard, view any) bool {
		v := view.(*shardView)
		all++
		if l := v.leader.Load(); l == nil || l.Node == 0 || l.Node == e.cfg.Node && v.open.Load() == 0 {
			missing, one = missing+1, max(one, shard.(uint32)+1)
		}
		return true
	})
	if missing > 0 {
		why = append(why, fmt.Sprintf("cluster: %d of %d groups have no leader, group %d is one", missing, all, one))
	}
	return why
}

// Receive takes messages from the transport.
func (e *Engine) Receive(from uint64, ms []Message) {
	e.mu.Lock()
	if e.full >= maxInbox {
		e.mu.Unlock()
		return
	}
	e.full++
	e.mu.Unlock()
	e.post(func() {
		for _, m := range ms {
			e.host.Receive(from, m.Group, m.Raft)
		}
	})
}

// ReceiveSnapshot stages the rows of a MsgSnap and hands it over. It blocks while r is read. ErrBusy and ErrNoRoom come at once;
// the sender's raft tries again with its next heartbeat.
func (e *Engine) ReceiveSnapshot(from uint64, m Message, r io.Reader) error {
	e.streams.Add(1)
	defer e.streams.Done()
	defer e.receiving.Add(-1)
	if e.receiving.Add(1) > maxStreams {
		return fmt.Errorf("%w: node %d receives %d snapshots already", ErrBusy, e.cfg.Node, maxStreams)
	}
	if why := e.refusal.Load(); why != nil {
		return fmt.Errorf("%w: %s", ErrNoRoom, *why)
	}
	staged, err := e.cfg.Store.Receive(r)
	if err != nil {
		return err
	}
	err = e.ask(func() error {
		if staged.Group != m.Group || staged.State.Applied != m.Raft.GetSnapshot().GetMetadata().GetIndex() {
			return staged.Discard()
		}
		if e.staged[m.Group] != nil {
			return ErrBusy // raft may have taken that one already
		}
		e.staged[m.Group] = staged
		e.host.Receive(from, m.Group, m.Raft)
		return nil
	})
	if err != nil {
		_ = staged.Discard()
	}
	return err
}

// Reset says that the stream from a node broke and a redial was refused.
func (e *Engine) Reset(node uint64) {
	e.post(func() { e.host.Suspect(node) })
}

// Silent says that a node has not answered pings for 700 ms.
func (e *Engine) Silent(node uint64) {
	e.post(func() { e.host.Silent(node) })
}

// Connected says that there is a new stream from a node, or that a silent one answers again.
func (e *Engine) Connected(node uint64) {
	e.post(func() { e.host.Trust(node) })
}
