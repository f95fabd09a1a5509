//go:build linux

package bench

import (
	"fmt"
	"time"
)

const idleWatches = 20

// idle measures what connections cost that do nothing: memory (P1) and, beside a
// floor that only pings, CPU (P2). Both servers hold their connections all the time;
// each has its own CPU clock.
func (r *runner) idle() error {
	n := r.conns(5000)
	res := newResult("idle", fmt.Sprintf("%d users, each watching %d", n, idleWatches))
	t, err := r.server()
	if err != nil {
		return err
	}
	defer t.stop()
	base, err := t.usage()
	if err != nil {
		return err
	}
	f, err := newFleet(t, r.opt)
	if err != nil {
		return err
	}
	defer f.e.close()
	b, err := newBoard(f, n, min(idleWatches, n-1))
	if err != nil {
		return err
	}
	if err := f.connect(f.members, 128, time.Minute, func(done int) { r.bar.Show("connecting", float64(done), float64(n)) }); err != nil {
		return r.done(res, err)
	}
	f.e.idle(2 * time.Second)
	fresh, err := t.usage()
	if err != nil {
		return err
	}
	cpu, floor, err := r.idleCPU(res, f, n)
	if err != nil {
		return r.done(res, err)
	}
	after, err := t.usage()
	if err != nil {
		return err
	}
	perUser := func(a, b int64) float64 { return float64(a-b) / 1024 / float64(n) }
	res.set("rss_per_user_KB", perUser(after.rss, base.rss))
	res.set("rss_per_user_after_connect_KB", perUser(fresh.rss, base.rss))
	res.set("socket_slab_per_user_KB", perUser(fresh.slab, base.slab)/2)
	t.collect()
	if live, err := t.usage(); err == nil {
		res.set("live_heap_per_user_KB", perUser(live.heap, base.heap))
		res.set("rss_per_user_collected_KB", perUser(live.rss, base.rss))
		res.set("goroutines_per_user", float64(live.goroutines-base.goroutines)/float64(n))
	}
	res.set("idle_cpu_%", cpu)
	res.set("floor_idle_cpu_%", floor)
	res.set("base_rss_MB", float64(base.rss)/(1<<20))
	res.atMost("P1", "rss_per_user_KB", 11, 16)
	res.atMost("P2", "idle_cpu_%", 0.4, 0.8)
	if missing := b.missing('n'); missing > 0 {
		err = fmt.Errorf("%d of %d watches do not show online", missing, len(b.state))
	}
	if err == nil {
		err = f.err()
	}
	return r.done(res, err)
}

// idleCPU returns the CPU of server and floor in per cent of a core.
func (r *runner) idleCPU(res *Result, f *fleet, n int) (cpu, floor float64, err error) {
	d := r.duration(40 * time.Second)
	ft, err := r.floorChild(FloorRaw, n, 0)
	if err != nil {
		return 0, 0, err
	}
	defer ft.stop()
	ff, err := newFleet(ft, r.opt)
	if err != nil {
		return 0, 0, err
	}
	defer ff.e.close()
	if err := ff.addFloor(n); err != nil {
		return 0, 0, err
	}
	if err := ff.connect(ff.members, 128, time.Minute, nil); err != nil {
		return 0, 0, err
	}
	if err := r.firstRound(f, ff); err != nil {
		return 0, 0, err
	}
	pings, pushes := f.e.pings, f.pushes
	messages, err := f.t.coreMessages()
	if err != nil {
		return 0, 0, err
	}
	c0, f0, begin := f.t.cpu(), ft.cpu(), time.Now()
	for time.Since(begin) < d {
		f.e.poll(time.Millisecond)
		ff.e.poll(time.Millisecond)
		r.bar.Show("idle", time.Since(begin).Seconds(), d.Seconds())
	}
	wall := time.Since(begin)
	cpu = 100 * (f.t.cpu() - c0).Seconds() / wall.Seconds()
	floor = 100 * (ft.cpu() - f0).Seconds() / wall.Seconds()
	answered := float64(f.e.pings - pings)
	rounds := wall.Seconds() * float64(n)
	after, err := f.t.coreMessages()
	if err != nil {
		return cpu, floor, err
	}
	res.set("core_messages_per_ping", (after-messages)/max(answered, 1))
	res.set("pings_per_s", answered/wall.Seconds())
	res.set("mean_ping_interval_s", rounds/answered)
	if answered < rounds/20*0.9 && d >= 20*time.Second {
		return cpu, floor, fmt.Errorf("%.0f pings in %v are too few for %d connections at 20 s", answered, wall.Round(time.Second), n)
	}
	if f.pushes != pushes {
		return cpu, floor, fmt.Errorf("%d pushes while nothing changed", f.pushes-pushes)
	}
	return cpu, floor, nil
}

// firstRound waits until every connection was pinged once: the first ping is late by
// a whole interval.
func (r *runner) firstRound(fleets ...*fleet) error {
	const round = 20 * time.Second
	for begin := time.Now(); time.Since(begin) < round; {
		for _, f := range fleets {
			f.e.poll(time.Millisecond)
			if err := f.err(); err != nil {
				return err
			}
		}
		r.bar.Show("first pings", time.Since(begin).Seconds(), round.Seconds())
	}
	return nil
}

// coreMessages counts the messages between edges and core so far, beats aside.
func (t *target) coreMessages() (float64, error) {
	m, err := t.metrics()
	return m["muster_core_messages_in_total"] + m["muster_core_messages_out_total"], err
}
