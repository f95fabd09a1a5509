package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"muster/persistence"
	"muster/persistence/memdisk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNode is one engine on its store, in one of its lives.
type testNode struct {
	t      testing.TB
	id     uint64
	fs     *memdisk.Disk // nil: dir on the real disk
	dir    string
	store  *persistence.Store
	engine *Engine
	mesh   *Mesh
	log    *audit
	config func(*EngineConfig)

	mu   sync.Mutex
	open map[uint32]uint64
	seqs map[uint32]uint64
	acks map[[2]uint64]chan uint64 // shard, seq of the open term
}

// audit is what all nodes acknowledge, in the order they do.
type audit struct {
	mu     sync.Mutex
	t      testing.TB
	byAt   map[[2]uint64]ack // shard, index
	newest map[uint32]ack
}

type ack struct{ node, term, seq, index uint64 }

// add checks the fence: an index is acknowledged by one term alone, and an acknowledgement
// of a later index is never of an earlier term.
func (a *audit) add(shard uint32, k ack) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := [2]uint64{uint64(shard), k.index}
	if old, ok := a.byAt[at]; ok {
		a.t.Errorf("fence: shard %d: %+v and %+v", shard, old, k)
	}
	a.byAt[at] = k
	if old := a.newest[shard]; k.index > old.index && k.term < old.term || k.index < old.index && k.term >= old.term {
		a.t.Errorf("fence: shard %d: %+v after %+v", shard, k, old)
	} else if k.index > old.index {
		a.newest[shard] = k
	}
}

func newAudit(t testing.TB) *audit {
	return &audit{t: t, byAt: map[[2]uint64]ack{}, newest: map[uint32]ack{}}
}

func (n *testNode) Opened(shard uint32, term, _ uint64, _ int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.open[shard]; old != 0 {
		n.t.Errorf("node %d: shard %d opened at %d while open at %d", n.id, shard, term, old)
	}
	n.open[shard], n.seqs[shard] = term, 0
}

func (n *testNode) Closed(shard uint32, term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[shard] != term {
		n.t.Errorf("node %d: shard %d closed at %d, open at %d", n.id, shard, term, n.open[shard])
	}
	delete(n.open, shard)
	for k, ch := range n.acks {
		if k[0] == uint64(shard) {
			close(ch)
			delete(n.acks, k)
		}
	}
}

func (n *testNode) Committed(shard uint32, term, seq, index uint64) {
	n.log.add(shard, ack{n.id, term, seq, index})
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open[shard] != term {
		n.t.Errorf("node %d: shard %d: committed at %d, open at %d", n.id, shard, term, n.open[shard])
	}
	for k, ch := range n.acks {
		if k[0] == uint64(shard) && k[1] <= seq {
			ch <- index
			delete(n.acks, k)
		}
	}
}

var errUnknown = errors.New("unknown outcome")

// propose writes a row; the answer comes on the channel, closed if the outcome is unknown.
func (n *testNode) propose(shard uint32, key, value string) (chan uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	term := n.open[shard]
	if term == 0 || n.engine == nil {
		return nil, ErrNotLeader
	}
	seq := n.seqs[shard] + 1
	ch := make(chan uint64, 1)
	n.acks[[2]uint64{uint64(shard), seq}] = ch
	if err := n.engine.Propose(shard, term, seq, time.Now().UnixMilli(), []persistence.Op{{Key: []byte(key), Value: []byte(value)}}); err != nil {
		delete(n.acks, [2]uint64{uint64(shard), seq})
		return nil, err
	}
	n.seqs[shard] = seq
	return ch, nil
}

func (n *testNode) put(shard uint32, key, value string) error {
	ch, err := n.propose(shard, key, value)
	if err != nil {
		return err
	}
	select {
	case _, ok := <-ch:
		if !ok {
			return errUnknown
		}
		return nil
	case <-time.After(2 * time.Second):
		return errUnknown
	}
}

func (n *testNode) get(shard uint32, key string) string {
	n.t.Helper()
	v, ok, err := n.store.Get(shard, []byte(key))
	if err != nil {
		n.t.Fatal(err)
	}
	if !ok {
		return "-"
	}
	return string(v)
}

func (n *testNode) isOpen(shard uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open[shard] != 0
}

var quiet = slog.New(slog.DiscardHandler)

