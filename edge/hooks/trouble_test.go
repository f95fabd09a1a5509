package hooks

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
)

// A batch that is refused goes again, with the same id and body, with pauses up to 20 s; nothing overtakes it; and what is
// not known to be taken is sent again.
func TestTriedAgain(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		r.set(func(*http.Request, *batch) int { return 500 })
		s.happen(1, 3)
		s.happen(2, 3)
		open(d, 1)
		began := time.Now()
		rest(10 * time.Minute)
		r.set(nil)
		open(d, 2)
		if !slices.Equal(r.seqs(2), upTo(3)) {
			t.Fatal("one shard's refusal stops another")
		}
		if n := len(r.all().ids); n < 45 || n > 120 || s.at(1) != 0 {
			t.Fatalf("%d tries in 10 min, cursor %d", n, s.at(1))
		}
		all := r.all()
		for i, id := range all.ids[:len(all.ids)-1] {
			if id != all.ids[0] || !bytes.Equal(all.bodies[i], all.bodies[0]) {
				t.Fatalf("%s became %s", all.ids[0], id)
			}
		}
		s.happen(1, 2)
		rest(21 * time.Second)
		if got := r.seqs(1); !slices.Equal(got, upTo(5)) {
			t.Fatalf("%v after %v", got, time.Since(began))
		}
		// Taken, but the cursor cannot be moved: once more.
		s.happen(1, 1)
		r.set(func(*http.Request, *batch) int { s.broken(errors.New("disk")); return 200 })
		d.Notify(1)
		synctest.Wait()
		r.set(nil)
		s.broken(nil)
		rest(time.Minute)
		if got := r.seqs(1); !slices.Equal(got, append(upTo(5), 6, 6)) {
			t.Fatalf("%v", got)
		}
	})
}

// Retry-After is obeyed, as seconds and as a date.
func TestRetryAfter(t *testing.T) {
	for _, h := range []func() string{
		func() string { return "300" },
		func() string { return time.Now().Add(300 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
			r.mu.Lock()
			r.header = http.Header{"Retry-After": {h()}}
			r.mu.Unlock()
			r.set(func(*http.Request, *batch) int { return 429 })
			s.happen(1, 1)
			open(d, 1)
			r.set(nil)
			rest(299 * time.Second)
			if len(r.all().ids) != 1 {
				t.Fatalf("%d requests", len(r.all().ids))
			}
			rest(2 * time.Second)
			if s.at(1) != 1 {
				t.Fatal("not sent again")
			}
		})
	}
	for h, want := range map[string]time.Duration{"": 0, "x": 0, "-1": 0, "0": 0, "7": 7 * time.Second, "99999999999": 0, "Mon, 01 Jan 2001 00:00:00 GMT": 0} {
		if got := wanted(h, time.Now()); got != want {
			t.Errorf("%q: %v, want %v", h, got, want)
		}
	}
}

// What is refused for a day becomes dead letters, in the write that goes on.
func TestDeadLetters(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		poison := func(_ *http.Request, b *batch) int {
			if b.Events[0].Seq <= 3 {
				return 400
			}
			return 200
		}
		r.set(poison)
		s.happen(1, 3)
		open(d, 1)
		rest(23 * time.Hour)
		s.happen(1, 3)
		rest(59 * time.Minute)
		if len(s.dead()) != 0 || s.at(1) != 0 {
			t.Fatalf("given up early: %d letters", len(s.dead()))
		}
		rest(2 * time.Minute)
		if len(s.dead()) != 3 || s.dead()[0].Seq != 1 || s.at(1) != 6 || !slices.Equal(r.seqs(1), []uint64{4, 5, 6}) {
			t.Fatalf("letters %v, cursor %d, taken %v", s.dead(), s.at(1), r.seqs(1))
		}
	})
	// What is old when it is first sent, as after a long stop, has its minute.
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		r.set(func(*http.Request, *batch) int { return 503 })
		s.happen(1, 1)
		s.happen(2, 1)
		rest(48 * time.Hour)
		open(d, 1)
		open(d, 2)
		rest(50 * time.Second)
		if len(s.dead()) != 0 {
			t.Fatal("given up at once")
		}
		rest(40 * time.Second)
		if len(s.dead()) != 2 {
			t.Fatalf("%d letters", len(s.dead()))
		}
	})
}

