//go:build linux

package bench

import "time"

// groups measures what the 65 Raft groups of a node cost that has nothing to do.
func (r *runner) groups() error {
	d := r.duration(20 * time.Second)
	res := newResult("groups", "one node, nobody connected")
	t, err := r.server()
	if err != nil {
		return err
	}
	defer t.stop()
	e, err := newEngine()
	if err != nil {
		return err
	}
	defer e.close()
	e.idle(3 * time.Second)
	cpu, begin := t.cpu(), time.Now()
	for time.Since(begin) < d {
		e.idle(100 * time.Millisecond)
		r.bar.Show("idle", time.Since(begin).Seconds(), d.Seconds())
	}
	res.set("idle_cpu_%", 100*(t.cpu()-cpu).Seconds()/time.Since(begin).Seconds())
	res.atMost("idle", "idle_cpu_%", 1, 2)
	if err := r.done(res, nil); err != nil || r.opt.URL != "" {
		return err
	}
	res = newResult("groups", "three nodes in one process")
	var got trioResult
	if err := r.childJSON(&got, d+5*time.Second, res.Run, false, "bench", "trio", "idle", "0", d.String()); err != nil {
		return r.done(res, err)
	}
	res.set("idle_cpu_per_node_%", 100*got.CPU/got.Seconds/3)
	res.atMost("idle", "idle_cpu_per_node_%", 1, 2)
	return r.done(res, nil)
}
