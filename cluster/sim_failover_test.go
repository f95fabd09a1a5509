package cluster

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"
)

// TestSimFailover measures, in virtual time over many seeds, how long the shards of a leader that goes
// away are without one: a network of up to 1 ms unless the case says otherwise, no other fault.
func TestSimFailover(t *testing.T) {
	for _, c := range []struct {
		name     string
		away     func(s *sim, leader *vnode)
		p99, max time.Duration
	}{
		{"killed, sockets closed", killed, time.Second, 3 * time.Second},
		{"killed, messages take up to 200 ms", func(s *sim, n *vnode) { s.net.delay = 200 * ms; killed(s, n) }, 6 * time.Second, 10 * time.Second},
		{"black hole, pings unanswered", hole, 2 * time.Second, 4 * time.Second},
		{"black hole, by raft's timers", func(s *sim, n *vnode) { s.deaf = true; hole(s, n) }, 4 * time.Second, 4 * time.Second},
		{"stopped as by SIGSTOP", func(s *sim, n *vnode) { n.paused = true }, 2 * time.Second, 4 * time.Second},
		{"leadership given away", func(s *sim, n *vnode) { n.input(func() { n.host.Yield(true) }) }, 200 * time.Millisecond, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			for seed := uint64(1); seed <= 200; seed++ {
				s, d := failover(seed, c.away)
				if s.failed() {
					t.Fatalf("seed %d: %s\n%s", seed, s.failure, s.tail())
				}
				took = append(took, d)
			}
			slices.Sort(took)
			p99 := took[len(took)*99/100]
			t.Logf("p50 %v, p99 %v, max %v", took[len(took)/2], p99, took[len(took)-1])
			if p99 > c.p99 || took[len(took)-1] > c.max {
				t.Errorf("p99 %v and max %v are over %v and %v", p99, took[len(took)-1], c.p99, c.max)
			}
		})
	}
}

func killed(s *sim, n *vnode) {
	n.up = false
	for _, p := range s.all() {
		if p != n {
			p.later(ms, func() { p.input(func() { p.host.Suspect(n.id) }) })
		}
	}
}

// hole loses all between a node and the others; the sockets stay.
func hole(s *sim, n *vnode) {
	for _, p := range s.all() {
		s.net.cut[[2]uint64{n.id, p.id}], s.net.cut[[2]uint64{p.id, n.id}] = true, true
	}
}

func failover(seed uint64, away func(*sim, *vnode)) (*sim, time.Duration) {
	s := newSim(seed, simBugs{})
	reader := rand.Reader
	rand.Reader = entropy{s.rnd}
	defer func() { rand.Reader = reader }()
	s.quiet = true
	s.birth()
	s.net = network{delay: ms, cut: map[[2]uint64]bool{}, last: map[[2]uint64]int64{}}
	s.runTo(5*second + s.rnd.Int64N(second))
	var old *vnode
	for _, n := range s.all() {
		if len(n.leading) > 0 && (old == nil || len(n.leading) > len(old.leading)) {
			old = n
		}
	}
	if old == nil {
		s.fail("liveness", "no leader after 5 s")
		return s, 0
	}
	shards, began := old.sortedShards(), s.now
	away(s, old)
	led := func() bool {
		return !slices.ContainsFunc(shards, func(shard uint32) bool {
			return !slices.ContainsFunc(s.all(), func(n *vnode) bool { return n != old && n.leading[shard] != nil })
		})
	}
	for !s.failed() && !led() && s.now < began+20*second {
		s.runTo(s.now + ms)
	}
	return s, time.Duration(s.now-began) * time.Microsecond
}
