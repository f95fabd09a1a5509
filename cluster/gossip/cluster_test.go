package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func with(f func(m *Member)) func(*Config) {
	return func(c *Config) { f(&c.Self) }
}

func keys(ks ...string) func(*Config) {
	return func(c *Config) {
		c.Keys = nil
		for _, k := range ks {
			c.Keys = append(c.Keys, key(k))
		}
	}
}

func key(k string) []byte { return bytes.Repeat([]byte(k), 32) }

// loop runs JoinLoop until the test ends.
func loop(t *testing.T, p *peer, addrs ...string) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.JoinLoop(ctx, addrs)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestJoinLoopInAnyOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		pa, pb, pc := w.plug("10.0.0.1"), w.plug("fd00::2"), w.plug("10.0.0.3")
		list := []string{pa.addr(), pb.addr(), pc.addr()}
		long := strings.Repeat("n", 124) + ".-@x"
		var all []*peer
		for i, p := range []*port{pc, pb, pa} {
			peer := start(t, p, member(uint64(3-i), []string{"c", long, "a"}[i]))
			loop(t, peer, list...)
			all = append(all, peer)
			time.Sleep(7 * time.Second)
		}
		for _, p := range all {
			within(t, soon, "all three", sees(p, "a", "c", long))
		}
		m := all[0].Members()[2]
		if m.Gossip != pb.addr() || m.Node != 2 || m.Role != Core|Edge || m.Raft != "10.0.0.1:7948" || m.Version != "1.2.3" {
			t.Errorf("%+v", m)
		}
		if n := all[0].said(slog.LevelWarn, "nobody of the join list answers"); n != 1 {
			t.Errorf("said %d times that it is alone", n)
		}
	})
}

func TestJoinFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newWire().plug("10.0.0.1"), member(1, "a"))
		for _, addr := range []string{"10.0.0.9:1", "10.0.0.9:99999", ":1", "x:y:z"} {
			if n, err := p.Join([]string{addr}); n != 0 || err == nil {
				t.Errorf("%s: %d %v", addr, n, err)
			}
		}
		if n, err := p.Join([]string{p.Self().Gossip}); n != 0 || err != nil {
			t.Errorf("itself: %d %v", n, err)
		}
	})
}

func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, c := three(t, newWire())
		from := time.Now()
		c.Leave(5 * time.Second)
		if took := time.Since(from); took > 2*time.Second {
			t.Errorf("leaving took %v", took)
		}
		for _, p := range []*peer{a, b} {
			within(t, soon, "left", sees(p, "a", "b"))
			synctest.Wait()
			if d := p.departed(); len(d) != 1 || d[0].Name != "c" || !d[0].left {
				t.Errorf("departed: %v", d)
			}
		}
		time.Sleep(time.Minute)
		if s := a.Status("c", c.cfg.Self.Incarnation); s != Left || len(a.departed()) != 1 {
			t.Error(s, a.departed())
		}
		for _, p := range []*peer{a, b} {
			if n := p.said(slog.LevelWarn, "") + p.said(slog.LevelError, ""); n != 0 {
				t.Errorf("%d warnings for a goodbye", n)
			}
		}
		if err := c.Update(func(m *Member) { m.Zone = "z" }); err == nil {
			t.Error("updated after leaving")
		}
		c.Leave(time.Second)
		c.JoinLoop(t.Context(), []string{a.port.addr()}) // returns

		// One who missed the goodbye does not bring it back.
		if err := (delegate{a.Gossip}).NotifyAlive(nodeOf(t, c.cfg.Self, c.port)); err == nil {
			t.Error("who left came back")
		}
	})
}

func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a, b, c := three(t, w)
		old := c.cfg.Self
		for _, place := range []*port{w.replug(c.port), w.plug("10.0.0.33")} {
			c.Close()
			again := old
			again.Incarnation += uint64(time.Second)
			c = start(t, place, again)
			if _, err := c.Join([]string{b.port.addr()}); err != nil {
				t.Fatal(err)
			}
			within(t, soon, "the new process is seen and the old one is not", func() bool {
				ms := a.Members()
				return len(ms) == 3 && ms[2].Incarnation == again.Incarnation
			})
			if s := a.Status("c", old.Incarnation); s != Dead {
				t.Error(s)
			}
			old = again
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if d := a.departed(); len(d) != 2 || d[0].left || d[1].left {
			t.Error(d)
		}
		if n := a.said(slog.LevelError, ""); n != 0 {
			t.Errorf("%d errors for a restart", n)
		}
	})
}

