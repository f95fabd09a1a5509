package stream

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/cluster"
	"muster/persistence"
	"muster/persistence/memdisk"
)

// core is an engine over a Net.
type core struct {
	t         testing.TB
	id        uint64
	fs        *memdisk.Disk
	store     *persistence.Store
	net       *node
	transport cluster.Transport

	mu     sync.Mutex
	engine *cluster.Engine
	taken  atomic.Int64 // snapshots
	open   map[uint32]uint64
	seqs   map[uint32]uint64
	acks   map[[2]uint64]chan bool
}

func (c *core) Opened(shard uint32, term, _ uint64, _ int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[shard], c.seqs[shard] = term, 0
}

func (c *core) Closed(shard uint32, _ uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, shard)
	for k, ch := range c.acks {
		if k[0] == uint64(shard) {
			ch <- false
			delete(c.acks, k)
		}
	}
}

func (c *core) Committed(shard uint32, _, seq, _ uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, ch := range c.acks {
		if k[0] == uint64(shard) && k[1] <= seq {
			ch <- true
			delete(c.acks, k)
		}
	}
}

// put writes a row if the shard is open here, and says whether it was committed.
func (c *core) put(shard uint32, key, value string) bool {
	c.mu.Lock()
	term, engine := c.open[shard], c.engine
	seq, ch := c.seqs[shard]+1, make(chan bool, 1)
	if term == 0 || engine == nil {
		c.mu.Unlock()
		return false
	}
	c.acks[[2]uint64{uint64(shard), seq}] = ch
	err := engine.Propose(shard, term, seq, time.Now().UnixMilli(), []persistence.Op{{Key: []byte(key), Value: []byte(value)}})
	if err == nil {
		c.seqs[shard] = seq
	} else {
		delete(c.acks, [2]uint64{uint64(shard), seq})
	}
	c.mu.Unlock()
	if err != nil {
		return false
	}
	select {
	case ok := <-ch:
		return ok
	case <-time.After(10 * time.Second):
		return false
	}
}

func (c *core) has(shard uint32, key string) bool {
	_, ok, err := c.store.Get(shard, []byte(key))
	return err == nil && ok
}

func (c *core) isOpen(shard uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[shard] != 0
}

var quietLog = slog.New(slog.DiscardHandler)

