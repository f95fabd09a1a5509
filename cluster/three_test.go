package cluster

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"muster/persistence"
)

func TestThreeNodesReplicate(t *testing.T) {
	c := newCluster(t, 3, 3, 8, nil).start()
	for i := range 50 {
		c.put(uint32(i%8), fmt.Sprint("k", i), "v")
	}
	for _, n := range c.nodes {
		for i := range 50 {
			eventually(t, fmt.Sprintf("node %d has k%d", n.id, i), func() bool { return n.get(uint32(i%8), fmt.Sprint("k", i)) == "v" })
		}
		eventually(t, "ready", func() bool { return len(n.engine.NotReady()) == 0 })
	}
	n := c.leader(2)
	done := make(chan error, 1)
	n.engine.ReadIndex(2, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Error("ReadIndex at the leader:", err)
	}
	other := c.nodes[n.id%3]
	other.engine.ReadIndex(2, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, ErrNotLeader) {
		t.Error("ReadIndex elsewhere:", err)
	}
	if err := n.engine.Transfer(2, other.id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "transferred", func() bool { return other.isOpen(2) && !n.isOpen(2) })
	c.put(2, "after", "v")
}

// Replicas that applied the same have the same rows; a row that one of them has lost or changed is found.
func TestReplicasAreEqual(t *testing.T) {
	c := newCluster(t, 3, 3, 4, nil).start()
	for i := range 100 {
		c.put(uint32(i%4), fmt.Sprint("k", i), fmt.Sprint("v", i))
	}
	digest := func(n *testNode, group uint32) string {
		snap, err := n.store.Snapshot(group)
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
		hash, rows, err := snap.Digest(t.Context())
		if err != nil || rows == 0 {
			t.Fatalf("group %d has %d rows: %v", group, rows, err)
		}
		return fmt.Sprintf("after %d: %x", snap.State.Applied, hash)
	}
	for group := uint32(1); group <= 4; group++ {
		eventually(t, "one hash", func() bool {
			first := digest(c.nodes[0], group)
			return first == digest(c.nodes[1], group) && first == digest(c.nodes[2], group)
		})
	}
	for _, n := range c.nodes {
		n.engine.Stop()
	}
	good := digest(c.nodes[1], 2)
	for _, change := range []persistence.Op{{Key: []byte("k1"), Value: []byte("v2")}, {Key: []byte("k5")}} {
		if err := c.nodes[0].store.Write([]persistence.Update{{Group: 2, Ops: []persistence.Op{change}}}, false); err != nil {
			t.Fatal(err)
		}
		if bad := digest(c.nodes[0], 2); bad == good {
			t.Errorf("%s changed, and the hash did not", change.Key)
		}
	}
}

// writers write to all shards and remember what was acknowledged.
type writers struct {
	c     *testCluster
	acked sync.Map // shard/key → true
	count atomic.Int64
	stop  chan struct{}
	wg    sync.WaitGroup
}

func (c *testCluster) write(n int) *writers {
	w := &writers{c: c, stop: make(chan struct{})}
	for i := range n {
		w.wg.Go(func() {
			for seq := 0; ; seq++ {
				select {
				case <-w.stop:
					return
				default:
				}
				shard, key := uint32(i%c.shards), fmt.Sprintf("%d-%d", i, seq)
				for _, node := range c.nodes {
					if node.put(shard, key, key) == nil {
						w.acked.Store([2]any{shard, key}, true)
						w.count.Add(1)
						break
					}
				}
			}
		})
	}
	return w
}

// check ends the writers and finds everything acknowledged on every node.
func (w *writers) check(t *testing.T, nodes ...*testNode) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	if w.count.Load() == 0 {
		t.Fatal("nothing was acknowledged")
	}
	w.acked.Range(func(k, _ any) bool {
		shard, key := k.([2]any)[0].(uint32), k.([2]any)[1].(string)
		for _, n := range nodes {
			eventually(t, fmt.Sprintf("node %d has %s of shard %d", n.id, key, shard), func() bool { return n.get(shard, key) == key })
		}
		return true
	})
}

