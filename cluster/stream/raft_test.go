package stream

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"muster/cluster"
	"muster/persistence"
)

// core is an engine over a Net.
type core struct {
	t         testing.TB
	id        uint64
	fs        *vfs.MemFS
	store     *persistence.Store
	net       *node
	transport cluster.Transport

	mu     sync.Mutex
	engine *cluster.Engine
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

func (c *core) start(addr string, shards int, members []persistence.Member, change ...func(*Config)) {
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
		Host:  cluster.HostConfig{LogEntries: 64},
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

func startCores(t testing.TB, count, shards int) (cs cores, members []persistence.Member) {
	for i := range count {
		id := uint64(i + 1)
		cs = append(cs, &core{t: t, id: id, fs: vfs.NewCrashableMem()})
		members = append(members, persistence.Member{Replica: id, Node: id})
	}
	t.Cleanup(func() {
		for _, c := range cs {
			c.kill()
		}
	})
	var nodes []*node
	for _, c := range cs {
		c.start("", shards, members)
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
	victim.start("", shards, members)
	join(t, cs[0].net, cs[1].net, cs[2].net)
	eventually(t, "caught up", func() bool { return victim.has(0, "k299") && victim.has(0, "before") })
	cs.put(t, 0, "after", "v")
	for _, c := range cs {
		eventually(t, "replicated", func() bool { return c.has(0, "after") })
	}
	status, err := victim.engine.Status(1)
	if err != nil || status.State.Applied < 300 {
		t.Error(status, err)
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
