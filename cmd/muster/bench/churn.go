//go:build linux

package bench

import (
	"fmt"
	"time"
)

const (
	churnPool     = 4000
	churnWatchers = 20
	churnAtOnce   = 1000
)

// cycle is where one user of the pool is: connect, seen online by all watchers, bye,
// seen offline by all watchers.
type cycle struct {
	m        *member
	at       cycleStep
	saw      uint32 // watchers that have seen what this step waits for
	finished uint64
}

type cycleStep uint8

const (
	away cycleStep = iota
	coming
	leaving
)

// churner drives the pool.
type churner struct {
	f      *fleet
	cycles []cycle // user churnWatchers+i
	free   []int
	active int
	done   uint64
	all    uint32
}

func newChurner(f *fleet) (*churner, error) {
	ch := &churner{f: f, all: 1<<churnWatchers - 1, cycles: make([]cycle, churnPool)}
	pool := make([]int, churnPool)
	for i := range pool {
		pool[i] = churnWatchers + i
		ch.free = append(ch.free, i)
	}
	for i := range churnWatchers {
		if _, err := f.add(i, "d1", pool...); err != nil {
			return nil, err
		}
	}
	for i := range ch.cycles {
		m, err := f.add(churnWatchers+i, "d1")
		if err != nil {
			return nil, err
		}
		ch.cycles[i].m = m
	}
	f.view = ch.view
	if err := f.connect(f.members[:churnWatchers], churnWatchers, 20*time.Second, nil); err != nil {
		return nil, err
	}
	f.e.quiet(300*time.Millisecond, 20*time.Second) // views that were pending in the answers
	return ch, nil
}

func (ch *churner) view(m *member, v view) {
	i := v.user - churnWatchers
	if m.user >= churnWatchers || i < 0 || i >= len(ch.cycles) {
		return
	}
	c := &ch.cycles[i]
	switch {
	case v.state == 'n' && c.at == coming, v.state == 'f' && c.at == leaving:
		c.saw |= 1 << m.user
		ch.step(i)
	case v.state == 'n' && c.at == leaving, v.state == 'f' && c.at == away:
		// seen again
	default:
		ch.f.fail(fmt.Errorf("watcher u%d was told %q of u%d in step %d", m.user, v.state, v.user, c.at))
	}
}

// step goes on when everyone has seen the present step.
func (ch *churner) step(i int) {
	c := &ch.cycles[i]
	if c.saw != ch.all {
		return
	}
	switch {
	case c.at == coming && c.m.ready:
		c.at, c.saw = leaving, 0
		c.m.leaving = true
		ch.f.e.send(&c.m.client, byeFrame)
	case c.at == leaving && c.m.phase == closed:
		c.at, c.saw = away, 0
		c.m.session = ""
		c.finished++
		ch.done++
		ch.active--
		ch.free = append(ch.free, i)
	}
}

func (ch *churner) start() error {
	i := ch.free[0]
	ch.free = ch.free[1:]
	c := &ch.cycles[i]
	c.at, c.saw = coming, 0
	c.m.leaving, c.m.session = false, ""
	ch.active++
	c.m.gone = func(cl *client, err error) {
		gone(cl, err)
		ch.step(i)
	}
	c.m.after = func() { ch.step(i) }
	return ch.f.e.dial(&c.m.client, ch.f.t.addr)
}

// run keeps the pool busy for the time given; perSecond 0: as fast as it goes.
func (ch *churner) run(d time.Duration, perSecond float64, tick func(elapsed time.Duration)) error {
	begin := time.Now()
	started := 0.0
	for elapsed := time.Duration(0); elapsed < d; elapsed = time.Since(begin) {
		for ch.active < churnAtOnce && len(ch.free) > 0 && (perSecond == 0 || started < elapsed.Seconds()*perSecond) {
			if err := ch.start(); err != nil {
				return err
			}
			started++
		}
		ch.f.e.poll(2 * time.Millisecond)
		if err := ch.f.err(); err != nil {
			return err
		}
		tick(elapsed)
	}
	return nil
}

// drain lets the running cycles end.
func (ch *churner) drain(limit time.Duration) error {
	if !ch.f.e.until(limit, func() bool { return ch.active == 0 || len(ch.f.failures) > 0 }) {
		return fmt.Errorf("%d users are not seen offline by all watchers after %v", ch.active, limit)
	}
	return ch.f.err()
}

// churn: people come and go before 20 watchers (P7).
func (r *runner) churn() error {
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
	ch, err := newChurner(f)
	if err != nil {
		return err
	}
	d := r.duration(10 * time.Second)
	peak, err := r.churnPeak(ch, min(d, 10*time.Second))
	if err != nil || !r.opt.Half {
		return err
	}
	return r.churnSoak(ch, peak/2, d)
}

func (r *runner) churnPeak(ch *churner, d time.Duration) (perSecond float64, err error) {
	res := newResult("churn", fmt.Sprintf("connect, online, bye, offline before %d watchers", churnWatchers))
	if err := ch.run(d/4, 0, func(time.Duration) {}); err != nil {
		return 0, r.done(res, err)
	}
	from := ch.done
	c, err := r.measured(ch.f, func() error {
		return ch.run(d, 0, func(e time.Duration) { r.bar.Show("churn", e.Seconds(), d.Seconds()) })
	})
	cycles := float64(ch.done - from)
	if err == nil {
		err = ch.drain(20 * time.Second)
	}
	res.set("cycles_per_core_s", cycles/c.cpu.Seconds())
	res.set("cycles_per_s", cycles/c.wall.Seconds())
	res.set("deliveries_per_s", 2*churnWatchers*cycles/c.wall.Seconds())
	c.put(res)
	res.atLeast("P7", "cycles_per_core_s", 5000, 3230)
	return cycles / c.wall.Seconds(), r.done(res, err)
}
