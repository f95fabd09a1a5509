//go:build linux

package bench

import (
	"errors"
	"fmt"
	"time"
)

// across measures status changes through edge and core processes (P5), beside one process that is both: A/B/B/A. All
// processes of the server share its core.
func (r *runner) across() error {
	if r.opt.URL != "" {
		return errors.New("across: it compares two servers of its own; leave --url out")
	}
	cores, edges := max(r.opt.Cores, 1), max(r.opt.Edges, 1)
	n := max(r.conns(1000), 2*ringWidth)
	p, err := r.startProcesses(cores, edges)
	if err != nil {
		return err
	}
	defer p.stop()
	whole, one, err := r.ringOn(func() (*target, error) { return r.server() }, n, false)
	if err != nil {
		return err
	}
	defer whole.stop()
	defer one.f.e.close()
	_, split, err := r.ringOn(func() (*target, error) { return p.target(), nil }, n, false)
	if err != nil {
		return err
	}
	defer split.f.e.close()

	sides := [2]*side{{ring: one, name: "one process"}, {ring: split, name: fmt.Sprintf("%s and %s", several(cores, "core"), several(edges, "edge")), procs: p}}
	for i, which := range []int{0, 1, 1, 0} {
		s, other := sides[which], sides[1-which]
		pings := func() { other.ring.f.e.poll(0) }
		if err := s.measure(r, i, r.duration(10*time.Second)/2, pings); err != nil {
			return r.done(newResult("across", s.name), err)
		}
	}
	for _, s := range sides {
		if err := r.done(s.result(), nil); err != nil {
			return err
		}
	}
	return r.done(compare(sides[0], sides[1]), nil)
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// side is one of two servers that are compared, with what it used in all of its runs.
type side struct {
	ring  *ring
	name  string
	procs *processes // nil: one process

	runs      int
	total     cost
	cores     time.Duration // CPU of the core processes
	delivered float64
}

// measure paces changes at 10,000 deliveries a second for d, after a tenth of it that does not count the first time.
// It calls pings three times a second: the sessions of the other side must answer theirs.
func (s *side) measure(r *runner, turn int, d time.Duration, pings func()) error {
	ring := s.ring
	if s.runs == 0 {
		if err := ring.paced(10_000/ringWidth, d/10, func(float64) { pings() }); err != nil {
			return err
		}
		if err := ring.settle(5 * time.Second); err != nil {
			return err
		}
		ring.reset()
	}
	s.runs++
	ring.f.e.idle(300 * time.Millisecond)
	from, had := sum(ring.seq), ring.delivered
	cores := s.coreCPU()
	c, err := r.measured(ring.f, func() error {
		return ring.paced(10_000/ringWidth, d, func(done float64) {
			pings()
			r.bar.Show(fmt.Sprintf("%s, %d of 4", s.name, turn+1), float64(turn)*d.Seconds()+done, 4*d.Seconds())
		})
	})
	s.cores += s.coreCPU() - cores
	if err == nil {
		err = ring.settle(5 * time.Second)
	}
	arrived, want := ring.delivered-had, (sum(ring.seq)-from)*ringWidth
	if err == nil && arrived != want {
		err = fmt.Errorf("%d deliveries were due, %d arrived", want, arrived)
	}
	s.total.wall, s.total.cpu, s.total.generator = s.total.wall+c.wall, s.total.cpu+c.cpu, s.total.generator+c.generator
	s.delivered += float64(arrived)
	return err
}

func (s *side) coreCPU() time.Duration {
	if s.procs == nil {
		return 0
	}
	return cpuOf(s.procs.cores)
}

// ms is a quantile (0 to 100) of the latency.
func (s *side) ms(q float64) float64 { return float64(s.ring.latency.ValueAtQuantile(q)) / 1e6 }

// cpuPer1000 is ms of CPU for 1,000 deliveries.
func (s *side) cpuPer1000(cpu time.Duration) float64 {
	return 1e6 * cpu.Seconds() / max(s.delivered, 1)
}

func (s *side) result() *Result {
	res := newResult("across", s.name)
	res.Notes["how"] = fmt.Sprintf("%d sessions, each watched by %d; 10,000 deliveries/s; A/B/B/A, all server processes on one core", s.ring.n, s.ring.width)
	res.set("p50_ms", s.ms(50))
	res.set("p99_ms", s.ms(99))
	res.set("p99.9_ms", s.ms(99.9))
	res.set("generator_late_p99_ms", float64(s.ring.late.ValueAtQuantile(99))/1e6)
	res.set("cpu_per_1000_ms", s.cpuPer1000(s.total.cpu))
	if s.procs != nil {
		res.set("of_it_cores_ms", s.cpuPer1000(s.cores))
	}
	s.total.put(res)
	if s.procs != nil {
		res.atMost("P5 across", "p99_ms", 3, 10)
	}
	return res
}

// compare says how many times as much the second side takes.
func compare(one, split *side) *Result {
	res := newResult("across", "beside one process")
	res.set("p50_times", split.ms(50)/one.ms(50))
	res.set("p99_times", split.ms(99)/one.ms(99))
	res.set("cpu_times", split.cpuPer1000(split.total.cpu)/one.cpuPer1000(one.total.cpu))
	return res
}