func TestLeaderCrashAtFailpoints(t *testing.T) {
	for _, at := range []Failpoint{BeforeAppend, AfterAppendBeforeSend, AfterCommitBeforeAck, BeforeTransfer} {
		t.Run(string(at), func(t *testing.T) {
			var armed atomic.Pointer[testNode]
			died := make(chan uint64, 1)
			c := newCluster(t, 3, 3, 4, nil)
			for _, n := range c.nodes {
				n.config = func(cfg *EngineConfig) {
					cfg.Failpoint = func(p Failpoint) bool {
						if p == at && armed.CompareAndSwap(n, nil) {
							died <- n.id
							return true
						}
						return false
					}
				}
			}
			c.start()
			for shard := range uint32(4) {
				c.leader(shard)
			}
			w := c.write(8)
			for round := range 3 {
				victim := c.leader(uint32(round))
				armed.Store(victim)
				if at == BeforeTransfer {
					_ = victim.engine.Transfer(uint32(round), 0)
				}
				if id := <-died; id != victim.id {
					t.Fatalf("node %d died, not %d", id, victim.id)
				}
				began := time.Now()
				victim.crash()
				c.leader(uint32(round), victim)
				t.Logf("writable after %v, %d acknowledged", time.Since(began), w.count.Load())
				victim.start(4, nil)
			}
			w.check(t, c.nodes...)
		})
	}
}

func TestPartitionFence(t *testing.T) {
	c := newCluster(t, 3, 3, 4, func(cfg *EngineConfig) { cfg.Host.Lease = 0 }).start()
	w := c.write(8)
	for round := range 3 {
		victim := c.leader(uint32(round))
		c.mesh.Isolate(victim.id)
		read := make(chan error, 1)
		victim.engine.ReadIndex(uint32(round), func(err error) { read <- err })
		eventually(t, "the majority leads", func() bool {
			for _, n := range c.nodes {
				if n != victim && n.isOpen(uint32(round)) {
					return true
				}
			}
			return false
		})
		eventually(t, "the minority closes", func() bool { return !victim.isOpen(uint32(round)) })
		if err := <-read; !errors.Is(err, ErrNotLeader) {
			t.Errorf("a linearizable read in the minority: %v", err)
		}
		c.mesh.Heal()
	}
	w.check(t, c.nodes...)
}

func TestLostMessages(t *testing.T) {
	c := newCluster(t, 3, 3, 4, nil).start()
	c.mesh.Drop(0.05)
	c.mesh.Delay(time.Millisecond)
	w := c.write(8)
	eventually(t, "500 acknowledged", func() bool { return w.count.Load() > 500 })
	c.mesh.Heal()
	w.check(t, c.nodes...)
}

func TestSlowFollowerGetsSnapshot(t *testing.T) {
	ingests := atomic.Int64{}
	c := newCluster(t, 3, 3, 2, func(cfg *EngineConfig) {
		cfg.Host.LogEntries = 64
		cfg.Failpoint = func(p Failpoint) bool {
			if p == MidSnapshotIngest {
				ingests.Add(1)
			}
			return false
		}
	}).start()
	slow := c.nodes[2]
	c.put(0, "before", "v")
	slow.crash()
	for i := range 300 {
		c.put(0, fmt.Sprint("k", i), strings.Repeat("x", 100))
	}
	slow.start(2, nil)
	eventually(t, "caught up", func() bool { return slow.get(0, "k299") != "-" && slow.get(0, "before") == "v" })
	eventually(t, "a snapshot was ingested", func() bool { return ingests.Load() > 0 })
	c.put(0, "after", "v")
	eventually(t, "follows", func() bool { return slow.get(0, "after") == "v" })
	equalHashes(t, c, 1)
}

// TestSnapshotStreamBreaks lets most snapshots end in the middle: they are sent again.
func TestSnapshotStreamBreaks(t *testing.T) {
	c := newCluster(t, 3, 3, 1, func(cfg *EngineConfig) { cfg.Host.LogEntries = 64 }).start()
	slow := c.nodes[2]
	c.leader(0)
	c.mesh.Isolate(slow.id)
	for i := range 300 {
		c.put(0, fmt.Sprint("k", i), strings.Repeat("x", 1000))
	}
	broken := atomic.Int64{}
	c.mesh.Heal()
	c.mesh.Break(func(m Message, written int64) bool {
		if written > 4096 && broken.Load() < 3 {
			broken.Add(1)
			return true
		}
		return false
	})
	eventually(t, "caught up", func() bool { return slow.get(0, "k299") != "-" })
	if broken.Load() != 3 {
		t.Errorf("%d streams broke", broken.Load())
	}
	equalHashes(t, c, 1)
}