func (c *core) start(shards int, members []persistence.Member, change ...func(*Config)) {
	c.t.Helper()
	store, err := persistence.Open("data", persistence.Options{
		FS: c.fs, Create: &persistence.Identity{Node: c.id, Cluster: "c"}, Ballast: -1, Reserve: 1, Logger: quietLog, Memtable: 4 << 20,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	if groups, err := store.Groups(); err != nil || len(groups) == 0 {
		if err := cluster.Birth(store, shards, members, time.Unix(1_700_000_000, 0)); err != nil {
			c.t.Fatal(err)
		}
	}
	c.store, c.open, c.seqs, c.acks = store, map[uint32]uint64{}, map[uint32]uint64{}, map[[2]uint64]chan bool{}
	change = append(change, func(cfg *Config) {
		cfg.Self.Incarnation = uint64(time.Now().UnixNano())
		cfg.Ping = func(_ uint64, pong func()) { pong() }
	})
	c.net = startNode(c.t, c.id, change...)
	c.transport = Raft(c.net.Net)
	engine, err := cluster.Start(cluster.EngineConfig{
		Node: c.id, Store: store, Leading: c, Logger: quietLog, Transport: c.transport,
		Host: cluster.HostConfig{LogEntries: 64},
		Failpoint: func(p cluster.Failpoint) bool {
			if p == cluster.MidSnapshotIngest {
				c.taken.Add(1)
			}
			return false
		},
		Fatal: func(err error) { c.t.Errorf("node %d: %v", c.id, err) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.engine = engine
	c.mu.Unlock()
}

// kill ends the connections first, as the kernel does for a process that was killed.
func (c *core) kill() {
	if c.engine == nil {
		return
	}
	c.net.Stop()
	c.engine.Stop()
	c.transport.Stop()
	_ = c.store.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.engine = nil
	clear(c.open)
}

type cores []*core

func startCores(t testing.TB, count, shards int, change ...func(*Config)) (cs cores, members []persistence.Member) {
	for i := range count {
		id := uint64(i + 1)
		cs = append(cs, &core{t: t, id: id, fs: memdisk.New()})
		members = append(members, persistence.Member{Replica: id, Node: id})
	}
	t.Cleanup(func() {
		for _, c := range cs {
			c.kill()
		}
	})
	var nodes []*node
	for _, c := range cs {
		c.start(shards, members, change...)
		nodes = append(nodes, c.net)
	}
	join(t, nodes...)
	return cs, members
}

func (cs cores) put(t testing.TB, shard uint32, key, value string) {
	t.Helper()
	eventually(t, "put "+key, func() bool {
		for _, c := range cs {
			if c.put(shard, key, value) {
				return true
			}
		}
		return false
	})
}

func (cs cores) leader(t testing.TB, shard uint32) (leader *core) {
	t.Helper()
	eventually(t, fmt.Sprint("shard ", shard, " is open"), func() bool {
		for _, c := range cs {
			if c.isOpen(shard) {
				leader = c
				return true
			}
		}
		return false
	})
	return leader
}

func (cs cores) without(c *core) (rest cores) {
	for _, o := range cs {
		if o != c {
			rest = append(rest, o)
		}
	}
	return rest
}

// TestThreeCores commits over mTLS, loses a leader, and lets it catch up by a snapshot.
func TestThreeCores(t *testing.T) {
	const shards = 4
	cs, members := startCores(t, 3, shards)
	for shard := range uint32(shards) {
		cs.put(t, shard, "before", "v")
	}
	victim := cs.leader(t, 0)
	rest := cs.without(victim)
	began := time.Now()
	victim.kill()
	rest.leader(t, 0)
	t.Log("a new leader after", time.Since(began))
	for i := range 300 {
		rest.put(t, 0, fmt.Sprint("k", i), strings.Repeat("x", 1000))
	}
	victim.start(shards, members)
	join(t, cs[0].net, cs[1].net, cs[2].net)
	eventually(t, "caught up", func() bool { return victim.has(0, "k299") && victim.has(0, "before") })
	cs.put(t, 0, "after", "v")
	for _, c := range cs {
		eventually(t, "replicated", func() bool { return c.has(0, "after") })
	}
	if victim.taken.Load() == 0 {
		t.Error("it caught up without a snapshot")
	}
}

// TestBlackHole cuts a leader off without closing anything.
func TestBlackHole(t *testing.T) {
	const shards = 2
	cs, _ := startCores(t, 3, shards, func(cfg *Config) { cfg.Silence = 700 * time.Millisecond })
	proxies := map[[2]uint64]*proxy{}
	for _, c := range cs {
		var far []Peer
		for _, o := range cs {
			p := o.net.self
			if c.id < o.id {
				proxies[[2]uint64{c.id, o.id}] = startProxy(t, p.Addr)
				p.Addr = proxies[[2]uint64{c.id, o.id}].addr()
			}
			far = append(far, p)
		}
		c.net.SetPeers(nil)
		c.net.SetPeers(far)
	}
	cs.put(t, 0, "before", "v")
	victim := cs.leader(t, 0)
	rest := cs.without(victim)
	for pair, p := range proxies {
		if pair[0] == victim.id || pair[1] == victim.id {
			p.hang()
		}
	}
	began := time.Now()
	rest.leader(t, 0)
	t.Log("a new leader after", time.Since(began))
	rest.put(t, 0, "meanwhile", "v")
	eventually(t, "the minority closes", func() bool { return !victim.isOpen(0) })
	for _, p := range proxies {
		p.resume()
	}
	eventually(t, "healed", func() bool { return victim.has(0, "meanwhile") })
	cs.put(t, 0, "after", "v")
}

// events is a Receiver that remembers.
type events struct {
	mu   sync.Mutex
	seen []string
	gate chan struct{} // Receive waits for it
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, fmt.Sprintf(format, args...))
}

func (e *events) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.seen...)
}

func (e *events) count(what string) (n int) {
	for _, s := range e.list() {
		if s == what {
			n++
		}
	}
	return n
}

func (e *events) Receive(from uint64, ms []cluster.Message) {
	e.add("receive %d", from)
	<-e.gate
	e.add("received %d", from)
}

func (e *events) ReceiveSnapshot(uint64, cluster.Message, io.Reader) error { return nil }
func (e *events) Reset(node uint64)                                        { e.add("reset %d", node) }
func (e *events) Silent(node uint64)                                       { e.add("silent %d", node) }
func (e *events) Connected(node uint64)                                    { e.add("connected %d", node) }

func TestSuspicionComesAfterMessages(t *testing.T) {
	a, b := startNode(t, 1), startNode(t, 2)
	seen := &events{gate: make(chan struct{})}
	Raft(a.Net).Start(seen)
	from := Raft(b.Net)
	from.Start(&events{})
	join(t, a, b)
	from.Send(1, []cluster.Message{{Group: 1, From: 2, To: 1, Raft: &raftpb.Message{}}})
	eventually(t, "received", func() bool { return seen.count("receive 2") == 1 })
	b.Stop()
	eventually(t, "the connection is gone", func() bool { return !a.Connected(2) })
	for range 100 { // time enough to be wrong in
		if a.probe(b.self.Addr) && seen.count("reset 2") > 0 {
			t.Fatal("suspected while a message is being received")
		}
	}
	close(seen.gate)
	eventually(t, "suspected", func() bool { return seen.count("reset 2") == 1 })
	want := []string{"connected 2", "receive 2", "received 2", "reset 2"}
	if got := seen.list(); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestHungPeerIsSuspectedUntilItAnswers: a new connection to a node whose loop hangs is no sign of life.
func TestHungPeerIsSuspectedUntilItAnswers(t *testing.T) {
	var hung atomic.Bool
	a := startNode(t, 1, func(cfg *Config) { cfg.Silence = 700 * time.Millisecond })
	b := startNode(t, 2, func(cfg *Config) {
		cfg.Ping = func(_ uint64, pong func()) {
			if !hung.Load() {
				pong()
			}
		}
	})
	seen := &events{}
	Raft(a.Net).Start(seen)
	join(t, a, b)
	eventually(t, "connected", func() bool { return seen.count("connected 2") > 0 })
	ups := a.was("up 2")
	last := func() string { got := seen.list(); return got[len(got)-1] }
	hung.Store(true)
	eventually(t, "suspected, on a new connection", func() bool { return a.was("up 2") > ups && a.Connected(2) && last() == "silent 2" })
	hung.Store(false)
	eventually(t, "trusted again", func() bool { return last() == "connected 2" })
}

func TestRestartIsSuspicious(t *testing.T) {
	n, seen := startNode(t, 1), &events{}
	r := Raft(n.Net).(*raftPort)
	r.Start(seen)
	p := &peer{net: n.Net, node: 2, alive: alive{live: true}}
	r.update(p, &epoch{peer: Peer{Node: 2, Incarnation: 1}}, false)
	r.update(p, &epoch{peer: Peer{Node: 2, Incarnation: 1}}, false)
	r.update(p, &epoch{peer: Peer{Node: 2, Incarnation: 2}}, false)
	want := []string{"connected 2", "connected 2", "reset 2", "connected 2"}
	if got := seen.list(); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestRaftDecodes(t *testing.T) {
	for _, b := range [][]byte{{1}, {1, 5, 0}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}, {1, 2, 0xff, 0xff}} {
		if _, err := decode(b, 1, 2); err == nil {
			t.Errorf("%x was decoded", b)
		}
	}
	if ms, err := decode([]byte{3, 0}, 1, 2); err != nil || len(ms) != 1 || ms[0].Group != 3 || ms[0].From != 1 || ms[0].To != 2 {
		t.Error(ms, err)
	}
	if _, err := decode(nil, 1, 2); err != nil {
		t.Error(err)
	}
}
