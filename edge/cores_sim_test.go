package edge_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/cluster/injected"
)

// history plays users of one edge while their shards go from core to core, leaders go on that do not know that they
// were deposed, and links are lost. One of the users watches the others: whoever has a socket is never shown offline,
// versions never fall, and in the end what is shown is true.
type history struct {
	*cluster
	rng    *rand.Rand
	users  []string
	socks  map[string]*client // of those who are there
	w      *client
	owed   map[string]bool // users of whom the watcher was told that they are pending
	shows  map[string]wire.State
	ver    map[string][2]uint64
	trace  []string
	wrong  []string
	trials int
	in     bool // the watcher's connect was answered
	later  sync.WaitGroup
}

func (h *history) note(format string, args ...any) {
	h.trace = append(h.trace, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (h *history) fail(format string, args ...any) {
	h.wrong = append(h.wrong, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

// watch takes what the watcher was shown since the last time.
func (h *history) watch() {
	for _, f := range h.w.frames() {
		if r := f.GetConnect(); r != nil {
			h.snapshot(r)
		}
		for _, p := range f.GetPush().GetPresence() {
			h.see(p)
		}
	}
}

func (h *history) see(p *wire.Presence) {
	if p.Stale || len(p.Ver) != 2 {
		return
	}
	ver, last := [2]uint64{p.Ver[0], p.Ver[1]}, h.ver[p.User]
	if ver[0] < last[0] || ver[0] == last[0] && ver[1] < last[1] {
		h.fail("%s: version %v after %v", p.User, ver, last)
	}
	h.ver[p.User] = ver
	h.show(p.User, p.State)
}

func (h *history) show(user string, state wire.State) {
	h.shows[user] = state
	delete(h.owed, user)
	h.note("%s shows %v %v", user, state, h.ver[user])
	if c := h.socks[user]; state == offline && c != nil && len(c.end) == 0 {
		h.fail("%s is shown offline and has a socket", user)
	}
}

// snapshot takes the answer to a connect of the watcher: who is not in it is offline.
func (h *history) snapshot(r *wire.ConnectReply) {
	h.in = true
	rest := map[string]bool{}
	for _, user := range h.users {
		rest[user] = true
	}
	for _, p := range r.Presences {
		delete(rest, p.User)
		h.see(p)
	}
	for _, user := range r.Pending {
		delete(rest, user)
		h.owed[user] = true
		h.note("%s is pending", user)
	}
	for user := range rest {
		h.show(user, offline)
	}
}

// comes connects the watcher, anew if it is connected. It tries until it is let in.
func (h *history) comes() {
	for tries := range 40 {
		if tries == 0 && h.w != nil {
			h.w.ws.CloseNow()
		}
		if tries == 0 || len(h.w.end) > 0 {
			h.trials++
			h.w = h.dial()
			h.w.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "w", DeviceId: "d1", Attempt: uint64(h.trials), Watch: h.users}}})
			h.note("the watcher connects")
			h.in = false
		}
		h.pass(300 * time.Millisecond)
		if h.in {
			return
		}
	}
	h.fail("the watcher is not let in")
}

func (h *history) pass(d time.Duration) {
	time.Sleep(d)
	h.watch()
}

func (h *history) connect(user string) {
	c := h.dial()
	h.trials++
	c.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: user, DeviceId: "d1", Attempt: uint64(h.trials)}}})
	h.pass(3 * time.Second) // a connect that is not confirmed is refused after two
	ok := false
	for _, f := range c.frames() {
		ok = ok || f.GetConnect() != nil
	}
	if h.note("%s connects: %v", user, ok); !ok || len(c.end) > 0 {
		c.ws.CloseNow()
		return
	}
	h.socks[user] = c
}

func (h *history) leave(user string) {
	c := h.socks[user]
	delete(h.socks, user)
	if bye := h.rng.IntN(3) == 0; bye {
		h.note("%s says bye", user)
		c.raw(`{"bye":{}}`)
	} else {
		h.note("%s drops", user)
		c.ws.CloseNow()
	}
	synctest.Wait()
}

// depose makes another core lead a shard. The one that led it goes on for a while: what it proposes is not refused,
// and never committed.
func (h *history) depose(shard uint32) {
	old, d := h.home[shard], time.Duration(1+h.rng.IntN(8))*time.Second
	old.mu.Lock()
	term := old.terms[shard]
	old.deposed[shard] = term
	old.mu.Unlock()
	h.open(shard, h.other(shard))
	h.note("%s leads shard %d after %s, which learns it after %v", h.home[shard].name, shard, old.name, d)
	h.later.Go(func() {
		time.Sleep(d)
		old.mu.Lock()
		led := old.terms[shard] == term
		if led {
			old.terms[shard] = 0
		}
		old.mu.Unlock()
		if led {
			old.node.Closed(shard, term)
		}
	})
}

