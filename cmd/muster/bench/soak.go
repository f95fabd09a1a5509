//go:build linux

package bench

import (
	"fmt"
	"time"
)

// churnSoak churns at a fixed rate and looks for what grows.
func (r *runner) churnSoak(ch *churner, perSecond float64, d time.Duration) error {
	res := newResult("churn", fmt.Sprintf("soak, %v", d))
	t := ch.f.t
	ch.f.e.idle(time.Second)
	before, err := t.usage()
	if err != nil {
		return err
	}
	var samples []usage
	every := max(d/60, time.Second)
	next := every
	from := ch.done
	c, err := r.measured(ch.f, func() error {
		return ch.run(d, perSecond, func(e time.Duration) {
			if e >= next {
				next += every
				if u, err := t.usage(); err == nil {
					samples = append(samples, u)
				}
			}
			r.bar.Show(res.Run, e.Seconds(), d.Seconds())
		})
	})
	if err == nil {
		err = ch.drain(20 * time.Second)
	}
	ch.f.e.idle(2 * time.Second)
	t.collect()
	after, uerr := t.usage()
	if err == nil {
		err = uerr
	}
	res.set("cycles", float64(ch.done-from))
	res.set("cycles_per_s", float64(ch.done-from)/c.wall.Seconds())
	samples = samples[len(samples)/5:] // the first fifth is warming up
	if len(samples) > 2 {
		res.set("goroutines_per_min", perMinute(samples, func(u usage) float64 { return float64(u.goroutines) }))
		res.set("files_per_min", perMinute(samples, func(u usage) float64 { return float64(u.files) }))
		res.set("rss_MB_per_min", perMinute(samples, func(u usage) float64 { return float64(u.rss) / (1 << 20) }))
		res.set("rss_MB", float64(samples[len(samples)-1].rss)/(1<<20))
	}
	res.set("goroutines_before", float64(before.goroutines))
	res.set("goroutines_after", float64(after.goroutines))
	res.set("files_before", float64(before.files))
	res.set("files_after", float64(after.files))
	c.put(res)
	switch {
	case err != nil:
	case after.goroutines > before.goroutines+20:
		err = fmt.Errorf("%d goroutines before, %d after", before.goroutines, after.goroutines)
	case after.files > before.files+10:
		err = fmt.Errorf("%d file descriptors before, %d after", before.files, after.files)
	default:
		err = r.nobodyOnline(t, churnWatchers)
	}
	return r.done(res, err)
}

// perMinute is the slope of a figure by least squares.
func perMinute(samples []usage, figure func(usage) float64) float64 {
	var x, y []float64
	for _, u := range samples {
		x = append(x, u.at.Sub(samples[0].at).Minutes())
		y = append(y, figure(u))
	}
	slope, _ := fit(x, y)
	return slope
}

// fit is the line of least squares through the points.
func fit(x, y []float64) (slope, intercept float64) {
	var mx, my, sxx, sxy float64
	n := float64(len(x))
	for i := range x {
		mx += x[i] / n
		my += y[i] / n
	}
	for i := range x {
		sxx += (x[i] - mx) * (x[i] - mx)
		sxy += (x[i] - mx) * (y[i] - my)
	}
	if sxx == 0 {
		return 0, my
	}
	slope = sxy / sxx
	return slope, my - slope*mx
}