// equalHashes waits until all nodes have applied the same and compares the hashes.
func equalHashes(t *testing.T, c *testCluster, group uint32) {
	t.Helper()
	eventually(t, "equal", func() bool {
		var first persistence.State
		for i, n := range c.nodes {
			s, err := n.engine.Status(group)
			if err != nil {
				return false
			}
			if i == 0 {
				first = s.State
			}
			if s.State.Applied != first.Applied {
				return false
			}
			if s.State.Hash != first.Hash {
				t.Fatalf("node %d: hash %x, node 1: %x", n.id, s.State.Hash, first.Hash)
			}
		}
		return true
	})
}

func TestCrashMidSnapshotIngest(t *testing.T) {
	var armed atomic.Bool
	died := make(chan struct{}, 1)
	c := newCluster(t, 3, 3, 2, func(cfg *EngineConfig) {
		cfg.Host.LogEntries = 64
		cfg.Failpoint = func(p Failpoint) bool {
			if p == MidSnapshotIngest && armed.CompareAndSwap(true, false) {
				died <- struct{}{}
				return true
			}
			return false
		}
	}).start()
	slow := c.nodes[2]
	c.put(0, "before", "v")
	slow.crash()
	for i := range 300 {
		c.put(0, fmt.Sprint("k", i), "v")
	}
	armed.Store(true)
	slow.start(2, nil)
	<-died
	slow.crash()
	slow.start(2, nil)
	eventually(t, "caught up", func() bool { return slow.get(0, "k299") == "v" })
	equalHashes(t, c, 1)
}

func TestGrowAndRemove(t *testing.T) {
	c := newCluster(t, 3, 1, 2, nil).start()
	for i := range 200 {
		c.put(0, fmt.Sprint("k", i), "v")
	}
	one := c.nodes[0]
	conf := func() Change {
		s, err := one.engine.Status(1)
		if err != nil {
			t.Fatal(err)
		}
		return Change{From: s.State.Conf}
	}
	stale := conf()
	stale.Promote = []uint64{2}
	if err := one.engine.Change(1, stale); !errors.Is(err, ErrBadPlan) {
		t.Error("promotion of nobody:", err)
	}
	add := conf()
	add.Add = []persistence.Member{{Replica: 2, Node: 2}, {Replica: 3, Node: 3}}
	if err := one.engine.Change(1, add); err != nil {
		t.Fatal(err)
	}
	eventually(t, "added", func() bool { return len(conf().From.GetLearners()) == 2 && !joint(conf().From) })
	promote := conf()
	promote.Promote = []uint64{2, 3}
	if err := one.engine.Change(1, promote); !errors.Is(err, ErrNotCaught) {
		t.Error("promotion of learners that do not exist yet:", err)
	}
	if err := one.engine.Change(1, stale); !errors.Is(err, ErrStalePlan) {
		t.Error("a plan of another configuration:", err)
	}
	for _, n := range c.nodes[1:] {
		if err := n.engine.Create(1, n.id); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "promoted", func() bool { return one.engine.Change(1, promote) == nil })
	eventually(t, "three voters", func() bool { return len(conf().From.GetVoters()) == 3 && !joint(conf().From) })
	for _, n := range c.nodes {
		eventually(t, "replicated", func() bool { return n.get(0, "k199") == "v" })
	}
	remove := conf()
	remove.Remove = []uint64{3}
	if err := one.engine.Change(1, remove); err != nil {
		t.Fatal(err)
	}
	eventually(t, "removed", func() bool { return len(conf().From.GetVoters()) == 2 && !joint(conf().From) })
	three := c.nodes[2]
	if err := three.engine.Destroy(1, 4); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { _, err := three.engine.Status(1); return errors.Is(err, ErrNoGroup) })
	if err := three.engine.Create(1, 3); !errors.Is(err, ErrRetired) {
		t.Error("a used replica id:", err)
	}
	if three.get(0, "k199") != "-" {
		t.Error("rows outlive their replica")
	}
	again := conf()
	again.Add = []persistence.Member{{Replica: 3, Node: 3}}
	if err := one.engine.Change(1, again); !errors.Is(err, ErrRetired) {
		t.Error("a used replica id in a plan:", err)
	}
	again.Add[0].Replica = 4
	if err := one.engine.Change(1, again); err != nil {
		t.Fatal(err)
	}
	if err := three.engine.Create(1, 4); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back", func() bool { return three.get(0, "k199") == "v" })
}

