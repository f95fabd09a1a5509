//go:build linux

package bench

import (
	"fmt"
	"time"
)

// connect measures authenticated connects (P3), then drops everybody and lets them
// come back inside the grace (P8).
func (r *runner) connect() error {
	n := r.conns(5000)
	before, err := r.connectFloor(n)
	if err != nil {
		return err
	}
	for _, watches := range []int{1, idleWatches} {
		if err := r.connectRun(n, watches); err != nil {
			return err
		}
	}
	after, err := r.connectFloor(n)
	if err != nil {
		return err
	}
	res := newResult("connect", "floor")
	res.Notes["how"] = "coder/websocket over net/http: upgrade, one message in, one out; no token, nothing kept"
	res.set("connects_per_core_s", float64(2*n)/(before+after).Seconds())
	return r.done(res, nil)
}

// connectFloor is the CPU time of n upgrades that are answered by a fixed message.
func (r *runner) connectFloor(n int) (time.Duration, error) {
	t, err := r.floorChild(FloorCoder, n, 0)
	if err != nil {
		return 0, err
	}
	defer t.stop()
	f, err := newFleet(t, r.opt)
	if err != nil {
		return 0, err
	}
	defer f.e.close()
	if err := f.addFloor(n); err != nil {
		return 0, err
	}
	c, err := r.measured(f, func() error {
		return f.connect(f.members, 128, time.Minute, func(done int) { r.bar.Show("floor", float64(done), float64(n)) })
	})
	return c.cpu, err
}

func (r *runner) connectRun(n, watches int) error {
	res := newResult("connect", fmt.Sprintf("%d users, each watching %d", n, watches))
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
	b, err := newBoard(f, n, watches)
	if err != nil {
		return err
	}
	everyone := f.members
	var half [2]cost
	for i, part := range [][]*member{everyone[:n/2], everyone[n/2:]} {
		half[i], err = r.measured(f, func() error {
			return f.connect(part, 128, time.Minute, func(done int) { r.bar.Show("connecting", float64(i*n/2+done), float64(n)) })
		})
		if err != nil {
			return r.done(res, err)
		}
	}
	c := cost{wall: half[0].wall + half[1].wall, cpu: half[0].cpu + half[1].cpu, generator: half[0].generator + half[1].generator}
	res.set("connects_per_core_s", float64(n)/c.cpu.Seconds())
	res.set("connects_per_s", float64(n)/c.wall.Seconds())
	res.set("second_half_to_first", half[1].cpu.Seconds()/half[0].cpu.Seconds())
	c.put(res)
	if watches == 1 {
		res.atLeast("P3", "connects_per_core_s", 8000, 5600)
	} else {
		res.atLeast("P3", "connects_per_core_s", 5000, 3500)
	}
	f.e.until(5*time.Second, func() bool { return b.missing('n') == 0 })
	if missing := b.missing('n'); missing > 0 {
		return r.done(res, fmt.Errorf("%d of %d watches do not show online", missing, len(b.state)))
	}
	if err := r.done(res, f.err()); err != nil || watches == 1 {
		return err
	}
	return r.reconnectRun(f, everyone)
}

// reconnectRun: 20 more sessions watch everyone; all others lose their sockets and
// resume. Nobody may be told anything.
func (r *runner) reconnectRun(f *fleet, everyone []*member) error {
	n := len(everyone)
	res := newResult("connect", fmt.Sprintf("all %d reconnect inside the grace", n))
	all := make([]int, min(n, 5000))
	for i := range all {
		all[i] = i
	}
	var watchers []*member
	saw := 0
	inner := f.view
	f.view = func(m *member, v view) {
		if m.user >= n {
			saw++
			return
		}
		inner(m, v)
	}
	for i := range 20 {
		m, err := f.add(n+i, "d1", all...)
		if err != nil {
			return err
		}
		watchers = append(watchers, m)
	}
	if err := f.connect(watchers, 20, time.Minute, nil); err != nil {
		return r.done(res, err)
	}
	if !f.e.until(20*time.Second, func() bool { return saw >= len(all)*len(watchers) }) {
		return r.done(res, fmt.Errorf("watchers saw %d of %d users", saw, len(all)*len(watchers)))
	}
	f.e.idle(500 * time.Millisecond)
	saw = 0
	resumed, changes := f.resumed, f.pushes
	c, err := r.measured(f, func() error {
		f.cut(everyone)
		return f.connect(everyone, 128, time.Minute, func(done int) { r.bar.Show("reconnecting", float64(done), float64(n)) })
	})
	f.e.idle(8 * time.Second) // longer than the grace
	res.set("frames_to_watchers", float64(saw))
	res.set("resumed", float64(f.resumed-resumed))
	res.set("pushes_to_anybody", float64(f.pushes-changes))
	res.set("resumes_per_core_s", float64(n)/c.cpu.Seconds())
	c.put(res)
	res.atMost("P8", "frames_to_watchers", 0, 0)
	switch {
	case err != nil:
	case saw > 0:
		err = fmt.Errorf("watchers were sent %d views of users who came back inside the grace", saw)
	case f.resumed-resumed != uint64(n):
		err = fmt.Errorf("%d of %d sessions were resumed", f.resumed-resumed, n)
	default:
		err = f.err()
	}
	return r.done(res, err)
}