func (h *history) step() {
	user := h.users[h.rng.IntN(len(h.users))]
	shard := shardOf(user)
	if c := h.socks[user]; c != nil && len(c.end) > 0 { // the edge has ended it
		delete(h.socks, user)
	}
	switch op := h.rng.IntN(15); {
	case op < 4 && h.socks[user] == nil:
		h.connect(user)
	case op < 4:
		h.leave(user)
	case op < 6 && h.socks[user] != nil:
		state := []string{"dnd", "online"}[h.rng.IntN(2)]
		h.note("%s says %s", user, state)
		h.socks[user].send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: state}}})
	case op < 7:
		h.note("shard %d moves", shard)
		h.move(shard, h.other(shard))
	case op < 9:
		back := h.socks[user] != nil
		if back { // the deposed one has the session in its grace
			h.leave(user)
		}
		if h.depose(shard); back {
			h.connect(user)
		}
	case op < 10:
		switch h.rng.IntN(3) {
		case 0:
			h.move(shard, h.other(shard))
		case 1:
			h.depose(shard)
		}
		h.comes()
	case op < 11:
		m := h.cores[h.rng.IntN(len(h.cores))]
		d := time.Duration(100+h.rng.IntN(4000)) * time.Millisecond
		h.note("%s is not heard for %v", m.name, d)
		m.link.Cut()
		if c := h.socks[user]; c != nil {
			h.leave(user)
		}
		h.pass(d)
		m.link.Dial()
		h.pass(1100 * time.Millisecond) // until its first beat
	default:
		h.pass([]time.Duration{time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 5 * time.Second}[h.rng.IntN(4)])
	}
	synctest.Wait()
	h.watch()
}

// converge lets all graces end, and compares what is shown with what is.
func (h *history) converge() {
	h.later.Wait()
	h.pass(2 * time.Minute)
	for _, user := range h.users {
		c := h.socks[user]
		there := c != nil && len(c.end) == 0
		if h.owed[user] {
			h.fail("%s was pending and never shown", user)
		}
		if got := h.shows[user]; there != (got == online || got == dnd) {
			h.fail("%s is shown %v; has a socket: %v", user, got, there)
		}
	}
}

// play runs one seed and says what was wrong.
func play(t *testing.T, seed uint64, f faults) (wrong []string, trace string) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, false, f)
		h := &history{cluster: c, rng: rand.New(rand.NewPCG(seed, 5)), socks: map[string]*client{}, shows: map[string]wire.State{}, owed: map[string]bool{}, ver: map[string][2]uint64{}}
		for i := range 8 {
			h.users = append(h.users, fmt.Sprint("u", i))
		}
		t.Cleanup(c.close)
		time.Sleep(4 * time.Second)     // until all has settled
		user(&c.world, "x", h.users...) // so that the edge has somebody who watches while w is away
		h.comes()
		for range 80 {
			if h.step(); len(h.wrong) > 0 {
				break
			}
		}
		h.converge()
		wrong, trace = h.wrong, strings.Join(h.trace, "\n")
	})
	return wrong, trace
}

func TestCoresSim(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed+1), func(t *testing.T) {
			if wrong, trace := play(t, seed+1, faults{}); len(wrong) > 0 {
				t.Fatalf("%s\n%s", trace, strings.Join(wrong, "\n"))
			}
		})
	}
}

// termless gives every message the highest term that any core has told of its shard, which is what an edge does that
// does not look at terms. All cores of an edge share it.
type termless struct {
	link.Edge
	terms *terms
}

type terms struct {
	mu      sync.Mutex
	highest [link.Shards]uint64
}

func (e *termless) Beat(b *link.Beat) {
	e.terms.mu.Lock()
	for i, n := range b.Shards {
		e.terms.highest[n] = max(e.terms.highest[n], b.Terms[i])
	}
	e.terms.mu.Unlock()
	e.Edge.Beat(b)
}

func (e *termless) Down(m *link.Down) {
	e.terms.mu.Lock()
	m.Term = max(m.Term, e.terms.highest[m.Shard])
	e.terms.mu.Unlock()
	e.Edge.Down(m)
}

// forgetful takes announcements only on the first epoch.
type forgetful struct{ link.Core }

func (k *forgetful) Up(m *link.Up) {
	if m.GetAnnounce() != nil && m.Epoch > 1 {
		return
	}
	k.Core.Up(m)
}

func defect(name string, f func() faults) injected.Bug {
	checkers := injected.Checkers{{Name: "false offline", Says: "is shown offline and"}, {Name: "monotone presence", Says: " after "}, {Name: "presence convergence", Says: "has a socket"}, {Name: "presence convergence", Says: "never shown"},
		{Name: "presence convergence", Says: "not let in"}}
	return injected.Bug{Name: name, In: "edge", Within: 20, Sample: 50, Try: func(t *testing.T, seed uint64) (checker, said string) {
		if wrong, _ := play(t, seed, f()); len(wrong) > 0 {
			return checkers.Of(wrong[0]), wrong[0]
		}
		return "", ""
	}}
}

var defects = []injected.Bug{
	defect("term check off at the edge", func() faults {
		all := &terms{}
		return faults{edge: func(e link.Edge) link.Edge { return &termless{e, all} }}
	}),
	defect("no re-announcement after a lost link", func() faults {
		return faults{core: func(k link.Core) link.Core { return &forgetful{Core: k} }}
	}),
}

// TestInjectedBugs shows that each turns a checker red.
func TestInjectedBugs(t *testing.T) { injected.Found(t, defects) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects) }
