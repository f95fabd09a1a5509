//go:build linux

package bench

import (
	"errors"
	"fmt"
	"time"
)

const ringWidth = 50 // watchers of each user

// watch measures status changes seen by 50 watchers each (P4, P5).
func (r *runner) watch() error {
	n := max(r.conns(1000), 2*ringWidth)
	t, ring, err := r.ringOn(func() (*target, error) { return r.server() }, n, false)
	if err != nil {
		return err
	}
	defer t.stop()
	defer ring.f.e.close()
	d := r.duration(10 * time.Second)

	full, err := r.saturated(ring, d)
	if err != nil {
		return err
	}
	if r.opt.Half {
		return r.pacedRun(ring, "half load", full/2/ringWidth, d, false)
	}
	if err := r.pacedRun(ring, "10,000 deliveries/s", 10_000/ringWidth, d, true); err != nil {
		return err
	}
	return r.againstFloor(ring, n, d/2)
}

// ringOn starts a server and connects a ring to it.
func (r *runner) ringOn(start func() (*target, error), n int, floor bool) (*target, *ring, error) {
	t, err := start()
	if err != nil {
		return nil, nil, err
	}
	f, err := newFleet(t, r.opt)
	if err != nil {
		return nil, nil, errors.Join(err, t.stop())
	}
	ring, err := newRing(f, n, ringWidth, floor)
	if err == nil {
		err = f.connect(f.members, 128, time.Minute, func(done int) { r.bar.Show("connecting", float64(done), float64(n)) })
	}
	if err != nil {
		return nil, nil, errors.Join(err, t.stop())
	}
	return t, ring, nil
}

// saturated returns the deliveries a second.
func (r *runner) saturated(ring *ring, d time.Duration) (float64, error) {
	res := newResult("watch", "as fast as it goes")
	res.Notes["how"] = fmt.Sprintf("%d sessions, each watched by %d; 512 changes unanswered at any time", ring.n, ringWidth)
	warm := func(float64) {}
	if err := ring.saturate(512, d/5, warm); err != nil {
		return 0, r.done(res, err)
	}
	ring.reset()
	from := sum(ring.seq)
	c, err := r.measured(ring.f, func() error {
		return ring.saturate(512, d, func(s float64) { r.bar.Show(res.Run, s, d.Seconds()) })
	})
	arrived, changes := float64(ring.delivered), float64(sum(ring.seq)-from)
	if err == nil {
		err = ring.settle(10 * time.Second)
	}
	res.set("deliveries_per_core_s", arrived/c.cpu.Seconds())
	res.set("deliveries_per_s", arrived/c.wall.Seconds())
	res.set("cpu_per_1000_ms", 1e6*c.cpu.Seconds()/arrived)
	res.set("changes_per_s", changes/c.wall.Seconds())
	res.set("conflated_%", 100*(1-arrived/(changes*ringWidth)))
	c.put(res)
	res.atLeast("P4", "deliveries_per_core_s", 270_000, 196_000)
	res.atMost("P4", "cpu_per_1000_ms", 3.7, 1000.0/196)
	return arrived / c.wall.Seconds(), r.done(res, err)
}

func (r *runner) pacedRun(ring *ring, name string, changes float64, d time.Duration, goals bool) error {
	res := newResult("watch", name)
	ring.f.e.idle(300 * time.Millisecond)
	ring.reset()
	from := sum(ring.seq)
	c, err := r.measured(ring.f, func() error {
		return ring.paced(changes, d, func(s float64) { r.bar.Show(name, s, d.Seconds()) })
	})
	if err == nil {
		err = ring.settle(5 * time.Second)
	}
	sent := float64(sum(ring.seq) - from)
	if want := uint64(sent * ringWidth); goals && err == nil && ring.delivered != want {
		err = fmt.Errorf("%d deliveries were due, %d arrived", want, ring.delivered)
	}
	res.set("deliveries_per_s", float64(ring.delivered)/c.wall.Seconds())
	ms := func(q float64) float64 { return float64(ring.latency.ValueAtQuantile(q)) / 1e6 }
	res.set("p50_ms", ms(50))
	res.set("p99_ms", ms(99))
	res.set("p99.9_ms", ms(99.9))
	res.set("max_ms", float64(ring.latency.Max())/1e6)
	res.set("generator_late_p99_ms", float64(ring.late.ValueAtQuantile(99))/1e6)
	res.set("cpu_per_1000_ms", 1e6*c.cpu.Seconds()/float64(max(ring.delivered, 1)))
	c.put(res)
	if goals {
		res.atMost("P5", "p50_ms", 0.4, 2)
		res.atMost("P5", "p99_ms", 0.8, 2)
		res.atMost("P4", "cpu_per_1000_ms", 9, 9)
	}
	return r.done(res, err)
}

// againstFloor gives each watcher one change at a time, beside a server that only
// relays through coder/websocket: A/B/B/A.
func (r *runner) againstFloor(a *ring, n int, d time.Duration) error {
	t, b, err := r.ringOn(func() (*target, error) { return r.floorChild(FloorCoder, n, ringWidth) }, n, true)
	if err != nil {
		return err
	}
	defer t.stop()
	defer b.f.e.close()
	var cpu, wall, count [2]float64
	for i, which := range []int{0, 1, 1, 0} {
		ring := []*ring{a, b}[which]
		ring.reset()
		c, err := r.measured(ring.f, func() error {
			return ring.rounds(d, func(s float64) { r.bar.Show(fmt.Sprintf("one change at a time, %d of 4", i+1), s, d.Seconds()) })
		})
		if err == nil {
			err = ring.settle(5 * time.Second)
		}
		if err != nil {
			return r.done(newResult("watch", "one change at a time"), err)
		}
		cpu[which] += c.cpu.Seconds()
		wall[which] += c.wall.Seconds()
		count[which] += float64(ring.delivered)
	}
	res := newResult("watch", "one change at a time")
	res.Notes["how"] = "A/B/B/A with a relay of coder/websocket writes"
	res.set("deliveries_per_core_s", count[0]/cpu[0])
	res.set("floor_deliveries_per_core_s", count[1]/cpu[1])
	res.set("deliveries_per_s", count[0]/wall[0])
	res.set("floor_deliveries_per_s", count[1]/wall[1])
	res.set("cpu_per_1000_ms", 1e6*cpu[0]/count[0])
	res.set("floor_cpu_per_1000_ms", 1e6*cpu[1]/count[1])
	res.set("of_floor", count[0]/cpu[0]/(count[1]/cpu[1]))
	res.atLeast("P4", "of_floor", 0.9, 0.7)
	return r.done(res, nil)
}

func sum(list []uint64) (total uint64) {
	for _, n := range list {
		total += n
	}
	return total
}
