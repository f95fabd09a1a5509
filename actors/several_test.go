package actors

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
)

func crowd(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint("u", i))
	}
	return all
}

// gather attaches users to the edges in turn; each edge watches all of them.
func (p *party) gather(all []string) {
	for _, e := range p.edges {
		e.watch(e.name, all...)
	}
	for i, u := range all {
		p.attach(p.edges[i%len(p.edges)], u, "s-"+u)
	}
	synctest.Wait()
	p.clearLogs()
}

func (p *party) clearLogs() {
	for _, e := range p.edges {
		e.testEdge.mu.Lock()
		e.log = nil
		e.testEdge.mu.Unlock()
	}
}

// exact fails unless every living edge shows the truth about all whom it watches.
func (p *party) exact(all []string) {
	p.t.Helper()
	if wrong := append(p.truth.falseOfflines(), p.untrue(all)...); len(wrong) > 0 {
		p.t.Fatal(strings.Join(wrong, "\n"))
	}
}

func (p *party) untrue(all []string) (wrong []string) {
	synctest.Wait()
	for _, e := range p.edges {
		e.testEdge.mu.Lock()
		for _, u := range all {
			if !slices.Contains(e.watches[e.name], u) {
				continue
			}
			want := map[bool]string{true: "online", false: "offline"}[p.truth.isThere(u)]
			if got := presenceOf(e.shown[e.name+">"+u]); got != want && (got != "" || want != "offline") {
				wrong = append(wrong, fmt.Sprintf("%s shows %s %q, truth is %q", e.name, u, got, want))
			}
		}
		e.testEdge.mu.Unlock()
	}
	return wrong
}

// quiet fails if anybody was shown anything since the last time.
func (p *party) quiet() {
	p.t.Helper()
	synctest.Wait()
	for _, e := range p.edges {
		e.saw()
	}
}

// sums adds up what the shards count, wherever they are led.
func (p *party) sums() map[string]uint64 {
	all := map[string]uint64{}
	for shard := range uint32(link.Shards) {
		done := make(chan struct{})
		p.leader(shard).node.Load().post(shard, &request{done: func(error) { close(done) }, do: func(g *gateway, _ time.Time) {
			for k, v := range g.counts("") {
				all[k] += v
			}
			close(done)
		}})
		<-done
	}
	return all
}

// A core is killed: no watcher of a living edge sees anything, and presence is exact.
func TestCoreDies(t *testing.T) {
	inParty(t, 3, 2, Config{}, func(p *party) {
		all := crowd(40)
		p.gather(all)
		pass(5 * time.Second)
		p.die(p.cores[0], 300*time.Millisecond)
		pass(3 * time.Second)
		p.quiet()
		if n := p.sums(); n["online"] != 40 || n["sessions"] != 40 || n["settling"] != 0 {
			t.Fatalf("3 s after the death: %v", n)
		}
		pass(time.Minute)
		p.quiet()
		p.exact(all)
	})
}

// A leader dies before it has written that somebody is there, and the edge that holds the session is slow to
// announce it: while the shard settles it answers nobody "offline". Without settling it does.
func TestSettling(t *testing.T) {
	for _, settle := range []time.Duration{3 * time.Second, 0} {
		cfg := presence.DefaultConfig()
		cfg.Settle = settle
		inParty(t, 2, 2, Config{Presence: &cfg}, func(p *party) {
			fast, slow := p.edges[0], p.edges[1]
			fast.watch("e0", "ann")
			for e, d := range map[*process]time.Duration{fast: 100 * time.Millisecond, slow: time.Second} {
				e.testEdge.mu.Lock()
				e.slow = d
				e.testEdge.mu.Unlock()
			}
			p.attach(slow, "ann", "s-ann")
			fast.saw("e0>ann: online")
			p.die(p.leader(shardOf("ann")), 50*time.Millisecond)
			pass(10 * time.Second)
			if wrong := p.truth.falseOfflines(); (len(wrong) > 0) != (settle == 0) {
				t.Errorf("settling for %v: %q", settle, wrong)
			}
			p.truth.wrong = nil
			p.exact([]string{"ann"})
		})
	}
}

// A node that was edge and core is killed. Who comes back was never gone, who stays away is shown offline after
// the grace.
func TestNodeDies(t *testing.T) {
	inParty(t, 3, 3, Config{}, func(p *party) {
		all := crowd(60)
		p.gather(all)
		p.attach(p.edges[0], "late", "s-late") // its marker is not written yet
		p.edges[1].watch("e1", "late")
		p.edges[2].watch("e2", "late")
		synctest.Wait()
		p.clearLogs()
		dead := p.edges[0]
		p.kill(dead)
		p.die(p.cores[0], 300*time.Millisecond)
		pass(4 * time.Second)
		for i := 0; i < 60; i += 6 { // every second one of those that the edge held
			p.attach(p.edges[0], all[i], "s-"+all[i])
		}
		pass(10 * time.Second)
		p.quiet()
		pass(4 * time.Second)
		p.exact(append(all, "late"))
		if n := p.sums(); n["online"] != 50 {
			t.Fatalf("%v", n)
		}
		pass(time.Minute)
		p.exact(all)
	})
}

