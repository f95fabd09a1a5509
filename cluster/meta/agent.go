package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"muster/cluster"
	"muster/persistence"
)

// Engine is a *cluster.Engine.
type Engine interface {
	Propose(shard uint32, term, seq uint64, at int64, ops []persistence.Op) error
	ReadIndex(shard uint32, done func(error))
	Leader(shard uint32) (node, term uint64)
	Statuses() (map[uint32]cluster.Status, error)
	Change(group uint32, c cluster.Change) error
	Transfer(shard uint32, node uint64) error
	Yields() bool
	Create(group uint32, replica uint64) error
	Destroy(group uint32, min uint64) error
}

// Rows is a *persistence.Store.
type Rows interface {
	Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error
}

// Net calls other nodes.
type Net interface {
	Call(ctx context.Context, node uint64, method string, req []byte) ([]byte, error)
}

// Config of an Agent. Self, Birth.ID, Rows and Net are required.
type Config struct {
	Self   Node            // State and what follows it are ignored
	Birth  Cluster         // the cluster that the data directory names; recorded when group 0 opens without rows of it
	Known  []Node          // of Join's answer: who may be asked at first
	Peers  func() []uint64 // more cores that may be asked who leads group 0
	Rows   Rows
	Net    Net
	Told   func(Cluster, []Node) // the node table, each time it is told, every second; must not block
	Logger *slog.Logger          // default: discards
	Now    func() time.Time      // default: time.Now
	Every  time.Duration         // between rounds; default 1 s. A tenth of it while something moves
}

const (
	holdEvery = time.Minute
	holdAgain = time.Second // after a failure
)

// Agent of a core. Any goroutine may call its methods.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	began    time.Time
	director director
	ctx      context.Context // of Run
	running  sync.WaitGroup
	opens    chan struct{}
	differs  chan struct{}

	mu     sync.Mutex
	engine Engine
	told   told
	err    error // why the node does not belong; nil: it does, or nobody said
}

var _ cluster.Leading = (*Agent)(nil)

// NewAgent makes an agent that refuses everything until Run.
func NewAgent(cfg Config) *Agent {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Told == nil {
		cfg.Told = func(Cluster, []Node) {}
	}
	if cfg.Peers == nil {
		cfg.Peers = func() []uint64 { return nil }
	}
	a := &Agent{cfg: cfg, log: cfg.Logger, began: cfg.Now(), opens: make(chan struct{}, 1), differs: make(chan struct{}, 1)}
	a.director.cfg = &a.cfg
	a.told = told{Cluster: cfg.Birth, Nodes: cfg.Known}
	if s, err := Load(cfg.Rows); err == nil && s.Cluster.ID == cfg.Birth.ID {
		a.told.Cluster = s.Cluster // whether it was whole is known at once; an error is the director's to tell
	}
	return a
}

// Run works until ctx ends; then nothing of it runs any more.
func (a *Agent) Run(ctx context.Context, engine Engine) {
	a.ctx = ctx
	a.mu.Lock()
	a.engine = engine
	a.mu.Unlock()
	a.director.mu.Lock()
	a.director.engine = engine
	a.director.mu.Unlock()
	a.running.Go(func() { a.holding(ctx) })
	defer a.running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.opens:
		}
		next := a.cfg.Every
		if a.round(ctx) {
			next /= 10
		}
		timer.Reset(next)
	}
}

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Opened implements cluster.Leading, of group 0.
func (a *Agent) Opened(_ uint32, term, _ uint64, _ int64) {
	a.director.opened(term)
	kick(a.opens)
}

// Closed implements cluster.Leading, of group 0.
func (a *Agent) Closed(uint32, uint64) { a.director.closed() }

// Committed implements cluster.Leading, of group 0.
func (a *Agent) Committed(_ uint32, term, seq, _ uint64) { a.director.wrote(term, seq) }

// View is the cluster as the leader of group 0 sees it.
func (a *Agent) View(ctx context.Context) (v View, err error) {
	err = a.ask(ctx, methodView, struct{}{}, &v)
	return v, err
}

// Drain empties the node of a name, and lets it leave when it is empty; reduce: even if that lowers the number of voters. drain
// false takes it back.
func (a *Agent) Drain(ctx context.Context, name string, drain, reduce bool) error {
	return a.ask(ctx, methodDrain, drainRequest{Name: name, Drain: drain, Reduce: reduce}, new(struct{}))
}

