package meta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"muster/cluster"
	"muster/persistence"
	"muster/persistence/memdisk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func logger() *slog.Logger {
	if os.Getenv("META_LOG") == "" {
		return quiet
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// world is a cluster of real engines in one process.
type world struct {
	t      *testing.T
	shards int
	expect int // --expect of the processes that start from now on
	mesh   *cluster.Mesh
	skew   atomic.Int64 // added to all clocks

	mu    sync.Mutex
	nodes map[uint64]*peer
}

// peer is one node in one of its lives.
type peer struct {
	w      *world
	self   Node
	fs     *memdisk.Disk
	store  *persistence.Store
	engine *cluster.Engine
	agent  *Agent
	stop   context.CancelFunc
	over   chan struct{}

	mu   sync.Mutex
	open map[uint32]uint64
	seqs map[uint32]uint64
	acks map[[2]uint64]chan bool // shard, seq
}

func newWorld(t *testing.T, shards int) *world {
	w := &world{t: t, shards: shards, mesh: cluster.NewMesh(), nodes: map[uint64]*peer{}}
	t.Cleanup(func() {
		for _, p := range w.all() {
			p.kill()
		}
		w.mesh.Close()
	})
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.skew.Load())) }

func (w *world) all() []*peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ps []*peer
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		ps = append(ps, w.nodes[id])
	}
	return ps
}

func (w *world) peer(id uint64) *peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[id]
}

// Call implements Net.
func (w *world) Call(ctx context.Context, node uint64, method string, req []byte) ([]byte, error) {
	p := w.peer(node)
	if p == nil {
		return nil, errors.New("refused")
	}
	return p.agent.Handle(ctx, method, 0, req)
}

// callAddr calls the address that a test gives node id.
func (w *world) callAddr(ctx context.Context, addr, method string, req []byte) ([]byte, error) {
	for _, p := range w.all() {
		if p.self.Raft == addr {
			return w.Call(ctx, p.self.ID, method, req)
		}
	}
	return nil, errors.New("refused")
}

