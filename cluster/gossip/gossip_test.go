package gossip

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		// memberlist's goroutines end some seconds after Shutdown, with their timeouts.
		var err error
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if err = goleak.Find(); err == nil {
				break
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// bubble runs f in virtual time and then lets memberlist's last timers run out.
func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) })
		f(t)
	})
}

// peer is a Gossip under test with what it called back.
type peer struct {
	*Gossip
	port *port

	mu      sync.Mutex
	changes int
	dead    []gone
	lines   []slog.Record
}

func member(node uint64, name string) Member {
	return Member{Node: node, Name: name, Role: Core | Edge, Incarnation: uint64(time.Now().UnixNano()) + node,
		Actor: "10.0.0.1:7947", Raft: "10.0.0.1:7948", Version: "1.2.3"}
}

func start(t *testing.T, p *port, self Member, more ...func(*Config)) *peer {
	t.Helper()
	out := &peer{port: p}
	cfg := Config{Self: self, ClusterName: "test", Transport: p, Logger: slog.New(records{out})}
	cfg.Changed = func() {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.changes++
	}
	cfg.Dead = func(m Member, left bool) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.dead = append(out.dead, gone{Member: m, left: left})
	}
	for _, f := range more {
		f(&cfg)
	}
	g, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	out.Gossip = g
	t.Cleanup(g.Close)
	return out
}

func (p *peer) names() []string {
	var out []string
	for _, m := range p.Members() {
		out = append(out, m.Name)
	}
	return out
}

func (p *peer) departed() []gone {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.dead)
}

// soon is far beyond what gossip takes to reach everybody: six full exchanges of each node with a random other one.
const soon = time.Minute

// within waits for a condition in virtual time.
func within(t *testing.T, limit time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	from := time.Now()
	for !cond() {
		if time.Since(from) > limit {
			t.Fatalf("after %v: not %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(from)
}

func sees(p *peer, names ...string) func() bool {
	return func() bool { return slices.Equal(p.names(), names) }
}

// three are nodes a, b, c that know each other.
func three(t *testing.T, w *wire) (a, b, c *peer) {
	a = start(t, w.plug("10.0.0.1"), member(1, "a"))
	b = start(t, w.plug("10.0.0.2"), member(2, "b"))
	c = start(t, w.plug("10.0.0.3"), member(3, "c"))
	for _, p := range []*peer{b, c} {
		if n, err := p.Join([]string{a.port.addr()}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, p := range []*peer{a, b, c} {
		within(t, soon, "three members", sees(p, "a", "b", "c"))
	}
	return a, b, c
}

func TestDeath(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, c := three(t, newWire())
		c.Close()
		took := within(t, 6*time.Second, "dead", sees(a, "a", "b"))
		within(t, soon, "dead everywhere", sees(b, "a", "b"))
		t.Log("found dead after", took)
		if took < 1500*time.Millisecond {
			t.Errorf("dead after %v: without suspicion", took)
		}
		synctest.Wait()
		for _, p := range []*peer{a, b} {
			d := p.departed()
			if len(d) != 1 || d[0].Name != "c" || d[0].left {
				t.Errorf("departed: %v", d)
			}
			if s := p.Status("c", c.cfg.Self.Incarnation); s != Dead {
				t.Error(s)
			}
			if s := p.Status("c", c.cfg.Self.Incarnation+1); s != Unknown {
				t.Error(s)
			}
			if n := p.said(slog.LevelWarn, ""); n > 3 {
				t.Errorf("%d warnings for a death", n)
			}
		}
	})
}
