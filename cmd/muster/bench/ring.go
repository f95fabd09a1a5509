//go:build linux

package bench

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ring is n users in a circle, each watched by the width users after it. Every change
// carries a sequence number of its user and the time at which it was sent.
type ring struct {
	f         *fleet
	n, width  int
	floor     bool     // the server relays; no replies
	seq       []uint64 // per user: the last change sent
	seen      []uint64 // per (watcher, distance): the last change that arrived
	delivered uint64
	latency   *hdrhistogram.Histogram // ns
	late      *hdrhistogram.Histogram // ns by which the generator missed its own schedule
	next      int
	waiting   int // replies that are due
}

func newRing(f *fleet, n, width int, floor bool) (*ring, error) {
	r := &ring{
		f: f, n: n, width: width, floor: floor,
		seq: make([]uint64, n), seen: make([]uint64, n*width),
	}
	r.reset()
	f.view = r.view
	f.reply = func(*member) { r.waiting-- }
	for i := range n {
		watch := make([]int, width)
		for d := range watch {
			watch[d] = (i - d - 1 + n) % n
		}
		m, err := f.add(i, "d1", watch...)
		if err != nil {
			return nil, err
		}
		if floor {
			m.watch = nil
			m.upgrade = upgradeRequest(f.t.addr.String(), fmt.Sprintf("/floor?i=%d", i))
		}
	}
	return r, nil
}

func (r *ring) reset() {
	r.latency = hdrhistogram.New(1_000, 60_000_000_000, 3)
	r.late = hdrhistogram.New(1_000, 60_000_000_000, 3)
	r.delivered = 0
}

func (r *ring) view(m *member, v view) {
	d := m.user - v.user
	if d < 0 {
		d += r.n
	}
	if v.user < 0 || d < 1 || d > r.width {
		r.f.fail(fmt.Errorf("u%d was sent u%d, whom it does not watch", m.user, v.user))
		return
	}
	if v.sent == 0 {
		return // an online state without a change
	}
	slot := &r.seen[m.user*r.width+d-1]
	if v.seq < *slot {
		r.f.fail(fmt.Errorf("u%d saw change %d of u%d after change %d", m.user, v.seq, v.user, *slot))
	}
	if v.seq > *slot {
		*slot = v.seq
		r.delivered++
		_ = r.latency.RecordValue(max(r.f.e.now()-v.sent, 1_000))
	}
}

// change makes a user change.
func (r *ring) change(user int) {
	r.seq[user]++
	now := r.f.e.now()
	m := r.f.members[user]
	if r.floor {
		r.f.e.send(&m.client, textFrame(`{"push":{"presence":[{"user":"u%d","state":"dnd","ver":[1700000000,%d],"since_at":1700000000000,"text":"%d.%d"}]}}`, user, r.seq[user], r.seq[user], now))
		return
	}
	r.waiting++
	r.f.e.send(&m.client, textFrame(`{"id":9,"status":{"state":"dnd","text":"%d.%d"}}`, r.seq[user], now))
}

// nextUser goes round in strides, so that neighbours do not change one after another.
func (r *ring) nextUser() int {
	const stride = 617
	r.next = (r.next + stride) % r.n
	return r.next
}

// paced changes at a fixed rate, whatever the server does.
func (r *ring) paced(perSecond float64, d time.Duration, progress func(float64)) error {
	begin := time.Now()
	for i := 0; ; i++ {
		due := time.Duration(float64(i) / perSecond * float64(time.Second))
		if due >= d {
			return r.f.err()
		}
		for wait := due - time.Since(begin); wait > 0; wait = due - time.Since(begin) {
			r.f.e.pollFor(wait)
		}
		_ = r.late.RecordValue(max(int64(time.Since(begin)-due), 1_000))
		r.change(r.nextUser())
		if i&63 == 0 {
			progress(due.Seconds())
			if err := r.f.err(); err != nil {
				return err
			}
		}
	}
}

// saturate keeps width changes unanswered all the time.
func (r *ring) saturate(outstanding int, d time.Duration, progress func(float64)) error {
	begin := time.Now()
	for time.Since(begin) < d {
		for r.waiting < outstanding {
			r.change(r.nextUser())
		}
		r.f.e.poll(5 * time.Millisecond)
		if err := r.f.err(); err != nil {
			return err
		}
		progress(time.Since(begin).Seconds())
	}
	return nil
}

// rounds gives every watcher one change at a time: users whose watchers are disjoint
// change together, and the next round begins when everyone has seen this one.
func (r *ring) rounds(d time.Duration, progress func(float64)) error {
	begin := time.Now()
	for round := 0; time.Since(begin) < d; round++ {
		from := r.delivered
		want := uint64(0)
		for user := round % r.width; user+r.width <= r.n; user += r.width {
			r.change(user)
			want += uint64(r.width)
		}
		if !r.f.e.until(10*time.Second, func() bool { return r.delivered-from >= want || len(r.f.failures) > 0 }) {
			return fmt.Errorf("round %d: %d of %d deliveries after 10 s", round, r.delivered-from, want)
		}
		if err := r.f.err(); err != nil {
			return err
		}
		progress(time.Since(begin).Seconds())
	}
	return nil
}

// backlog lets rounds pile up unread, one frame on each socket, and returns how many a
// second of the generator's CPU reads: the most that the generator can take uncoalesced.
func (r *ring) backlog(rounds int) (perSecond float64, err error) {
	var busy time.Duration
	from := r.delivered
	for round := range rounds {
		want := r.delivered
		for user := round % r.width; user+r.width <= r.n; user += r.width {
			r.change(user)
			want += uint64(r.width)
		}
		<-time.After(time.Duration(r.n) * 40 * time.Microsecond)
		before := selfCPU()
		if !r.f.e.until(10*time.Second, func() bool { return r.delivered >= want }) {
			return 0, fmt.Errorf("backlog: %d deliveries are missing after 10 s", want-r.delivered)
		}
		busy += selfCPU() - before
	}
	return float64(r.delivered-from) / busy.Seconds(), r.f.err()
}

// settle waits until every watcher has the last change of everyone it watches.
func (r *ring) settle(limit time.Duration) error {
	r.f.e.until(limit, func() bool { return r.behind() == 0 && r.waiting <= 0 })
	if n := r.behind(); n > 0 {
		return fmt.Errorf("%d of %d watches do not show the last change after %v", n, len(r.seen), limit)
	}
	if r.waiting > 0 {
		return fmt.Errorf("%d status commands were not answered after %v", r.waiting, limit)
	}
	return r.f.err()
}

func (r *ring) behind() (n int) {
	for user, seq := range r.seq {
		for d := 1; d <= r.width; d++ {
			if r.seen[(user+d)%r.n*r.width+d-1] != seq {
				n++
			}
		}
	}
	return n
}