func (n *testNode) options() persistence.Options {
	o := persistence.Options{Create: &persistence.Identity{Node: n.id, Cluster: "test"}, Ballast: -1, Reserve: 1, Logger: quiet, Memtable: 4 << 20}
	if n.fs != nil {
		o.FS = n.fs
	}
	return o
}

// start opens the store, lets it be born with members if it is new, and starts the engine.
func (n *testNode) start(shards int, members []persistence.Member) {
	n.t.Helper()
	store, err := persistence.Open(n.dir, n.options())
	if err != nil {
		n.t.Fatal(err)
	}
	if groups, err := store.Groups(); err != nil || len(groups) == 0 && len(members) > 0 {
		if err := Birth(store, shards, members, time.Unix(1_700_000_000, 0)); err != nil {
			n.t.Fatal(err)
		}
	}
	n.mu.Lock()
	n.store, n.open, n.seqs, n.acks = store, map[uint32]uint64{}, map[uint32]uint64{}, map[[2]uint64]chan uint64{}
	n.mu.Unlock()
	cfg := EngineConfig{
		Node: n.id, Store: store, Leading: n, Logger: quiet,
		Fatal: func(err error) { n.t.Errorf("node %d: %v", n.id, err) },
		Host:  HostConfig{Lease: 10 * time.Second}, // a busy machine is no partition
	}
	if n.mesh != nil {
		cfg.Transport = n.mesh.Port(n.id)
	}
	if n.config != nil {
		n.config(&cfg)
	}
	engine, err := Start(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.engine = engine
	n.mu.Unlock()
}

func (n *testNode) stop() {
	n.t.Helper()
	if n.engine == nil {
		return
	}
	n.engine.Stop()
	if err := n.store.Close(); err != nil {
		n.t.Error(err)
	}
	n.mu.Lock()
	n.engine = nil
	n.mu.Unlock()
}

func (n *testNode) running() *Engine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.engine
}

// crash is a kill -9 and power loss at once: what was not synced is gone.
func (n *testNode) crash() {
	n.t.Helper()
	if n.mesh != nil {
		n.mesh.Crash(n.id) // first: nothing may be acknowledged by what the clone lacks
	}
	fs := n.fs.CrashClone(vfs.CrashCloneCfg{})
	n.engine.Stop()
	_ = n.store.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fs, n.engine = fs, nil
	for k, ch := range n.acks {
		close(ch)
		delete(n.acks, k)
	}
	clear(n.open)
}

// testCluster has nodes 1 to n; the first voters of them are members of all groups from birth.
type testCluster struct {
	t       testing.TB
	mesh    *Mesh
	nodes   []*testNode
	shards  int
	members []persistence.Member
}

func newCluster(t testing.TB, nodes, voters, shards int, config func(*EngineConfig)) *testCluster {
	c := &testCluster{t: t, shards: shards}
	if nodes > 1 {
		c.mesh = NewMesh()
	}
	log := newAudit(t)
	for i := range nodes {
		id := uint64(i + 1)
		n := &testNode{t: t, id: id, fs: memdisk.New(), dir: "data", mesh: c.mesh, log: log, config: config}
		c.nodes = append(c.nodes, n)
		if i < voters {
			c.members = append(c.members, persistence.Member{Replica: id, Node: id})
		}
	}
	t.Cleanup(c.close)
	return c
}

func (c *testCluster) start() *testCluster {
	for i, n := range c.nodes {
		if i < len(c.members) {
			n.start(c.shards, c.members)
		} else {
			n.start(c.shards, nil)
		}
	}
	return c
}

func (c *testCluster) close() {
	for _, n := range c.nodes {
		n.stop()
	}
	if c.mesh != nil {
		c.mesh.Close()
	}
}

