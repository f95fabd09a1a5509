package durable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"muster/actors"
	"muster/actors/link"
	"muster/cluster"
	"muster/persistence"
)

// Config of a Node. Dir is required.
type Config struct {
	Dir       string
	Store     persistence.Options
	Members   []persistence.Member // of a cluster that is born now; none: this node alone
	BornAt    time.Time            // of that cluster, the same on all members; default: now
	Transport cluster.Transport    // nil: this node alone
	Logger    *slog.Logger         // default: discards
	Fatal     func(error)          // what is stored cannot be trusted any more: end the process

	Failpoint func(cluster.Failpoint) bool // tests: see cluster.EngineConfig
}

// Node is a store and the engine over it. It implements actors.Store.
type Node struct {
	Store   *persistence.Store
	Meter   *Meter
	cfg     Config
	engine  *cluster.Engine
	meta    cluster.Leading
	leaving func(shard uint32, to uint64, ready func())
	started chan struct{} // closed when engine is set
	open    [link.Shards]atomic.Bool
}

var _ actors.Store = (*Node)(nil)

// Open opens the store. In an empty directory it also gives birth to the groups of a
// cluster; a directory that was used before only goes on with what it holds.
func Open(cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	meter := &Meter{}
	if cfg.Store.FS == nil {
		cfg.Store.FS = vfs.Default
	}
	cfg.Store.FS = metered{cfg.Store.FS, meter}
	store, err := persistence.Open(cfg.Dir, cfg.Store)
	if err != nil {
		return nil, err
	}
	n := &Node{Store: store, Meter: meter, cfg: cfg, started: make(chan struct{})}
	if err := n.born(); err != nil {
		_ = store.Close()
		return nil, err
	}
	return n, nil
}

// born creates the groups unless there are some. A node that joined a cluster gets its
// replicas from the others, all its life.
func (n *Node) born() error {
	groups, err := n.Store.Groups()
	if err != nil || len(groups) > 0 || n.Store.Identity().Joined {
		return err
	}
	members := n.cfg.Members
	if len(members) == 0 {
		members = []persistence.Member{{Replica: 1, Node: n.Store.Identity().Node}}
	}
	at := n.cfg.BornAt
	if at.IsZero() {
		at = time.Now()
	}
	return cluster.Birth(n.Store, link.Shards, members, at)
}

// Start runs the engine; it tells leading what this node leads.
func (n *Node) Start(leading cluster.Leading) error {
	engine, err := cluster.Start(cluster.EngineConfig{
		Node: n.Store.Identity().Node, Store: n.Store, Transport: n.cfg.Transport, Leading: n.watch(leading), Meta: n.meta,
		Logger: n.cfg.Logger, Fatal: n.cfg.Fatal, Failpoint: n.cfg.Failpoint,
	})
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	n.engine = engine
	close(n.started)
	return nil
}

// Join says who carries what the engine sends, who is told of the meta group, and what is to be done before a
// leadership is given to another node. It comes before Start.
func (n *Node) Join(t cluster.Transport, meta cluster.Leading, leaving func(shard uint32, to uint64, ready func())) {
	n.cfg.Transport, n.meta, n.leaving = t, meta, leaving
}

// Engine is nil before Start.
func (n *Node) Engine() *cluster.Engine { return n.engine }

// Propose implements actors.Store.
func (n *Node) Propose(shard uint32, term, seq uint64, at int64, writes []actors.Write) error {
	ops := make([]persistence.Op, len(writes))
	for i, w := range writes {
		ops[i] = persistence.Op(w)
	}
	<-n.started // the engine may open shards before Start has returned
	return refusal(n.engine.Propose(shard, term, seq, at, ops))
}

// refusal says in the actors' words why a proposal was not taken.
func refusal(err error) error {
	for theirs, ours := range refusals {
		if errors.Is(err, theirs) {
			return fmt.Errorf("%w: %w", ours, err)
		}
	}
	return err
}

var refusals = map[error]error{
	cluster.ErrNotLeader: actors.ErrNotLeader,
	cluster.ErrBusy:      actors.ErrBusy,
	cluster.ErrNoRoom:    actors.ErrNoRoom,
}

