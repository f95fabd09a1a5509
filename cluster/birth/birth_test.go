package birth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// town is an Env for several Births in one process.
type town struct {
	mu    sync.Mutex
	nodes map[uint64]*Birth
	shown map[uint64]Node
	deaf  map[uint64]bool
}

func newTown() *town {
	return &town{nodes: map[uint64]*Birth{}, shown: map[uint64]Node{}, deaf: map[uint64]bool{}}
}

func (w *town) add(b *Birth) *Birth {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[b.Node()], w.shown[b.Node()] = b, b.m.self
	return b
}

func (w *town) Candidates() (out []Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.shown {
		out = append(out, n)
	}
	return out
}

func (w *town) Call(ctx context.Context, to Node, req []byte) ([]byte, error) {
	w.mu.Lock()
	b, deaf := w.nodes[to.ID], w.deaf[to.ID]
	w.mu.Unlock()
	if deaf {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return b.Serve(req)
}

var quiet = slog.New(slog.DiscardHandler)

func config(t *testing.T, name string) Config {
	return Config{Dir: filepath.Join(t.TempDir(), name), Name: name, Expect: 3, Join: []string{"a:1", "b:1", "c:1"}, Logger: quiet}
}

func open(t *testing.T, cfg Config) *Birth {
	t.Helper()
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// reopen is a restart.
func reopen(t *testing.T, b *Birth) *Birth {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, b.cfg)
}

func TestThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		decisions := make(chan Decision, 3)
		var born string
		for i, name := range []string{"a", "b", "c"} {
			b := w.add(open(t, config(t, name)))
			go func() {
				time.Sleep(time.Duration(i) * 3 * time.Second)
				d, err := b.Decide(t.Context(), w)
				if err != nil {
					t.Error(err)
				}
				if d.Bootstrap {
					w.mu.Lock()
					w.shown[b.Node()] = Node{ID: b.Node(), Name: name, Expect: 3, Cluster: d.Cluster}
					w.mu.Unlock()
				}
				decisions <- d
			}()
		}
		bootstraps := 0
		for range 3 {
			d := <-decisions
			if born == "" {
				born = d.Cluster
			}
			if d.Cluster != born || d.Bootstrap == d.BornAt.IsZero() {
				t.Errorf("%+v, born is %s", d, born)
			}
			if d.Bootstrap {
				bootstraps++
			}
		}
		if bootstraps != 1 {
			t.Errorf("%d bootstraps", bootstraps)
		}
	})
}

// TestResume: an initiator that lost its process goes on with the same cluster, and decides the same for ever.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown()
		var all []*Birth
		for _, name := range []string{"a", "b", "c"} {
			all = append(all, w.add(open(t, config(t, name))))
		}
		first := all[0]
		for _, b := range all {
			if b.Node() < first.Node() {
				first = b
			}
		}
		for _, b := range all {
			w.deaf[b.Node()] = b != first
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := first.Decide(ctx, w)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "asking") {
			t.Fatal(err)
		}
		cluster := first.m.state.Attempt.Cluster
		clear(w.deaf)
		first = w.add(reopen(t, first))
		d, err := first.Decide(t.Context(), w)
		if err != nil || !d.Bootstrap || d.Cluster != cluster {
			t.Fatalf("%+v %v, the attempt was %s", d, err, cluster)
		}
		time.Sleep(time.Minute)
		first = w.add(reopen(t, first))
		if again, err := first.Decide(t.Context(), w); err != nil || again != d {
			t.Errorf("%+v %v, before %+v", again, err, d)
		}
		// Another, restarted, is still bound.
		for _, b := range all {
			if b.Node() != first.Node() {
				b = reopen(t, b)
				if p := b.m.state.Pledge; p == nil || p.Cluster != cluster {
					t.Errorf("pledge %+v", p)
				}
			}
		}
	})
}

func TestAlone(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Name: "a", Logger: quiet}
	b := open(t, cfg)
	d, err := b.Decide(t.Context(), nil)
	if err != nil || !d.Bootstrap || len(d.Cluster) != 36 || d.BornAt.IsZero() {
		t.Fatalf("%+v %v", d, err)
	}
	id := b.Node()
	b = reopen(t, b)
	if again, err := b.Decide(t.Context(), nil); again != d || err != nil || b.Node() != id {
		t.Errorf("%+v %v %d", again, err, b.Node())
	}
	_ = b.Close()

	cfg.Cluster = d.Cluster // the birth has come to pass
	b = open(t, cfg)
	if d, err := b.Decide(t.Context(), nil); err != nil || d.Bootstrap || d.Cluster != cfg.Cluster {
		t.Errorf("initialised: %+v %v", d, err)
	}
	_ = b.Close()

	cfg.Cluster, cfg.Expect, cfg.Join = "", 3, []string{"a:1", "b:1", "c:1"}
	b = open(t, cfg)
	if b.m.state.Attempt != nil || b.m.state.Pledge != nil || b.m.state.Number != 1 {
		t.Errorf("a birth alone that did not come to pass is kept: %+v", b.m.state)
	}
	_ = b.Close()

	cfg.Expect = 0
	b = open(t, cfg)
	if d, err := b.Decide(t.Context(), nil); err != nil || d.Bootstrap {
		t.Errorf("join only: %+v %v", d, err)
	}
}

