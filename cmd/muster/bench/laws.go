//go:build linux

package bench

import (
	"fmt"
	"time"
)

// perChange changes the given users in turn, each at most five times a second, and
// returns the server's CPU per change in µs. last, if given, gets the number of the
// last change of each user.
func (r *runner) perChange(f *fleet, users []*member, last map[int]uint64) (float64, error) {
	const d = 4 * time.Second
	waiting, changes := 0, 0
	f.reply = func(*member) { waiting-- }
	interval := 200 * time.Millisecond / time.Duration(len(users))
	c, err := r.measured(f, func() error {
		begin := time.Now()
		for time.Since(begin) < d {
			due := time.Duration(changes) * interval
			for wait := due - time.Since(begin); wait > 0; wait = due - time.Since(begin) {
				f.e.pollFor(wait)
			}
			m := users[changes%len(users)]
			changes++
			waiting++
			if last != nil {
				last[m.user] = uint64(changes)
			}
			f.e.send(&m.client, textFrame(`{"id":9,"status":{"state":"dnd","text":"%d.%d"}}`, changes, f.e.now()))
		}
		if !f.e.until(5*time.Second, func() bool { return waiting == 0 }) {
			return fmt.Errorf("%d changes were not answered", waiting)
		}
		return f.err()
	})
	return 1e6 * c.cpu.Seconds() / float64(changes), err
}

// withFleet runs f with a server and a fleet of its own.
func (r *runner) withFleet(use func(*fleet) error, flags ...string) error {
	t, err := r.server(flags...)
	if err != nil {
		return err
	}
	defer t.stop()
	f, err := newFleet(t, r.opt)
	if err != nil {
		return err
	}
	defer f.e.close()
	return use(f)
}

func (r *runner) lawWatchers(*Result) (points []point, err error) {
	const each = 10 // users that change, per point
	sizes := []int{1, 10, 100, 1000}
	return points, r.withFleet(func(f *fleet) error {
		seen := map[[2]int]uint64{} // by watcher and watched user: the last change
		f.view = func(m *member, v view) { seen[[2]int{m.user, v.user}] = v.seq }
		users, err := crowds(f, sizes, each)
		if err != nil {
			return err
		}
		if err := f.connect(f.members, 128, time.Minute, nil); err != nil {
			return err
		}
		for i, size := range sizes {
			r.bar.Show("growth: watchers", float64(i), float64(len(sizes)))
			f.e.idle(500 * time.Millisecond)
			last := map[int]uint64{}
			cpu, err := r.perChange(f, users[i], last)
			if err != nil {
				return err
			}
			f.e.idle(500 * time.Millisecond)
			for user, seq := range last {
				for w := range size {
					if got := seen[[2]int{crowd + w, user}]; got != seq {
						return fmt.Errorf("watcher %d of %d saw change %d of u%d last, not %d", w, size, got, user, seq)
					}
				}
			}
			points = append(points, point{float64(size), cpu})
		}
		return nil
	})
}

// crowd is the number of the first watcher of crowds.
const crowd = 1000

// crowds adds groups of users, and watchers of whom the first sizes[i] watch group i.
func crowds(f *fleet, sizes []int, each int) (users [][]*member, err error) {
	users = make([][]*member, len(sizes))
	for i := range sizes {
		for k := range each {
			m, err := f.add(i*each+k, "d1")
			if err != nil {
				return nil, err
			}
			users[i] = append(users[i], m)
		}
	}
	for w := range sizes[len(sizes)-1] {
		var watch []int
		for i, size := range sizes {
			for k := range each {
				if w < size {
					watch = append(watch, i*each+k)
				}
			}
		}
		if _, err := f.add(crowd+w, "d1", watch...); err != nil {
			return nil, err
		}
	}
	return users, nil
}

func (r *runner) lawList(*Result) (points []point, err error) {
	const each = 10
	sizes := []int{5, 50, 500, 5000}
	return points, r.withFleet(func(f *fleet) error {
		var watch []int
		for i, size := range sizes {
			for k := range each {
				list := make([]int, size)
				for j := range list {
					list[j] = 100_000 + j
				}
				if _, err := f.add(i*each+k, "d1", list...); err != nil {
					return err
				}
				if err := f.t.addContacts(i*each+k, list); err != nil {
					return err
				}
				watch = append(watch, i*each+k)
			}
		}
		users := f.members
		for w := range 10 {
			if _, err := f.add(1000+w, "d1", watch...); err != nil {
				return err
			}
		}
		if err := f.connect(f.members, 16, time.Minute, nil); err != nil {
			return err
		}
		for i, size := range sizes {
			r.bar.Show("growth: list", float64(i), float64(len(sizes)))
			f.e.idle(time.Second)
			cpu, err := r.perChange(f, users[i*each:(i+1)*each], nil)
			if err != nil {
				return err
			}
			points = append(points, point{float64(size), cpu})
		}
		return nil
	})
}

// heapOver returns the live heap above base, in KB.
func heapOver(t *target, base int64) (float64, error) {
	t.collect()
	u, err := t.usage()
	return float64(u.heap-base) / 1024, err
}