// TestPartition: far longer than memberlist remembers the dead.
func TestPartition(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a, b, c := three(t, w)
		d := start(t, w.plug("10.0.0.4"), member(4, "d"))
		all := []*peer{a, b, c, d}
		for _, p := range all {
			loop(t, p, a.port.addr()) // c and d know of nobody else by themselves
		}
		for _, p := range all {
			within(t, soon, "four", sees(p, "a", "b", "c", "d"))
		}
		left := map[string]bool{a.port.addr(): true, b.port.addr(): true}
		w.partition(func(from, to string) bool { return left[from] != left[to] })
		within(t, soon, "halves", func() bool { return sees(a, "a", "b")() && sees(d, "c", "d")() })
		a.Close() // the only address that anybody was given
		time.Sleep(10 * time.Minute)
		w.partition(nil)
		for _, p := range all[1:] {
			took := within(t, soon, "healed", sees(p, "b", "c", "d"))
			t.Log("healed after", took)
		}
		synctest.Wait()
		if s := b.Status("d", d.cfg.Self.Incarnation); s != Alive {
			t.Error(s)
		}
		for _, p := range all[1:] {
			p.mu.Lock()
			if n := len(p.lines); n > 400 {
				t.Errorf("%d lines logged", n)
			}
			p.mu.Unlock()
		}
	})
}

func TestUpdate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, _ := three(t, newWire())
		synctest.Wait()
		b.mu.Lock()
		changes := b.changes
		b.mu.Unlock()
		if err := a.Update(func(m *Member) { m.Draining, m.Cluster, m.Zone = true, "c1", "z1" }); err != nil {
			t.Fatal(err)
		}
		within(t, soon, "seen", func() bool {
			m := b.Members()[0]
			return m.Draining && m.Cluster == "c1" && m.Zone == "z1"
		})
		synctest.Wait()
		b.mu.Lock()
		if b.changes <= changes {
			t.Error("not told")
		}
		b.mu.Unlock()
		if m := a.Self(); m != a.Members()[0] || !m.Draining {
			t.Errorf("%+v", m)
		}
		for _, change := range []func(*Member){
			func(m *Member) { m.Node++ },
			func(m *Member) { m.Name = "x" },
			func(m *Member) { m.Incarnation++ },
			func(m *Member) { m.Gossip = "1.2.3.4:5" },
			func(m *Member) { m.Zone = strings.Repeat("z", 500) },
			func(m *Member) { m.Actor = "nowhere" },
		} {
			before := a.Self()
			if err := a.Update(change); err == nil || a.Self() != before {
				t.Errorf("%v: %+v", err, a.Self())
			}
		}
	})
}

func TestForeignCluster(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a := start(t, w.plug("10.0.0.1"), member(1, "a"), with(func(m *Member) { m.Cluster = "red" }))
		b := start(t, w.plug("10.0.0.2"), member(2, "b"), with(func(m *Member) { m.Cluster = "blue" }))
		c := start(t, w.plug("10.0.0.3"), member(3, "c"))
		if n, err := a.Join([]string{b.port.addr()}); n != 0 || err == nil || !strings.Contains(err.Error(), "blue") || !strings.Contains(err.Error(), "red") {
			t.Errorf("joined: %d %v", n, err)
		}
		synctest.Wait()
		for _, p := range []*peer{a, b} {
			if n := p.said(slog.LevelWarn, "refused to merge"); n != 1 {
				t.Errorf("said %d times", n)
			}
		}
		// c belongs to nobody yet; it takes the side of whom it sees and is no bridge.
		if _, err := c.Join([]string{a.port.addr()}); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Join([]string{b.port.addr()}); err == nil {
			t.Errorf("a bridge: %d", n)
		}
		time.Sleep(30 * time.Second)
		if !sees(a, "a", "c")() || !sees(b, "b")() || !sees(c, "a", "c")() {
			t.Error(a.names(), b.names(), c.names())
		}
		// Gossip from a third about one node.
		if err := (delegate{a.Gossip}).NotifyAlive(nodeOf(t, b.Self(), b.port)); err == nil || !strings.Contains(err.Error(), "blue") {
			t.Error(err)
		}
		// Whoever turns out to be foreign later is shown no more.
		if err := c.Update(func(m *Member) { m.Cluster = "green" }); err != nil {
			t.Fatal(err)
		}
		within(t, soon, "parted", func() bool { return sees(a, "a")() && sees(c, "c")() })
	})
}

func TestLabel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a := start(t, w.plug("10.0.0.1"), member(1, "a"))
		b := start(t, w.plug("10.0.0.2"), member(2, "b"), func(c *Config) { c.ClusterName = "other" })
		for range 20 {
			if n, err := b.Join([]string{a.port.addr()}); n != 0 || err == nil {
				t.Errorf("joined: %d %v", n, err)
			}
		}
		if !sees(a, "a")() || !sees(b, "b")() {
			t.Error(a.names(), b.names())
		}
		synctest.Wait()
		if n := a.said(slog.LevelWarn, `unacceptable label "other"`); n != 1 {
			t.Errorf("said %d times", n)
		}
	})
}

func TestKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a := start(t, w.plug("10.0.0.1"), member(1, "a"), keys("k"))
		for i, other := range []*peer{
			start(t, w.plug("10.0.0.2"), member(2, "b"), keys("x")),
			start(t, w.plug("10.0.0.3"), member(3, "c"), keys()),
		} {
			if n, err := other.Join([]string{a.port.addr()}); n != 0 || err == nil {
				t.Errorf("%d joined: %d %v", i, n, err)
			}
			if n, err := a.Join([]string{other.port.addr()}); n != 0 || err == nil {
				t.Errorf("%d was joined: %d %v", i, n, err)
			}
		}
		if !sees(a, "a")() {
			t.Error(a.names())
		}
		d := start(t, w.plug("10.0.0.4"), member(4, "d"), keys("x", "k"), func(c *Config) { c.Keys = c.Keys[1:] })
		if _, err := d.Join([]string{a.port.addr()}); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRotation changes the key under members that must not lose sight of each other.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a := start(t, w.plug("10.0.0.1"), member(1, "a"), keys("1"))
		b := start(t, w.plug("10.0.0.2"), member(2, "b"), keys("1"))
		if _, err := b.Join([]string{a.port.addr()}); err != nil {
			t.Fatal(err)
		}
		each := func(what string, f func(*peer) error) {
			for _, p := range []*peer{a, b} {
				if err := f(p); err != nil {
					t.Error(what, err)
				}
				time.Sleep(5 * time.Second)
			}
		}
		for _, k := range []string{"2", "3"} {
			each("add", func(p *peer) error { return p.AddKey(key(k)) })
		}
		each("use", func(p *peer) error { return p.UseKey(key("3")) })
		if ks := a.Keys(); len(ks) != 3 || !bytes.Equal(ks[0], key("3")) {
			t.Errorf("%d keys", len(ks))
		}
		each("remove", func(p *peer) error { return p.RemoveKey(key("1")) })
		each("remove", func(p *peer) error { return p.RemoveKey(key("2")) })
		if ks := a.Keys(); len(ks) != 1 || !bytes.Equal(ks[0], key("3")) {
			t.Errorf("%d keys", len(ks))
		}
		if len(a.departed())+len(b.departed()) != 0 || !sees(a, "a", "b")() || !sees(b, "a", "b")() {
			t.Error("lost sight")
		}
		c := start(t, w.plug("10.0.0.3"), member(3, "c"), keys("1"))
		if n, err := c.Join([]string{a.port.addr()}); err == nil {
			t.Errorf("the old key still works: %d", n)
		}
		for what, err := range map[string]error{
			"the key in use": a.RemoveKey(key("3")), "no such key": a.RemoveKey(key("9")), "use of an unknown key": a.UseKey(key("9")), "a short key": a.AddKey([]byte("x")),
		} {
			if err == nil {
				t.Error(what)
			}
		}
	})
}

func TestNoKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := start(t, newWire().plug("10.0.0.1"), member(1, "a"))
		if a.Keys() != nil || a.AddKey(key("1")) == nil || a.UseKey(key("1")) == nil || a.RemoveKey(key("1")) == nil {
			t.Error("plain text has keys")
		}
	})
}

func TestRemoveKeyFromTheMiddle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := start(t, newWire().plug("10.0.0.1"), member(1, "a"), keys("1", "2", "3", "4"))
		held := a.ring.GetKeys()
		if err := a.RemoveKey(key("2")); err != nil {
			t.Fatal(err)
		}
		for i, k := range []string{"1", "2", "3", "4"} {
			if !bytes.Equal(held[i], key(k)) {
				t.Error("a reader's keys have moved")
			}
		}
		if ks := a.Keys(); len(ks) != 3 || !bytes.Equal(ks[0], key("1")) {
			t.Errorf("%q", ks)
		}
	})
}

func TestConflict(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWire()
		a := start(t, w.plug("10.0.0.1"), member(1, "a"))
		b := start(t, w.plug("10.0.0.2"), member(2, "b"))
		twin := start(t, w.plug("10.0.0.3"), member(3, "b"))
		clone := start(t, w.plug("10.0.0.4"), member(1, "c"), with(func(m *Member) { m.Incarnation += 5 }))
		for _, p := range []*peer{b, twin, clone} {
			if _, err := p.Join([]string{a.port.addr()}); err != nil {
				t.Fatal(err)
			}
		}
		within(t, soon, "all", sees(b, "b", "b", "c")) // of one node id the newer process counts
		if n := b.said(slog.LevelError, ""); n != 0 {
			t.Errorf("said %d times too early", n)
		}
		within(t, soon, "said", func() bool {
			return b.said(slog.LevelError, "name=b") == 1 && b.said(slog.LevelError, "node=1") == 1
		})
		within(t, soon, "said there too", func() bool { return twin.said(slog.LevelError, "name=b") == 1 })
	})
}