// Remove says that the node of a name, which is down, is lost: it is replaced without further wait.
func (a *Agent) Remove(ctx context.Context, name string) error {
	return a.ask(ctx, methodRemove, name, new(struct{}))
}

type drainRequest struct {
	Name   string `json:"name"`
	Drain  bool   `json:"drain"`
	Reduce bool   `json:"reduce"`
}

// Leader is a hint who leads a shard; 0: unknown.
func (a *Agent) Leader(shard uint32) uint64 {
	a.mu.Lock()
	engine, told := a.engine, a.told.Leaders
	a.mu.Unlock()
	if engine != nil {
		if node, _ := engine.Leader(shard); node != 0 {
			return node
		}
	}
	if int64(shard) < int64(len(told)) {
		return told[shard]
	}
	return 0
}

// Nodes is the table as told last, by name.
func (a *Agent) Nodes() []Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.told.Nodes)
}

// NotReady says why the node should not serve: it does not belong any more, or a birth with Expect is not whole yet. Empty: it may.
func (a *Agent) NotReady() (why []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		why = append(why, a.err.Error())
	}
	if c := a.told.Cluster; c.Expect > 0 && !c.Whole {
		why = append(why, fmt.Sprintf("meta: the cluster was born for %d nodes and not every shard has its voters yet", c.Expect))
	}
	return why
}

// ask finds the leader of group 0 and asks it.
func (a *Agent) ask(ctx context.Context, method string, req, body any) error {
	b := marshal(req)
	for {
		err := a.askAll(ctx, method, b, body)
		if !errors.Is(err, ErrNoLeader) {
			return err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return err
		}
	}
}

// askAgain is the pause between two rounds of asking who leads group 0.
const askAgain = 100 * time.Millisecond

// askAll asks everybody who may lead group 0 or know who does, once.
func (a *Agent) askAll(ctx context.Context, method string, b []byte, body any) error {
	var last error
	seen := map[uint64]bool{0: true}
	for queue := a.candidates(); len(queue) > 0 && ctx.Err() == nil; {
		node := queue[0]
		queue = queue[1:]
		if seen[node] {
			continue
		}
		seen[node] = true
		err := a.call(ctx, node, method, b, body)
		r, said := err.(*refused)
		switch {
		case err == nil:
			return nil
		case said && r.of == ErrNotLeader:
			queue = append([]uint64{r.leader}, queue...)
		case said:
			return err
		default:
			last = err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if last == nil {
		return ErrNoLeader
	}
	return fmt.Errorf("%w: %w", ErrNoLeader, last)
}

func (a *Agent) candidates() []uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var nodes []uint64
	if a.engine != nil {
		node, _ := a.engine.Leader(persistence.MetaShard)
		nodes = append(nodes, node)
	}
	nodes = append(nodes, a.told.Leader, a.cfg.Self.ID)
	for _, n := range a.told.Nodes {
		if n.State != Left && n.State != Lost {
			nodes = append(nodes, n.ID)
		}
	}
	return append(nodes, a.cfg.Peers()...)
}

// call asks one node, which may be this one.
func (a *Agent) call(ctx context.Context, node uint64, method string, req []byte, body any) error {
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	var b []byte
	var err error
	if node == a.cfg.Self.ID {
		b, err = a.Handle(ctx, method, node, req)
	} else {
		b, err = a.cfg.Net.Call(ctx, node, method, req)
	}
	if err != nil {
		return err
	}
	return understand(b, body)
}

// Handle answers a call of a node: see Methods. What is refused is in the answer.
func (a *Agent) Handle(ctx context.Context, method string, from uint64, req []byte) ([]byte, error) {
	handler, ok := handlers[method]
	if !ok {
		return nil, fmt.Errorf("%w: no method %q", ErrBadRequest, method)
	}
	a.mu.Lock()
	engine := a.engine
	a.mu.Unlock()
	if engine == nil {
		return answered(nil, a.elsewhere(ErrNotLeader)), nil
	}
	body, err := handler(a, ctx, from, req)
	if err != nil {
		err = a.elsewhere(err)
	}
	return answered(body, err), nil
}

type handler func(a *Agent, ctx context.Context, from uint64, req json.RawMessage) (any, error)
