//go:build linux

package bench

import (
	"strings"
	"testing"
	"time"
)

// newTestRing is a ring of 4 users, each watched by 2, without sockets.
func newTestRing(t *testing.T) *ring {
	t.Helper()
	e, err := newEngine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	f := &fleet{e: e, t: &target{}, opt: Options{Key: childKey}, token: map[int]string{}}
	r, err := newRing(f, 4, 2, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRingFindsWhatIsWrong(t *testing.T) {
	push := func(user, seq string) []byte {
		return []byte(`{"push":{"presence":[{"user":"u` + user + `","state":"dnd","text":"` + seq + `.7"}]}}`)
	}
	deliver := func(r *ring, watcher int, line_ []byte) { line(&r.f.members[watcher].client, line_) }

	r := newTestRing(t)
	r.seq[0] = 2
	deliver(r, 1, push("0", "2"))
	if err := r.settle(time.Millisecond); err == nil || !strings.Contains(err.Error(), "1 of 8 watches") {
		t.Errorf("a watcher without the last change: %v", err)
	}
	deliver(r, 2, push("0", "2"))
	if err := r.settle(time.Millisecond); err != nil || r.delivered != 2 {
		t.Errorf("all have it: %v, %d deliveries", err, r.delivered)
	}
	deliver(r, 2, push("0", "2"))
	if err := r.f.err(); err != nil || r.delivered != 2 {
		t.Errorf("the same again: %v, %d deliveries", err, r.delivered)
	}
	deliver(r, 2, push("0", "1"))
	if r.f.err() == nil {
		t.Error("an older change after a newer one is not found")
	}
	r = newTestRing(t)
	deliver(r, 3, push("0", "1"))
	if r.f.err() == nil {
		t.Error("a change of an unwatched user is not found")
	}
	r = newTestRing(t)
	deliver(r, 3, []byte(`{"id":9,"error":{"code":111,"name":"RATE_LIMITED"}}`))
	if r.f.err() == nil {
		t.Error("an error reply is not found")
	}
}

func TestChurnFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		at    cycleStep
		state byte
		wrong bool
	}{
		"online while coming":   {coming, 'n', false},
		"offline while leaving": {leaving, 'f', false},
		"offline while coming":  {coming, 'f', true},
		"online after the end":  {away, 'n', true},
		"away":                  {coming, 'a', true},
	} {
		f := &fleet{}
		ch := &churner{f: f, all: 1<<churnWatchers - 1, cycles: make([]cycle, 1)}
		ch.cycles[0] = cycle{m: &member{f: f}, at: c.at}
		ch.view(&member{f: f, user: 0}, view{user: churnWatchers, state: c.state})
		if got := f.err() != nil; got != c.wrong {
			t.Errorf("%s: %v", name, f.err())
		}
	}
}

func TestBoardCountsWhatIsMissing(t *testing.T) {
	e, err := newEngine()
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	f := &fleet{e: e, t: &target{}, opt: Options{Key: childKey}, token: map[int]string{}}
	b, err := newBoard(f, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	for watcher, user := range []int{2, 0, 1} {
		if n := b.missing('n'); n != 3-watcher {
			t.Errorf("%d missing, want %d", n, 3-watcher)
		}
		b.view(f.members[watcher], view{user: user, state: 'n'})
	}
	if n := b.missing('n'); n != 0 {
		t.Errorf("%d missing", n)
	}
	b.view(f.members[0], view{user: 1, state: 'n'})
	if f.err() == nil {
		t.Error("a view of an unwatched user is not found")
	}
}

func TestLawsAreJudged(t *testing.T) {
	steep := law{name: "x", cost: "y", most: 1, noise: 1}
	r := newResult("growth", "x")
	if err := steep.judge(r, []point{{1, 1}, {10, 100}, {100, 10_000}}); err != nil {
		t.Fatal(err)
	}
	if s := r.Values["slope"]; s < 1.99 || s > 2.01 || r.Goals[0].Met || !r.Goals[0].Bad {
		t.Errorf("slope %v, %+v", s, r.Goals)
	}
	zero := law{name: "x", cost: "y", exact: true}
	if err := zero.judge(newResult("growth", "x"), []point{{1, 0}, {10, 1}}); err == nil {
		t.Error("a frame where none is allowed is not found")
	}
}