// start runs a node: born, joining by another's address, or again.
func (w *world) start(id uint64, fs *memdisk.Disk) *peer {
	w.t.Helper()
	p := &peer{w: w, fs: fs, self: Node{ID: id, Name: fmt.Sprint("n", id), Raft: fmt.Sprint("raft-", id), Incarnation: uint64(time.Now().UnixNano())}}
	p.open, p.seqs, p.acks = map[uint32]uint64{}, map[uint32]uint64{}, map[[2]uint64]chan bool{}
	fresh := fs == nil
	if fresh {
		p.fs = memdisk.New()
	}
	var known []Node
	if others := w.all(); fresh && len(others) > 0 {
		var joined Joined
		eventually(w.t, "joined", func() (err error) {
			joined, err = Join(context.Background(), w.callAddr, []string{others[len(others)-1].self.Raft}, p.self)
			return err
		})
		known = joined.Nodes
		fresh = false
	}
	store, err := persistence.Open("data", persistence.Options{
		FS: p.fs, Create: &persistence.Identity{Node: id, Cluster: "c"}, Ballast: -1, Reserve: 1, Logger: quiet, Memtable: 1 << 20,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if fresh {
		if err := cluster.Birth(store, w.shards, []persistence.Member{{Replica: 1, Node: id}}, time.Unix(1_700_000_000, 0)); err != nil {
			w.t.Fatal(err)
		}
	}
	p.store = store
	p.agent = NewAgent(Config{
		Self: p.self, Birth: Cluster{ID: "c", Expect: w.expect}, Known: known, Rows: store, Net: w, Now: w.now, Every: 200 * time.Millisecond,
		Logger: logger().With("node", id),
	})
	p.engine, err = cluster.Start(cluster.EngineConfig{
		Node: id, Store: store, Transport: w.mesh.Port(id), Leading: p, Meta: p.agent, Logger: quiet,
		Fatal: func(err error) { w.t.Errorf("node %d: %v", id, err) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.nodes[id] = p
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p.stop, p.over = cancel, make(chan struct{})
	go func() {
		p.agent.Run(ctx, p.engine)
		close(p.over)
	}()
	return p
}

// kill ends a node; its disk is returned as a power loss leaves it.
func (p *peer) kill() *memdisk.Disk {
	p.w.mesh.Crash(p.self.ID)
	fs := p.fs.CrashClone(vfs.CrashCloneCfg{})
	p.w.mu.Lock()
	delete(p.w.nodes, p.self.ID)
	p.w.mu.Unlock()
	p.stop()
	p.engine.Stop()
	<-p.over
	if err := p.store.Close(); err != nil {
		p.w.t.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, ch := range p.acks {
		ch <- false
		delete(p.acks, k)
	}
	p.open = map[uint32]uint64{}
	return fs
}

func (p *peer) Opened(shard uint32, term, _ uint64, _ int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[shard], p.seqs[shard] = term, 0
}

func (p *peer) Closed(shard uint32, _ uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, shard)
	for k, ch := range p.acks {
		if k[0] == uint64(shard) {
			ch <- false
			delete(p.acks, k)
		}
	}
}

func (p *peer) Committed(shard uint32, _, seq, _ uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, ch := range p.acks {
		if k[0] == uint64(shard) && k[1] <= seq {
			ch <- true
			delete(p.acks, k)
		}
	}
}

// put writes a row; true: it is acknowledged.
func (p *peer) put(shard uint32, key string) bool {
	p.mu.Lock()
	term := p.open[shard]
	if term == 0 {
		p.mu.Unlock()
		return false
	}
	seq, ch := p.seqs[shard]+1, make(chan bool, 1)
	if p.engine.Propose(shard, term, seq, time.Now().UnixMilli(), []persistence.Op{{Key: []byte(key), Value: []byte(key)}}) != nil {
		p.mu.Unlock()
		return false
	}
	p.seqs[shard] = seq
	p.acks[[2]uint64{uint64(shard), seq}] = ch
	p.mu.Unlock()
	return <-ch
}

// writers write to all shards until stopped.
type writers struct {
	w     *world
	acked [][]string // by shard
	stop  chan struct{}
	wg    sync.WaitGroup
}

func (w *world) write() *writers {
	ws := &writers{w: w, stop: make(chan struct{}), acked: make([][]string, w.shards)}
	const many = 4
	for i := range many {
		ws.wg.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ws.stop:
					return
				case <-tick.C:
				}
				for shard := i; shard < w.shards; shard += many {
					if shard%16 != n%16 {
						continue
					}
					key := fmt.Sprint("k", n)
					for _, p := range w.all() {
						if p.put(uint32(shard), key) {
							ws.acked[shard] = append(ws.acked[shard], key)
							break
						}
					}
				}
			}
		})
	}
	return ws
}

// check finds everything that was acknowledged at every voter.
func (ws *writers) check() {
	t := ws.w.t
	t.Helper()
	close(ws.stop)
	ws.wg.Wait()
	total := 0
	view := ws.w.view()
	for shard, keys := range ws.acked {
		total += len(keys)
		for _, node := range view.Shards[shard+1].Voters {
			p := ws.w.peer(node)
			for _, key := range keys {
				eventually(t, fmt.Sprintf("node %d has %s of shard %d", node, key, shard), func() error {
					if _, ok, err := p.store.Get(uint32(shard), []byte(key)); err != nil || !ok {
						return fmt.Errorf("lost: %v", err)
					}
					return nil
				})
			}
		}
	}
	if total < ws.w.shards {
		t.Errorf("only %d writes were acknowledged", total)
	}
	t.Log(total, "writes were acknowledged")
}

// view asks any node.
func (w *world) view() (v View) {
	w.t.Helper()
	eventually(w.t, "a view", func() (err error) {
		for _, p := range w.all() {
			if v, err = p.agent.View(context.Background()); err == nil {
				return nil
			}
		}
		return err
	})
	return v
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(4 * time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s: %v", what, err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// settled says what a View lacks: voters of the groups, moves over, leaders and replicas spread over nodes.
func settled(v View, nodes int) error {
	leads, holds := map[uint64]int{}, map[uint64]int{}
	want := 1
	if nodes >= 3 {
		want = 3
	}
	for _, s := range v.Shards {
		n := want
		if s.Shard < 0 && nodes >= 5 {
			n = 5
		}
		if s.Move != nil || len(s.Voters) != n || s.Leader == 0 {
			return fmt.Errorf("shard %+v", s)
		}
		if s.Shard >= 0 {
			leads[s.Leader]++
			for _, n := range s.Voters {
				holds[n]++
			}
		}
	}
	for what, counts := range map[string]map[uint64]int{"leads": leads, "holds": holds} {
		if want == 1 {
			continue
		}
		all := slices.Sorted(maps.Values(counts))
		if len(all) != nodes || all[nodes-1]-all[0] > 1 {
			return fmt.Errorf("%s %v", what, counts)
		}
	}
	return nil
}

// settle waits, with clocks that run fast.
func (w *world) settle(nodes int) {
	w.t.Helper()
	began := time.Now()
	w.skew.Add(int64(steadyFor))
	eventually(w.t, fmt.Sprint("settled on ", nodes), func() error { return settled(w.view(), nodes) })
	w.t.Log(nodes, "nodes after", time.Since(began))
}

func TestGrowth(t *testing.T) {
	w := newWorld(t, 64)
	w.start(1, nil)
	w.settle(1)
	ws := w.write()
	w.start(2, nil)
	w.start(3, nil)
	w.settle(3)
	ws.check()
}

// state waits until a node is in a state.
func (w *world) state(id uint64, want NodeState) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("node %d is %v", id, want), func() error {
		for _, n := range w.view().Nodes {
			if n.ID == id && n.State == want {
				return nil
			}
		}
		return fmt.Errorf("%+v", w.view().Nodes)
	})
}

func TestToFiveAndBack(t *testing.T) {
	w := newWorld(t, 10)
	for id := range uint64(3) {
		w.start(id+1, nil)
	}
	w.settle(3)
	ws := w.write()
	w.start(4, nil)
	w.start(5, nil)
	w.settle(5)
	two := w.peer(2)
	for _, name := range []string{"n1", "n5"} { // n1 leads group 0
		if err := two.agent.Drain(context.Background(), name, true, false); err != nil {
			t.Fatal(err)
		}
	}
	w.state(1, Left)
	w.state(5, Left)
	w.settle(3)
	for _, id := range []uint64{1, 5} {
		all, err := w.peer(id).engine.Statuses()
		if err != nil || len(all) > 0 {
			t.Errorf("node %d still holds %v, %v", id, all, err)
		}
	}
	if _, err := Join(context.Background(), w.callAddr, []string{"raft-2"}, w.peer(5).self); !errors.Is(err, ErrGone) {
		t.Error("a node that left joins again:", err)
	}
	ws.check()
}

// TestReplacement loses a node for good: another takes its name and its place.
func TestReplacement(t *testing.T) {
	w := newWorld(t, 4)
	for id := range uint64(3) {
		w.start(id+1, nil)
	}
	w.settle(3)
	ws := w.write()
	two, three := w.peer(2), w.peer(3)
	ctx := context.Background()
	if err := two.agent.Remove(ctx, "n3"); !errors.Is(err, ErrAlive) {
		t.Error("removal of a live node:", err)
	}
	if err := two.agent.Remove(ctx, "n9"); !errors.Is(err, ErrNoNode) {
		t.Error("removal of nobody:", err)
	}
	taken := Node{ID: 9, Name: "n3", Raft: "raft-9"}
	if _, err := Join(ctx, w.callAddr, []string{"raft-1"}, taken); !errors.Is(err, ErrNameInUse) {
		t.Error("a name in use:", err)
	}
	three.kill()
	w.skew.Add(int64(downAfter) + int64(time.Second))
	w.state(3, Down)
	if _, err := Join(ctx, w.callAddr, []string{"raft-1"}, taken); err != nil {
		t.Error("the name of a node that is down:", err)
	}
	w.state(3, Lost)
	w.start(4, nil)
	w.settle(3)
	ws.check()
}

// TestRecovered loses two of three nodes for good: the third goes on alone, and grows with two new ones.
func TestRecovered(t *testing.T) {
	w := newWorld(t, 4)
	for id := range uint64(3) {
		w.start(id+1, nil)
	}
	w.settle(3)
	ws := w.write()
	eventually(t, "writes", func() error {
		for shard := range uint32(w.shards) {
			rows := 0
			err := w.peer(3).store.Scan(shard, nil, nil, func(_, _ []byte) bool { rows++; return true })
			if rows < 5 {
				return fmt.Errorf("%d in shard %d: %v", rows, shard, err)
			}
		}
		return nil
	})
	ws.check()
	old := w.peer(1).kill()
	w.peer(2).kill()
	disk := w.peer(3).kill()
	recoverAll(t, disk, w.shards)
	three := w.start(3, disk)
	for id := uint64(4); id <= 5; id++ {
		w.start(id, nil)
	}
	w.settle(3)
	for shard, keys := range ws.acked {
		for _, key := range keys {
			if _, ok, err := three.store.Get(uint32(shard), []byte(key)); err != nil || !ok {
				t.Errorf("shard %d: %s is lost: %v", shard, key, err)
			}
		}
	}
	more := w.write()
	w.start(1, old) // against all advice
	w.state(1, Active)
	w.settle(4)
	for _, p := range w.all() {
		all, err := p.engine.Statuses()
		for group, s := range all {
			if err != nil || s.State.Replica < 1<<20 || s.State.Generation != 2 {
				t.Errorf("node %d group %d: replica %d of generation %d, %v", p.self.ID, group, s.State.Replica, s.State.Generation, err)
			}
		}
	}
	more.check()
}

func recoverAll(t *testing.T, disk vfs.FS, shards int) {
	t.Helper()
	store, err := persistence.Open("data", persistence.Options{FS: disk, Ballast: -1, Reserve: 1, Logger: quiet, Memtable: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for group := range uint32(shards + 1) {
		if _, err := cluster.Recover(store, group, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

// forget is what a recovery of group 0 does to a node that had entered last.
type forget struct{ node uint64 }

func (forget) step() {}

func (cmd forget) apply(c *change) error {
	delete(c.Nodes, cmd.node)
	return nil
}

// TestForgottenNodeEntersAgain has group 0 lose a node that runs.
func TestForgottenNodeEntersAgain(t *testing.T) {
	w := newWorld(t, 2)
	one := w.start(1, nil)
	two := w.start(2, nil)
	w.state(2, Active)
	if err := one.agent.director.commit(t.Context(), forget{2}); err != nil {
		t.Fatal(err)
	}
	kick(two.agent.differs) // else it asks within a minute
	w.state(2, Active)
}

// ready tells whether an agent lets its node serve; told: it waits for word of the leader of group 0.
func (p *peer) ready(told bool) bool {
	p.w.t.Helper()
	if told {
		eventually(p.w.t, fmt.Sprintf("node %d is told", p.self.ID), func() error {
			p.agent.mu.Lock()
			defer p.agent.mu.Unlock()
			if p.agent.told.Term == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	return len(p.agent.NotReady()) == 0
}

// keeps waits until a node's rows of group 0 say something that outlives a power loss: the sync of a later entry covers it.
func (p *peer) keeps(so func(State) bool) {
	p.w.t.Helper()
	eventually(p.w.t, "the rows say so", func() error {
		s, err := Load(p.store)
		if err == nil && !so(s) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	eventually(p.w.t, "a later entry", func() error {
		for _, o := range p.w.all() {
			if o.put(0, "later") {
				return nil
			}
		}
		return errors.New("nobody takes it")
	})
	eventually(p.w.t, "it is here", func() error {
		if _, ok, err := p.store.Get(0, []byte("later")); err != nil || !ok {
			return fmt.Errorf("no: %v", err)
		}
		return nil
	})
}

// TestExpect follows a birth with --expect 3. No node is ready until every shard has three voters, whatever a process is
// started with; then all are, and stay so without the leader of group 0 and without voters. Writes never stop.
func TestExpect(t *testing.T) {
	w := newWorld(t, 4)
	w.expect = 3
	w.start(1, nil)
	w.settle(1)
	if w.peer(1).ready(true) {
		t.Error("one of three is ready")
	}
	ws := w.write()
	w.start(2, nil)
	w.state(2, Active)
	if w.peer(1).ready(true) || w.peer(2).ready(true) {
		t.Error("two of three are ready")
	}
	w.expect = 0
	if one := w.start(1, w.peer(1).kill()); one.ready(false) || one.ready(true) {
		t.Error("started again without --expect, one of two is ready")
	}
	w.expect = 3
	w.start(3, nil)
	w.settle(3)
	eventually(t, "all are ready", func() error {
		for _, p := range w.all() {
			if !p.ready(true) {
				return fmt.Errorf("node %d is not: %v", p.self.ID, p.agent.NotReady())
			}
		}
		return nil
	})
	ws.check()
	w.peer(1).keeps(func(s State) bool { return s.Cluster.Whole })

	disk := w.peer(1).kill()
	w.peer(2).kill()
	w.peer(3).kill()
	if !w.start(1, disk).ready(false) {
		t.Error("started again, it is not ready: no leader of group 0 is there, and it need not ask one")
	}
}

// TestLatch asks the planner when a birth with --expect is whole: its shards count, group 0 does not.
func TestLatch(t *testing.T) {
	for expect, want := range map[int]int{0: 0, 1: 1, 2: 1, 3: 3, 5: 3} { // 0: it never needs it
		for voters := 1; voters <= 3; voters++ {
			s := State{Cluster: Cluster{ID: "c", Shards: 2, Expect: expect}, Groups: []Group{{}, {}, {}}}
			for id := range uint64(voters) {
				s.Groups[2].Replicas = append(s.Groups[2].Replicas, Replica{ID: id + 1, Node: id + 1, Voter: true})
			}
			for id := range uint64(3) { // of the other shard, one is a learner while it grows
				s.Groups[1].Replicas = append(s.Groups[1].Replicas, Replica{ID: id + 1, Node: id + 1, Voter: id < 2 || voters == 3})
			}
			latched := slices.Contains(Plan(s, Reports{}, time.Unix(1_700_000_000, 0)), Step(Latch{}))
			if latched != (want > 0 && voters >= want) {
				t.Errorf("--expect %d, %d voters: latched: %v", expect, voters, latched)
			}
		}
	}
}
