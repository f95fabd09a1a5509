package muster

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"muster/clients/wire"
)

var seed = flag.Uint64("seed", 0, "run one seed of TestViewSim")

// world is a server's truth about some users, and what it has sent on the way to a view.
type world struct {
	r       *rand.Rand
	users   []string
	state   map[string]wire.State
	ver     map[string]uint64
	counter uint64
	v       *View
	sock    *socket
	wire    []func() // in flight on the present socket, in order
	late    []func() // pushes of sockets that were left
	pending map[string]bool
	trace   []string
}

func (w *world) view(user string) *wire.Presence {
	return &wire.Presence{User: user, State: w.state[user], Ver: []uint64{7, w.ver[user]}}
}

// change gives a user another state and sends it, as an edge would, to those who know of the watch.
func (w *world) change() {
	user := w.users[w.r.IntN(len(w.users))]
	w.counter++
	w.ver[user] = w.counter
	w.state[user] = wire.State(1 + w.r.IntN(4))
	if w.sock != nil && !w.pending[user] {
		w.push(user)
	}
}

func (w *world) push(user string) {
	s, p := w.sock, []*wire.Presence{w.view(user)}
	for range 1 + w.r.IntN(2) { // now and then twice
		if w.v.from != s { // a socket in use until the new one has answered: make before break
			w.v.push(w.v.from, p)
		}
		f := func() { w.v.push(s, p) }
		w.wire = append(w.wire, f)
		if w.r.IntN(4) == 0 { // the reader of a socket may be behind when the client has moved on
			w.late = append(w.late, f)
		}
	}
}

// connect answers with a snapshot, in parts; what is offline is left out, some are pending.
func (w *world) connect() {
	w.wire = nil
	s := &socket{}
	snap := w.v.snapshot(w.v.watched())
	w.sock, w.pending = s, map[string]bool{}
	var list []*wire.Presence
	var pending []string
	for _, u := range w.users {
		switch {
		case w.r.IntN(6) == 0:
			w.pending[u] = true
			pending = append(pending, u)
		case w.state[u] != wire.State_STATE_OFFLINE:
			list = append(list, w.view(u))
		}
	}
	cut := w.r.IntN(len(list) + 1)
	w.wire = append(w.wire, func() {
		w.v.adopt(s, snap)
		snap.part(list[:cut], pending, false)
	}, func() { snap.part(list[cut:], nil, true) })
}

func (w *world) deliver(n int) {
	for ; n > 0 && len(w.wire) > 0; n-- {
		f := w.wire[0]
		w.wire = w.wire[1:]
		f()
	}
}

func (w *world) step() {
	switch w.r.IntN(12) {
	case 0:
		w.connect()
	case 1: // the connection breaks
		w.v.lost(w.sock)
		w.sock, w.wire = nil, nil
	case 2: // a settled shard answers for a pending user
		for _, u := range w.users {
			if w.sock != nil && w.pending[u] {
				delete(w.pending, u)
				w.push(u)
				break
			}
		}
	case 3: // something late from a socket that was left
		if len(w.late) > 0 {
			w.late[0]()
			w.late = w.late[1:]
		}
	case 4, 5, 6:
		w.deliver(1 + w.r.IntN(3))
	default:
		w.change()
	}
	for _, u := range w.users {
		p := w.v.Get(u)
		w.trace = append(w.trace, fmt.Sprint(p.State, p.Stale, p.Version.Number))
	}
}

func simulate(t *testing.T, seed uint64) []string {
	w := &world{
		r: rand.New(rand.NewPCG(seed, 2)), users: []string{"a", "b", "c", "d"}, v: newView(make(chan struct{})),
		state: map[string]wire.State{}, ver: map[string]uint64{}, pending: map[string]bool{},
	}
	w.v.watch(w.users)
	for _, u := range w.users {
		w.state[u] = wire.State_STATE_OFFLINE
	}
	last := map[string]Presence{}
	feed := newFeed[Presence]()
	w.v.feeds[feed] = struct{}{}
	for range 200 {
		w.step()
		for {
			ch, ok := w.v.next(feed)
			if !ok {
				break
			}
			if before, ok := last[ch.User]; ok && !before.equal(ch.Before) || !ok && ch.Before.State != Unknown {
				t.Fatalf("seed %d: %s: a change from %+v, the reader had %+v", seed, ch.User, ch.Before, before)
			}
			if ch.Kind == Enter == (ch.Before.State.Present() || !ch.Presence.State.Present()) {
				t.Fatalf("seed %d: %s of %s: %s to %s", seed, ch.Kind, ch.User, ch.Before.State, ch.Presence.State)
			}
			last[ch.User] = ch.Presence
		}
	}
	// Quiet: everything arrives. Then the view is the truth, or says that it does not know.
	w.connect()
	w.deliver(len(w.wire))
	for _, f := range w.late {
		f()
	}
	for u := range w.pending {
		if p := w.v.Get(u); p.State != Unknown && !p.Stale {
			t.Fatalf("seed %d: %s is pending, the view says %+v", seed, u, p)
		}
	}
	for _, u := range w.users {
		if w.pending[u] {
			w.push(u)
		}
	}
	w.deliver(len(w.wire))
	for _, u := range w.users {
		if p := w.v.Get(u); p.State != State(w.state[u].Name()) || p.Stale {
			t.Fatalf("seed %d: %s is %s, the view says %+v", seed, u, w.state[u].Name(), p)
		}
	}
	return w.trace
}

// Whatever is lost, late or twice: the view ends at the truth, and each reader's changes join up.
func TestViewSim(t *testing.T) {
	first, n := uint64(1), uint64(300)
	if *seed != 0 {
		first, n = *seed, 1
	}
	for s := first; s < first+n; s++ {
		if a, b := simulate(t, s), simulate(t, s); !slices.Equal(a, b) {
			t.Fatalf("seed %d: two runs differ", s)
		}
	}
}

func TestManyReaders(t *testing.T) {
	v := newView(make(chan struct{}))
	s := &socket{}
	v.watch([]string{"ann"})
	v.adopt(s, v.snapshot(nil))
	ctx, cancel := context.WithCancel(t.Context())
	const readers, versions = 8, 500
	finished := make(chan uint64, readers)
	for range readers {
		go func() {
			var n uint64
			for ch := range v.Changes(ctx) {
				if !ch.Presence.Version.Newer(ch.Before.Version) {
					t.Errorf("%v after %v", ch.Presence.Version, ch.Before.Version)
				}
				if n = ch.Presence.Version.Number; n == versions {
					break
				}
			}
			finished <- n
		}()
	}
	for n := range uint64(versions) {
		v.push(s, []*wire.Presence{{User: "ann", State: wire.State(1 + n%3), Ver: []uint64{1, n + 1}}})
	}
	for range readers {
		if n := <-finished; n != versions {
			t.Errorf("a reader ended at %d", n)
		}
	}
	cancel()
	if len(v.feeds) != 0 {
		t.Errorf("%d feeds are left", len(v.feeds))
	}
}
