//go:build linux

package bench

import (
	"fmt"
	"math"
	"strings"
)

// law is one thing that is varied over three decades, and what must follow it.
type law struct {
	name  string
	vary  string  // what x counts
	cost  string  // what y measures, unit at the end
	most  float64 // the greatest slope of log y over log x that the law allows
	exact bool    // y must be 0 everywhere
	noise float64 // a y below it tells nothing and counts as this much
	run   func(*runner, *Result) ([]point, error)
}

type point struct{ x, y float64 }

var laws = []law{
	{"watchers", "watchers of the user that changes", "server_cpu_per_change_us", 1, false, 0.001, (*runner).lawWatchers},
	{"list", "watches and contacts of the user that changes", "server_cpu_per_change_us", 0.1, false, 0.001, (*runner).lawList},
	{"online", "users online", "live_heap_KB", 1.05, false, 50, (*runner).lawOnline},
	{"watches", "watches of each session", "live_heap_KB", 1.05, false, 50, (*runner).lawWatches},
	{"gone", "users who came and left", "live_heap_KB", 1.05, false, 50, (*runner).lawGone},
	{"flaps", "reconnects of one user inside the grace", "frames_to_watchers", 0, true, 0.001, (*runner).lawFlaps},
	{"storm", "sessions that lose their socket and resume", "server_cpu_ms", 1.1, false, 0.001, (*runner).lawStorm},
	{"joins", "sessions that enter one room at once", "frames", 1.5, false, 0.001, (*runner).lawJoins},
}

// growth measures the growth laws of one node.
func (r *runner) growth() error {
	known := []string{}
	for _, l := range laws {
		known = append(known, l.name)
		if r.opt.Only != "" && r.opt.Only != l.name {
			continue
		}
		res := newResult("growth", l.name)
		res.Notes["vary"], res.Notes["cost"] = l.vary, l.cost
		points, err := l.run(r, res)
		if err == nil {
			err = l.judge(res, points)
		}
		if err := r.done(res, err); err != nil {
			return err
		}
	}
	if len(r.results) == 0 {
		return fmt.Errorf("--law: %q is unknown; laws are %s", r.opt.Only, strings.Join(known, ", "))
	}
	return nil
}

// judge puts the points and their slope into the result.
func (l law) judge(res *Result, points []point) error {
	var x, y []float64
	for _, p := range points {
		res.set(fmt.Sprintf("%s_at_%g", l.cost, p.x), p.y)
		if l.exact && p.y != 0 {
			return fmt.Errorf("%g %s at %g, must be 0", p.y, l.cost, p.x)
		}
		x = append(x, math.Log(p.x))
		y = append(y, math.Log(max(p.y, l.noise)))
	}
	if l.exact || len(points) < 2 {
		return nil
	}
	slope, _ := fit(x, y)
	res.set("slope", slope)
	res.atMost("growth of "+l.name, "slope", l.most, l.most+0.15)
	return nil
}
