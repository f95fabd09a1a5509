package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// leaver is a shell that has something to send before a leadership goes.
type leaver struct {
	*testNode
	mu    sync.Mutex
	told  []Leaving
	calls func(ready func())
}

func (l *leaver) Leaving(shard uint32, term, to uint64, ready func()) {
	if !l.isOpen(shard) {
		l.t.Errorf("node %d: leaving shard %d, which is not open", l.id, shard)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, Leaving{shard, term, to})
	l.calls(ready)
}

// pauses measures, for each shard, the time between Closed at one node and Opened at another.
type pauses struct {
	Leading
	mu     *sync.Mutex
	closed map[uint32]time.Time
	took   *[]time.Duration
}

func (p pauses) Opened(shard uint32, term, generation uint64, at int64) {
	p.Leading.Opened(shard, term, generation, at)
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.closed[shard]; ok {
		*p.took = append(*p.took, time.Since(was))
		delete(p.closed, shard)
	}
}

func (p pauses) Closed(shard uint32, term uint64) {
	p.mu.Lock()
	p.closed[shard] = time.Now()
	p.mu.Unlock()
	p.Leading.Closed(shard, term)
}

// TestRollingHandOver stops each of three nodes under load, leaderships first.
func TestRollingHandOver(t *testing.T) {
	const shards = 16
	mu, at, took := &sync.Mutex{}, map[uint32]time.Time{}, &[]time.Duration{}
	c := newCluster(t, 3, 3, shards, nil)
	for _, n := range c.nodes {
		n.config = func(cfg *EngineConfig) { cfg.Leading = pauses{n, mu, at, took} }
	}
	c.start()
	for shard := range uint32(shards) {
		c.leader(shard)
	}
	w := c.write(8)
	mu.Lock()
	*took = nil
	mu.Unlock()
	for _, n := range c.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := n.engine.HandOver(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		for shard := range uint32(shards) {
			c.leader(shard, n)
		}
		n.stop()
		n.start(shards, nil)
		eventually(t, "back", func() bool { return len(n.engine.NotReady()) == 0 })
	}
	w.check(t, c.nodes...)
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(*took)
	t.Logf("%d planned transfers, pause p50 %v, p99 %v, max %v", len(*took), (*took)[len(*took)/2], (*took)[len(*took)*99/100], (*took)[len(*took)-1])
}

func TestHandOverAlone(t *testing.T) {
	c := newCluster(t, 1, 1, 2, nil).start()
	n := c.leader(0)
	if err := n.engine.HandOver(t.Context()); err != nil {
		t.Error("nobody else could lead:", err)
	}
	c.put(0, "k", "v")
	if why := n.engine.NotReady(); len(why) != 1 {
		t.Errorf("not ready because of %q", why)
	}
}

func TestHandOverGivesUp(t *testing.T) {
	c := newCluster(t, 3, 3, 1, nil).start()
	n := c.leader(0)
	for _, p := range c.nodes {
		if p != n {
			p.stop()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.engine.HandOver(ctx); !errors.Is(err, context.Canceled) && n.isOpen(0) {
		t.Error(err)
	}
}

// TestLeaverIsTold transfers with a shell that says when it is done, and with one that never does.
func TestLeaverIsTold(t *testing.T) {
	for name, calls := range map[string]func(func()){
		"done": func(ready func()) { go ready() }, "twice": func(ready func()) { ready(); ready() }, "never": func(func()) {},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3, 3, 1, nil)
			shells := map[uint64]*leaver{}
			for _, n := range c.nodes {
				l := &leaver{testNode: n, calls: calls}
				shells[n.id] = l
				n.config = func(cfg *EngineConfig) { cfg.Leading = l }
			}
			c.start()
			var n *testNode
			var told []Leaving
			eventually(t, "told", func() bool {
				n = c.leader(0)
				_ = n.engine.Transfer(0, n.id%3+1)
				l := shells[n.id]
				l.mu.Lock()
				defer l.mu.Unlock()
				told = slices.Clone(l.told)
				return len(told) > 0
			})
			if told[0].To != n.id%3+1 || told[0].Shard != 0 || told[0].Term == 0 {
				t.Errorf("told %v", told)
			}
			c.leader(0, n)
		})
	}
}

// TestFewTransfersAtATime counts what is under way while a node yields: one is begun every 50 ms; four at once if it
// can write nothing.
func TestFewTransfersAtATime(t *testing.T) {
	s, _ := lead(t, HostConfig{Farewell: true})
	h := s.host
	for id := uint32(10); id < 20; id++ { // more groups that it leads: the one there is, again
		g := *h.groups[1]
		g.id = id
		h.order = append(h.order, &g)
	}
	h.Wake(h.now + giveEvery)
	under := func(want int, when string) {
		t.Helper()
		n := 0
		for _, g := range h.order {
			if g.departing() {
				n++
			}
		}
		if n != want {
			t.Errorf("%d transfers under way %s, want %d", n, when, want)
		}
	}
	h.Yield(true)
	under(1, "at once")
	h.Wake(h.now + giveEvery - 1)
	under(1, "before the next is due")
	h.Wake(h.now + 1)
	under(2, "when it is due")
	h.Refuse("no room")
	under(maxTransfers, "when nothing can be written")
}

// TestPing asks a loop that works and one whose disk hangs.
func TestPing(t *testing.T) {
	hold, hangs := make(chan struct{}), make(chan struct{})
	armed := make(chan bool, 1)
	c := newCluster(t, 1, 1, 1, func(cfg *EngineConfig) {
		cfg.Failpoint = func(p Failpoint) bool {
			if p != BeforeAppend {
				return false
			}
			select {
			case <-armed:
				close(hangs)
				<-hold
			default:
			}
			return false
		}
	}).start()
	n := c.leader(0)
	pongs := make(chan string, 2)
	n.engine.Ping(func() { pongs <- "works" })
	if p := <-pongs; p != "works" {
		t.Error(p)
	}
	armed <- true
	if _, err := n.propose(0, "k", "v"); err != nil {
		t.Fatal(err)
	}
	<-hangs
	n.engine.Ping(func() { pongs <- "hung" })
	select {
	case p := <-pongs:
		t.Errorf("a loop that hangs answers %q", p)
	default:
	}
	close(hold)
	if p := <-pongs; p != "hung" {
		t.Error(p)
	}
}