// TestBound: whoever is pledged does not give birth alone, whatever its flags say.
func TestBound(t *testing.T) {
	cfg := config(t, "a")
	b := open(t, cfg)
	req := fmt.Sprintf(`{"from":{"id":1,"name":"z"},"to":%d,"cluster":"c1","expect":3}`, b.Node())
	if resp, err := b.Serve([]byte(req)); err != nil || !strings.Contains(string(resp), `"pledged":true`) {
		t.Fatalf("%s %v", resp, err)
	}
	_ = b.Close()
	cfg.Expect, cfg.Join = 0, nil
	b = open(t, cfg)
	if d, err := b.Decide(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "pledged to cluster c1 of node z") {
		t.Errorf("%+v %v", d, err)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		expect int
		join   []string
		addr   string
		want   string // in the error; "" if it is fine
	}{
		{0, nil, "", ""},
		{3, nil, "", "needs a join list"},
		{-1, []string{"a:1"}, "", "expect -1"},
		{1, []string{"a:1"}, "", "expect 1"},
		{0, []string{"a:1", "b:1", "c:1", "d:1"}, "", ""},
		{2, []string{"a:1", "b:1", "c:1"}, "", ""},
		{2, []string{"a:1", "b:1", "c:1", "d:1"}, "", "2 of 4 planned"},
		{2, []string{"a:1", "b:1", "b:1", "c:1"}, "", ""},
		{2, []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}, "10.0.0.1:1", ""},
		{2, []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"}, "10.0.0.4:1", "2 of 4 planned"},
		{3, []string{"10.0.0.1:1", "[fd00::2]:1", "10.0.0.3"}, "10.0.0.4:1", ""},
		{3, []string{"headless:1"}, "", ""},
	} {
		cfg := Config{Dir: t.TempDir(), Name: "a", Expect: c.expect, Join: c.join, Addr: c.addr, Logger: quiet}
		b, err := Open(cfg)
		if err == nil {
			_ = b.Close()
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("expect %d, join %v: %v, want %q", c.expect, c.join, err, c.want)
		}
		cfg.Cluster = "c"
		if b, err := Open(cfg); err != nil {
			t.Errorf("initialised: %v", err)
		} else {
			_ = b.Close()
		}
	}
}

func TestFile(t *testing.T) {
	cfg := config(t, "a")
	b := open(t, cfg)
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	id := b.Node()
	_ = b.Close()
	cfg.Node = id + 1
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "belongs to node") {
		t.Errorf("foreign node: %v", err)
	}
	cfg.Node = 0
	path := filepath.Join(cfg.Dir, fileName)
	for _, text := range []string{"", "{", "[]", `{"format":1}`, `{"format":2,"node":1}`, `{"format":1,"node":1,"pledge":{}}`,
		`{"format":1,"node":1,"attempt":{"cluster":"c","parties":[]}}`, `{"format":1,"node":1,"attempt":{"cluster":"c","parties":[{"id":2}]}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := Open(cfg); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
			_ = b.Close()
		}
	}
}

// TestDiskFails: after a write that failed nothing is promised any more.
func TestDiskFails(t *testing.T) {
	b := open(t, config(t, "a"))
	if err := os.RemoveAll(b.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	req := fmt.Sprintf(`{"from":{"id":1,"name":"z"},"to":%d,"cluster":"c1","expect":3}`, b.Node())
	for range 2 {
		if resp, err := b.Serve([]byte(req)); err == nil {
			t.Errorf("answered %s", resp)
		}
	}
	if _, err := b.Decide(t.Context(), newTown()); err == nil {
		t.Error("decided")
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"from":{"id":1,"name":"z"},"to":7,"number":1,"cluster":"c1","expect":3}`))
	f.Add([]byte(`{`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, req []byte) {
		m := newMachine(time.Unix(0, 0), Node{ID: 7, Name: "a", Expect: 3}, state{Format: fileFormat, Node: 7}, newClusterID, nil)
		b := &Birth{cfg: Config{Dir: dir}, log: quiet, m: m}
		if resp, err := b.Serve(req); err == nil && m.state.Pledge == nil && strings.Contains(string(resp), `"pledged":true`) {
			t.Fatalf("%q: pledged to nobody", req)
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"format":1,"node":7,"number":2,"attempt":{"cluster":"c","parties":[{"id":7,"name":"a"}],"born_at":5},"pledge":{"cluster":"c","to":{"id":7}},"heard":{"3":4}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		m := newMachine(time.Unix(0, 0), Node{ID: s.Node, Name: "a", Expect: 3}, s, newClusterID, func(time.Duration) time.Duration { return 0 })
		m.tick(time.Unix(10, 0), []Node{{ID: 1, Expect: 3}, {ID: 2, Expect: 3}})
		m.answer(message{From: party{ID: 1}, To: s.Node, Number: 9, Cluster: "x", Expect: 3})
		m.waiting(nil)
	})
}
