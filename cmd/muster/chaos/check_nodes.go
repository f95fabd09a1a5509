package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Gap is a time during which a shard could not be written to.
type Gap struct {
	Shard uint32        `json:"shard"`
	From  time.Duration `json:"from"`
	To    time.Duration `json:"to"`
	Open  bool          `json:"open,omitempty"` // it had not ended when the campaign did
}

// slow is how long an attempt may take before the shard counts as unavailable since it began.
const slow = time.Second

// gaps lists when each shard could not be written to, from the start of the first attempt that failed
// or was slow to the end of the next success.
func gaps(probes []probe) []Gap {
	shards := map[uint32][]probe{}
	for _, p := range probes {
		shards[p.shard] = append(shards[p.shard], p)
	}
	var list []Gap
	for shard, ps := range shards {
		slices.SortFunc(ps, func(a, b probe) int { return cmp.Compare(a.call, b.call) })
		open := false
		var from time.Duration
		for _, p := range ps {
			if !open && (!p.ok || p.back-p.call > slow) {
				open, from = true, p.call
			}
			if open && p.ok {
				list, open = append(list, Gap{Shard: shard, From: from, To: p.back}), false
			}
		}
		if open {
			list = append(list, Gap{Shard: shard, From: from, To: ps[len(ps)-1].back, Open: true})
		}
	}
	slices.SortFunc(list, func(a, b Gap) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Shard, b.Shard)) })
	return list
}

// available: every shard could be written to, and can be again.
func available(probes []probe, shards int) verdict {
	v := verdict{Checker: "availability", Examined: len(probes), Of: "probes"}
	ok := map[uint32]bool{}
	for _, p := range probes {
		ok[p.shard] = ok[p.shard] || p.ok
	}
	for shard := range uint32(shards) {
		if !ok[shard] {
			v.fail("shard %d could never be written to", shard)
		}
	}
	list := gaps(probes)
	for _, g := range list {
		if g.Open {
			v.fail("shard %d cannot be written to since %v", g.Shard, g.From)
		}
	}
	v.Note = fmt.Sprintf("%d gaps: %s", len(list), lengths(list).say())
	return v.done()
}

// lengths is how long the gaps were.
func lengths(list []Gap) Measure {
	all := make([]time.Duration, len(list))
	for i, g := range list {
		all[i] = g.To - g.From
	}
	return measure("unavailable", 0, all)
}

// oneCluster: all nodes, at all their starts, belonged to one cluster.
func oneCluster(ids map[string][]string) verdict {
	v := verdict{Checker: "one cluster", Of: "cluster ids"}
	id, of := "", ""
	for node, list := range ids {
		for _, x := range list {
			v.Examined++
			if id == "" {
				id, of = x, node
			}
			if x != id {
				v.fail("%s belonged to cluster %s and %s to %s", of, id, node, x)
			}
		}
	}
	return v.done()
}

// Growth of one process that is no leak: caches fill and the garbage collector paces itself.
const (
	leakSamples    = 6 // of one process, before anything is said
	leakFactor     = 1.5
	leakRSS        = 64 << 20
	leakFiles      = 64
	leakGoroutines = 300
)

// leaks: what a process uses at quiet moments does not grow from one fault to the next; and no server panicked or found
// a device that knew more than it did.
func leaks(samples []sample) verdict {
	v := verdict{Checker: "leaks", Of: "samples of processes"}
	processes := map[int][]sample{}
	for _, s := range samples {
		v.Examined++
		processes[s.PID] = append(processes[s.PID], s)
		if s.Ahead > 0 {
			v.fail("%s: %.0f devices had read more of an outbox than there is: acknowledged data was lost", s.Node, s.Ahead)
		}
		if s.Panics > 0 {
			v.fail("%s: %.0f panics", s.Node, s.Panics)
		}
	}
	for pid, list := range processes {
		if len(list) < leakSamples {
			continue
		}
		third := len(list) / 3
		for _, m := range []struct {
			name  string
			of    func(sample) float64
			slack float64
		}{
			{"resident bytes", func(s sample) float64 { return s.RSS }, leakRSS},
			{"open files beside sockets of clients", func(s sample) float64 { return s.Files }, leakFiles},
			{"goroutines", func(s sample) float64 { return s.Goroutines }, leakGoroutines},
		} {
			first, last := median(list[:third], m.of), median(list[len(list)-third:], m.of)
			if last > first*leakFactor+m.slack {
				v.fail("%s (process %d): %s grew from %.0f to %.0f", list[0].Node, pid, m.name, first, last)
			}
		}
	}
	return v.done()
}

func median(list []sample, of func(sample) float64) float64 {
	values := make([]float64, len(list))
	for i, s := range list {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