// Get implements actors.Store.
func (n *Node) Get(shard uint32, key []byte) ([]byte, bool, error) { return n.Store.Get(shard, key) }

// Scan implements actors.Store.
func (n *Node) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	return n.Store.Scan(shard, from, to, visit)
}

// Confirm implements actors.Store by a round of heartbeats to a quorum, which all reads of the moment share. A sole voter
// needs none.
func (n *Node) Confirm(shard uint32, done func(error)) {
	<-n.started
	n.engine.ReadIndex(shard, func(err error) { done(refusal(err)) })
}

// NotReady says why not all shards are served; empty: they are.
func (n *Node) NotReady() []string {
	select {
	case <-n.started:
		return n.engine.NotReady()
	default:
		return []string{"starting"}
	}
}

// Leads is the number of shards that this node leads.
func (n *Node) Leads() int {
	own := n.Store.Identity().Node
	return n.shards(func(leader uint64) bool { return leader == own })
}

// Leaderless is the number of shards whose leader this node does not know.
func (n *Node) Leaderless() int { return n.shards(func(leader uint64) bool { return leader == 0 }) }

func (n *Node) shards(count func(leader uint64) bool) (sum int) {
	if n.engine == nil {
		return 0
	}
	for shard := range uint32(link.Shards) {
		if leader, _ := n.engine.Leader(shard); count(leader) {
			sum++
		}
	}
	return sum
}

// Latest is the latest time that any group has committed; zero if none has.
func (n *Node) Latest() (time.Time, error) {
	groups, err := n.Store.Groups()
	if err != nil {
		return time.Time{}, err
	}
	var at int64
	for _, g := range groups {
		_, state, _, _, err := n.Store.Load(g)
		if err != nil {
			return time.Time{}, err
		}
		at = max(at, state.At)
	}
	if at == 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(at), nil
}

// Stop ends the engine: all shards close, and nothing that is proposed from now on is
// taken. The rows can still be read.
func (n *Node) Stop() {
	if n.engine != nil {
		n.engine.Stop()
	}
}

// Close stops the engine and closes the store. The actors must be stopped, between Stop
// and Close.
func (n *Node) Close() error {
	n.Stop()
	return n.Store.Close()
}

// watched notes which shards are open here on their way to who is told.
type watched struct {
	cluster.Leading
	n *Node
}

func (n *Node) watch(l cluster.Leading) cluster.Leading {
	if n.leaving == nil {
		return watched{l, n}
	}
	return leaver{watched{l, n}}
}

// leaver is told before a leadership goes.
type leaver struct{ watched }

func (l leaver) Leaving(shard uint32, _, to uint64, ready func()) { l.n.leaving(shard, to, ready) }

func (w watched) Opened(shard uint32, term, generation uint64, at int64) {
	w.Leading.Opened(shard, term, generation, at)
	if shard < link.Shards {
		w.n.open[shard].Store(true)
	}
}

func (w watched) Closed(shard uint32, term uint64) {
	if shard < link.Shards {
		w.n.open[shard].Store(false)
	}
	w.Leading.Closed(shard, term)
}

// Open reports that this node leads the shard and its actors have been told.
func (n *Node) Open(shard uint32) bool { return n.open[shard].Load() }

// closed is the number of shards that are open neither here nor, as far as this node
// knows, elsewhere.
func (n *Node) closed() (sum int) {
	select {
	case <-n.started:
	default:
		return link.Shards
	}
	own := n.Store.Identity().Node
	for shard := range n.open {
		if leader, _ := n.engine.Leader(uint32(shard)); leader == 0 || leader == own && !n.open[shard].Load() {
			sum++
		}
	}
	return sum
}

// Ready waits until all shards are open. A node that is short of room or time may be
// not ready even so: see NotReady.
func (n *Node) Ready(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		closed := n.closed()
		if closed == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %d shards are not open: %s", ctx.Err(), closed, strings.Join(n.NotReady(), "; "))
		}
	}
}
