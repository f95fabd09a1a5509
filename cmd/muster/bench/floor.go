//go:build linux

package bench

import (
	"fmt"
	"time"
)

// floor measures what this machine charges for the writes alone: one change relayed
// to 50 connections, through coder/websocket and by hand, A/B/B/A.
func (r *runner) floor() error {
	n := max(r.conns(1000), 2*ringWidth)
	d := r.duration(5 * time.Second)
	kinds := []string{FloorCoder, FloorRaw}
	var rings [2]*ring
	var results [2]*Result
	for i, kind := range kinds {
		begin := time.Now()
		t, ring, err := r.ringOn(func() (*target, error) { return r.floorChild(kind, n, ringWidth) }, n, true)
		if err != nil {
			return err
		}
		defer t.stop()
		defer ring.f.e.close()
		rings[i] = ring
		results[i] = newResult("floor", kind)
		results[i].set("connects_per_core_s", float64(n)/t.cpu().Seconds())
		results[i].Notes["connect"] = fmt.Sprintf("%d upgrades in %v, process start included", n, time.Since(begin).Round(time.Millisecond))
	}
	var cpu, count, busy [2]float64
	for _, i := range []int{0, 1, 1, 0} {
		rings[i].reset()
		c, err := r.measured(rings[i].f, func() error {
			return rings[i].rounds(d/2, func(s float64) { r.bar.Show(kinds[i], s, d.Seconds()/2) })
		})
		if err != nil {
			return r.done(results[i], err)
		}
		cpu[i] += c.cpu.Seconds()
		count[i] += float64(rings[i].delivered)
		busy[i] += c.busy() / 2
	}
	reads, err := rings[1].backlog(50)
	if err != nil {
		return r.done(results[1], err)
	}
	results[1].set("generator_reads_per_core_s", reads)
	for i, res := range results {
		res.set("writes_per_core_s", count[i]/cpu[i])
		res.set("cpu_per_write_us", 1e6*cpu[i]/count[i])
		res.set("generator_busy_%", 100*busy[i])
		if err := r.done(res, rings[i].settle(5*time.Second)); err != nil {
			return err
		}
	}
	return nil
}