// An edge's machine is lost: its lease and gossip together end its sessions, neither alone.
func TestEdgeDeath(t *testing.T) {
	inParty(t, 2, 3, Config{}, func(p *party) {
		all := crowd(30)
		p.gather(all)
		hung, lost := p.edges[0], p.edges[1]
		p.gossip(p.edges[2].id, false) // gossip alone
		p.hang(hung, true)             // its lease alone
		pass(100 * time.Second)
		p.hang(hung, false)
		p.gossip(p.edges[2].id, true)
		pass(5 * time.Second)
		p.exact(all)
		p.clearLogs()
		died := time.Now()
		p.unplug(lost)
		pass(15 * time.Second)
		p.quiet()
		for p.sums()["online"] > 20 {
			pass(100 * time.Millisecond)
		}
		if took := time.Since(died); took > 21*time.Second {
			t.Fatalf("offline %v after the machine was lost", took)
		}
		pass(time.Second)
		p.exact(all)
	})
}

// An edge that was cut off and held dead comes back on its old link and is told all.
func TestEdgeComesBack(t *testing.T) {
	inParty(t, 2, 2, Config{}, func(p *party) {
		all := crowd(20)
		p.gather(all)
		off := p.edges[0]
		off.testEdge.mu.Lock()
		for _, s := range off.sessions {
			p.truth.lost(s.User, s.Session, 15*time.Second, 0)
		}
		off.testEdge.mu.Unlock()
		p.hang(off, true)
		p.gossip(off.id, false)
		pass(30 * time.Second)
		if n := p.sums(); n["online"] != 10 {
			t.Fatalf("%v", n)
		}
		for i := 0; i < 20; i += 2 {
			p.truth.holds(all[i], "s-"+all[i], off.connOf("s-"+all[i]))
		}
		was := off.announced()
		p.hang(off, false)
		p.gossip(off.id, true)
		pass(5 * time.Second)
		if n := off.announced() - was; n < link.Shards {
			t.Errorf("%d shards were announced", n)
		}
		p.exact(all)
		if n := p.sums(); n["online"] != 20 {
			t.Fatalf("%v", n)
		}
	})
}

func (e *testEdge) announced() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.announces
}

// A shard that opens waits for the edges that gossip holds alive, and for none that died since.
func TestBarrier(t *testing.T) {
	inParty(t, 2, 3, Config{}, func(p *party) {
		all := crowd(30)
		p.gather(all)
		shard := shardOf("u0")
		settling := func() bool { return p.sums()["settling"] > 0 }
		to := func() *core { return p.cores[(slices.Index(p.cores, p.leader(shard))+1)%2] }

		p.hang(p.edges[2], true)
		p.hand(shard, to())
		pass(time.Second)
		if !settling() {
			t.Fatal("an edge has not announced")
		}
		pass(2 * time.Second)
		if settling() {
			t.Fatal("settles after 3 s")
		}
		p.hang(p.edges[2], false)
		pass(2 * time.Second)

		p.hang(p.edges[2], true)
		p.hand(shard, to())
		pass(time.Second)
		if !settling() {
			t.Fatal("an edge has not announced")
		}
		p.kill(p.edges[2])
		if settling() {
			t.Fatal("it died")
		}
		p.edge("e9") // whose announcement nobody waits for
		pass(5 * time.Minute)
		p.exact(all)

		// Known dead before it opens: reset and refused, though gossip has not noticed.
		p.kill(p.edges[1])
		p.hand(shard, to())
		pass(100 * time.Millisecond)
		if settling() {
			t.Fatal("waits for a dead edge")
		}
	})
}

// A planned transfer takes along who has no conn: with the grace that was left, not more and not less.
func TestHandOver(t *testing.T) {
	inParty(t, 2, 2, Config{}, func(p *party) {
		e, w := p.edges[0], p.edges[1]
		all := []string{"ann", "bob", "cid", "dan"}
		for _, u := range all {
			w.watch("e1", u)
			p.attach(e, u, "s-"+u)
		}
		e.status("ann", "s-ann", e.connOf("s-ann"), presence.DND, "back at one")
		p.attach(w, "dan", "s2-dan")
		pass(5 * time.Second)
		p.clearLogs()
		p.leave(e, "ann", "s-ann", link.Cause_DRAIN)   // 60 s
		p.leave(e, "bob", "s-bob", link.Cause_GONE)    // 5 s
		p.leave(e, "cid", "s-cid", link.Cause_SILENCE) // 15 s
		p.leave(e, "dan", "s-dan", link.Cause_GONE)
		pass(time.Second)
		for range 2 {
			for _, u := range all {
				shard := shardOf(u)
				p.hand(shard, p.cores[(slices.Index(p.cores, p.leader(shard))+1)%2])
			}
		}
		pass(3 * time.Second)
		p.quiet()
		pass(1500 * time.Millisecond)
		w.saw("e1>bob: offline")
		pass(8 * time.Second)
		w.saw()
		pass(2 * time.Second)
		w.saw("e1>cid: offline")
		pass(30 * time.Second)
		w.saw()
		p.attach(w, "ann", "s-ann")
		synctest.Wait()
		if self := p.explain("ann"); !strings.Contains(self, "handed over") || !strings.Contains(self, "resume") {
			t.Fatalf("not the session that was handed over: %s", self)
		}
		pass(time.Minute)
		w.saw()
		p.exact(all)
	})
}

