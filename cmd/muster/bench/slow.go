//go:build linux

package bench

import (
	"fmt"
	"time"
)

const (
	slowWatched = 200    // users that change
	slowReaders = 200    // sessions that watch all of them and stop reading
	slowChanges = 10_000 // changes while they are stalled
)

// stall is the state of the scenario slow.
type stall struct {
	f       *fleet
	ring    []uint64 // per watched user: the last change sent
	seen    []uint64 // per (reader, watched user)
	readers []*member
}

// slow measures what a reader that stops reading holds in the server (P12).
func (r *runner) slow() error {
	res := newResult("slow", fmt.Sprintf("%d stalled readers, %d changes of %d watched users", slowReaders, slowChanges, slowWatched))
	t, err := r.server()
	if err != nil {
		return err
	}
	defer t.stop()
	f, err := newFleet(t, r.opt)
	if err != nil {
		return err
	}
	defer f.e.close()
	s, err := newStall(f)
	if err != nil {
		return r.done(res, err)
	}
	return r.done(res, r.stallAndResume(res, s))
}

func newStall(f *fleet) (*stall, error) {
	s := &stall{f: f, ring: make([]uint64, slowWatched), seen: make([]uint64, slowReaders*slowWatched)}
	all := make([]int, slowWatched)
	for i := range all {
		all[i] = i
		if _, err := f.add(i, "d1"); err != nil {
			return nil, err
		}
	}
	for i := range slowReaders {
		m, err := f.add(slowWatched+i, "d1", all...)
		if err != nil {
			return nil, err
		}
		m.rcvbuf = 4096
		s.readers = append(s.readers, m)
	}
	f.view = func(m *member, v view) {
		if m.user >= slowWatched && v.sent != 0 {
			s.seen[(m.user-slowWatched)*slowWatched+v.user] = v.seq
		}
	}
	return s, f.connect(f.members, 64, time.Minute, nil)
}

// burst makes all watched users change in turn, as fast as the server answers.
func (s *stall) burst(changes int) error {
	waiting := 0
	s.f.reply = func(*member) { waiting-- }
	for i := range changes {
		user := i % slowWatched
		s.ring[user]++
		waiting++
		s.f.e.send(&s.f.members[user].client, textFrame(`{"id":9,"status":{"state":"dnd","text":"%d.%d"}}`, s.ring[user], s.f.e.now()))
		for waiting > 100 {
			s.f.e.poll(time.Millisecond)
			if err := s.f.err(); err != nil {
				return err
			}
		}
	}
	if !s.f.e.until(10*time.Second, func() bool { return waiting == 0 }) {
		return fmt.Errorf("%d changes were not answered", waiting)
	}
	return s.f.err()
}

// behind counts the (reader, user) pairs whose last view is not the last change.
func (s *stall) behind() (n int) {
	for i := range s.readers {
		for user, seq := range s.ring {
			if s.seen[i*slowWatched+user] != seq {
				n++
			}
		}
	}
	return n
}

func (s *stall) heap() (usage, error) {
	s.f.t.collect()
	return s.f.t.usage()
}

func (r *runner) stallAndResume(res *Result, s *stall) error {
	converge := func() error {
		s.f.e.until(10*time.Second, func() bool { return s.behind() == 0 })
		if n := s.behind(); n > 0 {
			return fmt.Errorf("%d of %d views are not the last ones", n, len(s.seen))
		}
		return s.f.err()
	}
	// The same changes first with everybody reading, so that what the server keeps of
	// them anyway is not counted as held by the readers.
	if err := s.burst(slowChanges); err != nil {
		return err
	}
	if err := converge(); err != nil {
		return err
	}
	before, err := s.heap()
	if err != nil {
		return err
	}
	for _, m := range s.readers {
		s.f.e.pause(&m.client)
	}
	begin := time.Now()
	if err := s.burst(slowChanges); err != nil {
		return err
	}
	once, err := s.heap()
	if err != nil {
		return err
	}
	if err := s.burst(slowChanges); err != nil {
		return err
	}
	twice, err := s.heap()
	if err != nil {
		return err
	}
	stalled := time.Since(begin)
	missed := s.behind()
	for _, m := range s.readers {
		s.f.e.resume(&m.client)
	}
	err = converge()
	held := func(u usage) float64 { return float64(u.heap-before.heap) / slowReaders / 1024 }
	res.set("held_per_reader_KB", held(once))
	res.set("held_after_twice_the_changes_KB", held(twice))
	res.set("rss_per_reader_KB", float64(once.rss-before.rss)/slowReaders/1024)
	res.set("stalled_s", stalled.Seconds())
	res.set("views_behind_while_stalled", float64(missed))
	res.atMost("P12", "held_per_reader_KB", 16, 64)
	res.atMost("P12", "held_after_twice_the_changes_KB", 16, 64)
	if err == nil && missed == 0 {
		err = fmt.Errorf("no reader fell behind: the stall was not one")
	}
	return err
}