func (r *runner) lawOnline(*Result) (points []point, err error) {
	return points, r.withFleet(func(f *fleet) error {
		base, err := heapOver(f.t, 0)
		if err != nil {
			return err
		}
		for _, n := range []int{8, 80, 800, 8000} {
			r.bar.Show("growth: online", float64(n), 8000)
			from := len(f.members)
			for i := from; i < n; i++ {
				if _, err := f.add(i, "d1"); err != nil {
					return err
				}
			}
			if err := f.connect(f.members[from:], 128, time.Minute, nil); err != nil {
				return err
			}
			f.e.idle(time.Second)
			kb, err := heapOver(f.t, int64(base*1024))
			if err != nil {
				return err
			}
			points = append(points, point{float64(n), kb})
		}
		return f.err()
	})
}

func (r *runner) lawGone(res *Result) (points []point, err error) {
	return points, r.withFleet(func(f *fleet) error {
		// A thousand first: what the server allocates once is not a cost per user.
		if err := r.comeAndGo(f, 1000); err != nil {
			return err
		}
		base, err := heapOver(f.t, 0)
		if err != nil {
			return err
		}
		gone := 0
		for _, n := range []int{10, 100, 1000, 10_000} {
			r.bar.Show("growth: gone", float64(n), 10_000)
			if err := r.comeAndGo(f, n-gone); err != nil {
				return err
			}
			gone = n
			f.e.idle(time.Second)
			kb, err := heapOver(f.t, int64(base*1024))
			if err != nil {
				return err
			}
			points = append(points, point{float64(n), kb})
			res.set("bytes_per_user_who_left", kb*1024/float64(n))
		}
		return f.err()
	})
}

// comeAndGo lets n new users connect and say bye.
func (r *runner) comeAndGo(f *fleet, n int) error {
	for n > 0 {
		batch := min(n, 1000)
		from := len(f.members)
		for i := range batch {
			if _, err := f.add(from+i, "d1"); err != nil {
				return err
			}
		}
		part := f.members[from:]
		if err := f.connect(part, 64, time.Minute, nil); err != nil {
			return err
		}
		if err := f.bye(part, 10*time.Second); err != nil {
			return err
		}
		n -= batch
	}
	return nil
}

func (r *runner) lawFlaps(*Result) (points []point, err error) {
	return points, r.withFleet(func(f *fleet) error {
		saw := 0
		f.view = func(m *member, _ view) {
			if m.user > 0 {
				saw++
			}
		}
		for i := range 20 {
			if _, err := f.add(1+i, "d1", 0); err != nil {
				return err
			}
		}
		if _, err := f.add(0, "d1"); err != nil {
			return err
		}
		if err := f.connect(f.members, 30, 10*time.Second, nil); err != nil {
			return err
		}
		if !f.e.until(5*time.Second, func() bool { return saw >= 20 }) {
			return fmt.Errorf("%d of 20 watchers saw the user come", saw)
		}
		flapper := f.members[20:]
		for _, n := range []int{1, 10, 100, 1000} {
			r.bar.Show("growth: flaps", float64(n), 1000)
			saw = 0
			for range n {
				f.cut(flapper)
				if err := f.connect(flapper, 1, 5*time.Second, nil); err != nil {
					return err
				}
			}
			f.e.idle(time.Second)
			points = append(points, point{float64(n), float64(saw)})
		}
		return f.err()
	})
}

func (r *runner) lawStorm(*Result) (points []point, err error) {
	return points, r.withFleet(func(f *fleet) error {
		const n = 5000
		if _, err := newBoard(f, n, idleWatches); err != nil {
			return err
		}
		if err := f.connect(f.members, 128, time.Minute, nil); err != nil {
			return err
		}
		for _, size := range []int{5, 50, 500, 5000} {
			r.bar.Show("growth: storm", float64(size), n)
			f.e.idle(time.Second)
			part := f.members[:size]
			c, err := r.measured(f, func() error {
				f.cut(part)
				return f.connect(part, 128, time.Minute, nil)
			})
			if err != nil {
				return err
			}
			points = append(points, point{float64(size), 1e3 * c.cpu.Seconds()})
		}
		return f.err()
	})
}

func (r *runner) lawJoins(*Result) (points []point, err error) {
	return points, r.withFleet(func(f *fleet) error {
		for i := range 222 {
			if _, err := f.add(i, "d1"); err != nil {
				return err
			}
		}
		if err := f.connect(f.members, 64, 20*time.Second, nil); err != nil {
			return err
		}
		from := 0
		for _, n := range []int{2, 20, 200} {
			joined := 0
			f.reply = func(*member) { joined++ }
			part := f.members[from : from+n]
			from += n
			f.e.idle(300 * time.Millisecond)
			frames, pings := f.e.frames, f.e.pings
			for _, m := range part {
				f.e.send(&m.client, textFrame(`{"id":5,"room.enter":{"room":"r%d"}}`, n))
			}
			if !f.e.until(10*time.Second, func() bool { return joined >= n || len(f.failures) > 0 }) {
				return fmt.Errorf("%d of %d entered", joined, n)
			}
			f.e.idle(time.Second)
			points = append(points, point{float64(n), float64(f.e.frames - frames - (f.e.pings - pings))})
		}
		return f.err()
	})
}