// leader waits for a node that has the shard open.
func (c *testCluster) leader(shard uint32, not ...*testNode) (leader *testNode) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("shard %d has a leader", shard), func() bool {
		for _, n := range c.nodes {
			if !slices.Contains(not, n) && n.running() != nil && n.isOpen(shard) {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// put writes through whoever leads, as a client would: again and again until acknowledged.
func (c *testCluster) put(shard uint32, key, value string) {
	c.t.Helper()
	eventually(c.t, "put "+key, func() bool {
		for _, n := range c.nodes {
			if n.running() != nil && n.isOpen(shard) && n.put(shard, key, value) == nil {
				return true
			}
		}
		return false
	})
}

// eventually polls; a test's virtual clock would not move Pebble's goroutines.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for pause := time.NewTicker(2 * time.Millisecond); ; <-pause.C {
		if ok() {
			pause.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestSingleNode(t *testing.T) {
	c := newCluster(t, 1, 1, 64, nil)
	began := time.Now()
	c.start()
	n := c.nodes[0]
	eventually(t, "ready", func() bool { return len(n.engine.NotReady()) == 0 })
	if took := time.Since(began); took > time.Second {
		t.Errorf("ready after %v", took)
	}
	for shard := range uint32(64) {
		if err := n.put(shard, "k", fmt.Sprint(shard)); err != nil {
			t.Fatal(err)
		}
	}
	first := n.open[3]
	n.crash()
	n.start(64, nil)
	for shard := range uint32(64) {
		c.leader(shard)
		if got := n.get(shard, "k"); got != fmt.Sprint(shard) {
			t.Errorf("shard %d: %q after the crash", shard, got)
		}
	}
	if n.open[3] <= first || first <= 1_700_000_000 {
		t.Errorf("terms %d, %d", first, n.open[3])
	}
	if err := n.engine.Propose(3, first, 2, 0, nil); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a proposal of an old term: %v", err)
	}
}

func TestStallIsNoticed(t *testing.T) {
	slow := make(chan time.Duration, 1)
	c := newCluster(t, 1, 1, 1, func(cfg *EngineConfig) {
		cfg.Tick = 10 * time.Millisecond
		cfg.Room = func() (uint64, bool) {
			select {
			case d := <-slow:
				<-time.After(d)
			default:
			}
			return 1 << 40, false
		}
	}).start()
	n := c.nodes[0]
	eventually(t, "ready", func() bool { return len(n.engine.NotReady()) == 0 })
	slow <- 600 * time.Millisecond
	eventually(t, "the stall shows", func() bool { return len(n.engine.NotReady()) == 1 })
	if n.put(0, "k", "v") != nil {
		t.Error("no writes after a stall")
	}
}

func TestDiskErrorEndsTheEngine(t *testing.T) {
	fatal := make(chan error, 1)
	n := &testNode{t: t, id: 1, fs: memdisk.New(), dir: "data", log: newAudit(t)}
	n.config = func(cfg *EngineConfig) { cfg.Fatal = func(err error) { fatal <- err } }
	n.start(1, []persistence.Member{{Replica: 1, Node: 1}})
	eventually(t, "open", func() bool { return n.isOpen(0) })
	_ = n.store.Close() // every write fails from now on
	if _, err := n.propose(0, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := <-fatal; err == nil {
		t.Error("no error")
	}
	n.engine.Stop()
	if why := n.engine.NotReady(); len(why) != 1 {
		t.Errorf("not ready because of %q", why)
	}
	if err := n.engine.Propose(0, n.open[0], 2, 0, nil); !errors.Is(err, ErrNotLeader) {
		t.Error("a proposal to a dead engine:", err)
	}
	if len(n.log.byAt) != 0 {
		t.Error("acknowledged without a write")
	}
}

// recorder is told of group 0.
type recorder struct {
	mu   sync.Mutex
	told []string
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf(format, args...))
}

func (r *recorder) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.told)
}

func (r *recorder) Opened(shard uint32, term, _ uint64, _ int64) { r.add("opened %x %d", shard, term) }
func (r *recorder) Closed(shard uint32, term uint64)             { r.add("closed %x %d", shard, term) }
func (r *recorder) Committed(shard uint32, term, seq, _ uint64) {
	r.add("committed %x %d %d", shard, term, seq)
}

func TestMetaIsTold(t *testing.T) {
	var r recorder
	c := newCluster(t, 1, 1, 1, func(cfg *EngineConfig) { cfg.Meta = &r }).start()
	n := c.nodes[0]
	eventually(t, "opened", func() bool { return r.len() == 1 })
	all, err := n.engine.Statuses()
	if err != nil || len(all) != 2 || all[0].Open == 0 {
		t.Fatal(all, err)
	}
	term := all[0].Open
	if err := n.engine.Propose(MetaShard, term, 1, 0, []persistence.Op{{Key: []byte("k"), Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "committed", func() bool { return r.len() == 2 })
	n.stop()
	want := []string{fmt.Sprintf("opened ffffffff %d", term), fmt.Sprintf("committed ffffffff %d 1", term), fmt.Sprintf("closed ffffffff %d", term)}
	if !slices.Equal(r.told, want) {
		t.Errorf("told %q, want %q", r.told, want)
	}
}