func TestDiskLow(t *testing.T) {
	var low [4]atomic.Bool
	c := newCluster(t, 3, 3, 4, nil)
	for _, n := range c.nodes {
		n.config = func(cfg *EngineConfig) {
			cfg.Room = func() (uint64, bool) { return 1, low[n.id].Load() }
			cfg.Tick = 20 * time.Millisecond
		}
	}
	c.start()
	n := c.leader(0)
	low[n.id].Store(true)
	eventually(t, "leaderships are given away", func() bool {
		for shard := range uint32(4) {
			if n.isOpen(shard) {
				return false
			}
		}
		return true
	})
	if why := n.engine.NotReady(); len(why) == 0 || !strings.Contains(why[0], "disk") {
		t.Errorf("not ready because of %q", why)
	}
	for shard := range uint32(4) {
		c.leader(shard, n)
		c.put(shard, "k", "v")
	}
	low[n.id].Store(false)
	eventually(t, "ready again", func() bool { return len(n.engine.NotReady()) == 0 })
}

func TestDiskLowSingleNode(t *testing.T) {
	var low atomic.Bool
	c := newCluster(t, 1, 1, 2, func(cfg *EngineConfig) {
		cfg.Room = func() (uint64, bool) { return 1, low.Load() }
		cfg.Tick = 20 * time.Millisecond
	}).start()
	n := c.leader(0)
	c.put(0, "k", "v")
	low.Store(true)
	eventually(t, "refused", func() bool { return errors.Is(n.put(0, "k", "w"), ErrNoRoom) })
	if !n.isOpen(0) {
		t.Error("a sole voter must go on answering reads")
	}
	low.Store(false)
	c.put(0, "k", "x")
}

func TestOnDisk(t *testing.T) {
	n := &testNode{t: t, id: 1, dir: t.TempDir(), log: newAudit(t)}
	members := []persistence.Member{{Replica: 1, Node: 1}}
	n.start(4, members)
	eventually(t, "open", func() bool { return n.isOpen(1) })
	if err := n.put(1, "k", "v"); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.start(4, members)
	eventually(t, "open", func() bool { return n.isOpen(1) })
	if n.get(1, "k") != "v" {
		t.Error("lost")
	}
	if err := Birth(n.store, 4, members, time.Now()); err == nil {
		t.Error("a second birth")
	}
	n.stop()
}

// TestTransferKeepsProposals moves leaderships about under load: within a term every proposal
// is acknowledged in order, and the pause is short.
func TestTransferKeepsProposals(t *testing.T) {
	c := newCluster(t, 3, 3, 2, nil).start()
	c.leader(0)
	c.leader(1)
	w := c.write(8)
	for range 10 {
		n := c.leader(0)
		began := time.Now()
		if err := n.engine.Transfer(0, 0); err != nil {
			continue
		}
		c.leader(0, n)
		if d := time.Since(began); d > time.Second {
			t.Errorf("a transfer took %v", d)
		}
	}
	w.check(t, c.nodes...)
}

// TestBusy holds the loop, so that nothing leaves, and proposes until there is too much in flight.
func TestBusy(t *testing.T) {
	hold, armed := make(chan struct{}), atomic.Bool{}
	c := newCluster(t, 1, 1, 2, func(cfg *EngineConfig) {
		cfg.Host.ShardInFlight, cfg.Host.TotalInFlight = 100_000, 150_000
		cfg.Failpoint = func(p Failpoint) bool {
			if p == BeforeAppend && armed.Load() {
				<-hold
			}
			return false
		}
	}).start()
	n := c.leader(0)
	c.leader(1)
	armed.Store(true)
	fill := func(shard uint32) (acks []chan uint64) {
		for {
			ch, err := n.propose(shard, fmt.Sprint("k", len(acks)), strings.Repeat("x", 10_000))
			if errors.Is(err, ErrBusy) {
				return acks
			}
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ch)
		}
	}
	zero, one := fill(0), fill(1)
	if len(zero) != 9 || len(one) != 5 {
		t.Errorf("%d and %d proposals in flight", len(zero), len(one))
	}
	armed.Store(false)
	close(hold)
	for _, ch := range append(zero, one...) {
		if _, ok := <-ch; !ok {
			t.Error("a proposal was lost")
		}
	}
	if err := n.put(0, "k", "v"); err != nil {
		t.Error(err)
	}
}