func (p *party) explain(user string) string {
	e := p.edges[0]
	call := e.ask(shardOf(user), &link.Ask{What: &link.Ask_Explain{Explain: &link.Explain{User: user}}})
	synctest.Wait()
	return e.answer(call).GetAnswer().GetJson()
}

// Who said goodbye just before its shard is given away is not taken for somebody who may come back.
func TestHandOverAfterGoodbye(t *testing.T) {
	inParty(t, 2, 2, Config{}, func(p *party) {
		e, w := p.edges[0], p.edges[1]
		p.attach(e, "ann", "s-ann")
		pass(5 * time.Second) // it is stored that she is online
		p.leave(e, "ann", "s-ann", link.Cause_BYE)
		shard := shardOf("ann")
		p.hand(shard, p.cores[(slices.Index(p.cores, p.leader(shard))+1)%2])
		w.watch("e1", "ann")
		pass(4 * time.Second) // more than settling takes
		if self := p.explain("ann"); strings.Contains(self, "presumed") {
			t.Errorf("%s", self)
		}
		p.exact([]string{"ann"})
	})
}

// What was handed over counts for the next term only.
func TestHandOverInVain(t *testing.T) {
	inParty(t, 3, 2, Config{}, func(p *party) {
		e, w := p.edges[0], p.edges[1]
		w.watch("e1", "ann")
		p.attach(e, "ann", "s-ann")
		pass(5 * time.Second)
		p.leave(e, "ann", "s-ann", link.Cause_SILENCE)
		shard := shardOf("ann")
		from := p.leader(shard)
		i := slices.Index(p.cores, from)
		to, other := p.cores[(i+1)%3], p.cores[(i+2)%3]
		if err := from.node.Load().Leaving(context.Background(), shard, func(m *link.Up) error { to.node.Load().Routed(m); return nil }); err != nil {
			t.Fatal(err)
		}
		p.hand(shard, other) // it went elsewhere
		p.attach(w, "ann", "s-ann")
		p.leave(w, "ann", "s-ann", link.Cause_BYE)
		w.saw("e1>ann: online", "e1>ann: offline")
		p.truth.lost("ann", "s-ann", 0, 0)
		pass(2500 * time.Millisecond) // its marker is written
		other.node.Load().Closed(shard, p.term[shard])
		to.lead(shard)
		pass(time.Second)
		w.saw()
		if n := p.sums(); n["online"]+n["detached"] != 0 {
			t.Fatalf("%v", n)
		}
		if err := p.cores[i].node.Load().Leaving(context.Background(), shard, nil); err != ErrNotLeader {
			t.Fatal(err)
		}
	})
}

// The storm guard goes by what all cores have lost.
func TestStormOverCores(t *testing.T) {
	inParty(t, 3, 2, Config{}, func(p *party) {
		all := crowd(600)
		for _, u := range all {
			p.attach(p.edges[0], u, "s-"+u)
		}
		p.edges[1].watch("e1", all...)
		pass(5 * time.Second)
		p.clearLogs()
		p.kill(p.edges[0])
		pass(55 * time.Second)
		p.quiet()
		if n := p.sums(); n["detached"] != 600 {
			t.Fatalf("%v", n)
		}
		pass(30 * time.Second)
		p.exact(all)
	})
}

// A leader that does not know that it is none goes on talking: no edge that was told of the new term hears it,
// and what it is asked it cannot do.
func TestDeposed(t *testing.T) {
	inParty(t, 2, 2, Config{}, func(p *party) {
		all := crowd(20)
		p.gather(all)
		pass(5 * time.Second)
		shard := shardOf("u0")
		old := p.leader(shard)
		next := p.cores[1-slices.Index(p.cores, old)]
		next.lead(shard)
		pass(3 * time.Second)
		w := p.edges[1]
		w.testEdge.mu.Lock()
		was := w.old
		w.testEdge.mu.Unlock()
		// The old one's user is kicked there: it orders a close, tells watchers, and would write it.
		stale := &link.Up{Edge: "e0", Incarnation: p.edges[0].id.Incarnation, Shard: shard, Body: &link.Up_Act{Act: &link.Act{Call: 77, App: app,
			User: "u0", What: &link.Act_Kick{Kick: &link.Kick{}}}}}
		old.node.Load().Up(stale)
		synctest.Wait()
		w.testEdge.mu.Lock()
		if w.old == was {
			t.Error("the deposed leader said nothing")
		}
		w.testEdge.mu.Unlock()
		p.quiet()
		p.edges[0].heard()
		old.node.Load().Closed(shard, p.term[shard]-1)
		old.node.Load().Up(&link.Up{Edge: "e0", Incarnation: p.edges[0].id.Incarnation, Shard: shard, Body: stale.Body})
		pass(time.Minute)
		p.quiet()
		p.exact(all)
	})
}