// Leadership moves: the old worker's request is given up, and the new one begins when it has ended, from the cursor.
func TestLeadership(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		var here, most atomic.Int32
		r.set(func(q *http.Request, _ *batch) int {
			if n := here.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer here.Add(-1)
			select {
			case <-time.After(3 * time.Second):
			case <-q.Context().Done():
				<-time.After(500 * time.Millisecond) // it takes a while to notice
			}
			return 200
		})
		s.happen(1, 1)
		d.Opened(1, 1, 1, 0)
		rest(time.Second)
		d.Closed(1, 1)
		d.Opened(1, 2, 1, 0)
		d.Opened(1, 2, 1, 0) // once
		d.Opened(1, 1, 1, 0) // late
		d.Closed(1, 1)       // late
		rest(2 * time.Second)
		if s.at(1) != 0 || len(r.all().taken) != 0 {
			t.Fatal("a closed shard's request counted")
		}
		rest(2 * time.Second)
		if s.at(1) != 1 || len(r.all().taken) != 1 || len(r.all().ids) != 2 || most.Load() != 1 {
			t.Fatalf("cursor %d, taken %d of %d, %d at once", s.at(1), len(r.all().taken), len(r.all().ids), most.Load())
		}
		d.Closed(1, 2)
		synctest.Wait()
		s.happen(1, 1)
		d.Notify(1)
		rest(time.Minute)
		if len(r.all().ids) != 2 || d.Replay(context.Background(), 1, 0) != ErrNotHere {
			t.Fatal("a closed shard goes on")
		}
		s.broken(errors.New("not led")) // not yet, the core says
		d.Opened(1, 3, 1, 0)
		rest(time.Minute)
		s.broken(nil)
		rest(time.Minute)
		if s.at(1) != 2 {
			t.Fatal("never began")
		}
	})
}

// A worker goes back when it is told to, at rest or while it is refused, and never on.
func TestReplay(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		s.happen(1, 5)
		open(d, 1)
		rest(time.Second)
		back := func(seq uint64) {
			t.Helper()
			if err := d.Replay(context.Background(), 1, seq); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			rest(time.Second)
		}
		back(3)
		back(9)
		if got := r.seqs(1); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 4, 5}) || s.at(1) != 5 {
			t.Fatalf("%v, cursor %d", got, s.at(1))
		}
		r.set(func(*http.Request, *batch) int { return 500 })
		s.happen(1, 1)
		d.Notify(1)
		rest(time.Minute)
		if err := d.Replay(context.Background(), 1, 4); err != nil || s.at(1) != 4 {
			t.Fatalf("%v, cursor %d", err, s.at(1))
		}
		r.set(nil)
		rest(time.Minute)
		if got := r.seqs(1); !slices.Equal(got[7:], []uint64{5, 6}) {
			t.Fatalf("%v", got)
		}
		if err := d.Replay(context.Background(), 9, 0); err != ErrNotHere {
			t.Fatal(err)
		}
		r.set(func(q *http.Request, _ *batch) int { <-q.Context().Done(); return 200 })
		s.happen(1, 1)
		d.Notify(1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := d.Replay(ctx, 1, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// A receiver that does not answer has 10 s; not more than so many requests are on the way; what was dropped
// before it was sent is said.
func TestBoundsAndGaps(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		var here, most atomic.Int32
		r.set(func(q *http.Request, _ *batch) int {
			if n := here.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer here.Add(-1)
			<-q.Context().Done()
			return 200
		})
		for shard := range uint32(link.Shards) {
			s.happen(shard, 1)
			d.Opened(shard, 1, 1, 0)
		}
		rest(9 * time.Second)
		if n := len(r.all().ids); n != 8 || most.Load() != 8 {
			t.Fatalf("%d requests, %d at once", n, most.Load())
		}
		rest(2 * time.Second)
		if n := len(r.all().ids); n != 16 {
			t.Fatalf("%d requests after a time-out", n)
		}
		if lag := d.lag(); lag < 10 || lag > 12 {
			t.Fatalf("lag %v", lag)
		}
		r.set(nil)
		rest(2 * time.Minute)
		if d.lag() != 0 || len(r.all().taken) != link.Shards {
			t.Fatalf("lag %v, %d taken", d.lag(), len(r.all().taken))
		}
		s.mu.Lock()
		s.first[1] = 4
		s.mu.Unlock()
		s.happen(1, 4)
		d.Notify(1)
		rest(time.Second)
		b := r.all().taken[len(r.all().taken)-1]
		if b.Missed == nil || *b.Missed != (gap{2, 3}) || len(b.Events) != 2 || b.Events[0].Seq != 4 {
			t.Fatalf("%+v", b)
		}
		s.happen(1, 1)
		d.Notify(1)
		rest(time.Second)
		if b := r.all().taken[len(r.all().taken)-1]; b.Missed != nil {
			t.Fatal("said twice")
		}
	})
}
