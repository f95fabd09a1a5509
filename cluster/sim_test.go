package cluster

import (
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"testing"
)

var (
	oneSeed = flag.Uint64("seed", 0, "replay this seed of the simulator and print its trace")
)

const firstSeed = 1

// seeds is how many seeds a test may run: n, or what MUSTER_SEEDS says.
func seeds(t *testing.T, n uint64) uint64 {
	if v := os.Getenv("MUSTER_SEEDS"); v != "" {
		many, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("MUSTER_SEEDS: %v", err)
		}
		return many
	}
	if testing.Short() {
		return n / 10
	}
	return n
}

// TestSim runs the seeds. Each 20th runs twice and must leave the same trace.
func TestSim(t *testing.T) {
	var total stats
	run := func(seed uint64) bool {
		s := simulate(seed, simBugs{}, *oneSeed != 0)
		if s.failed() {
			t.Errorf("seed %d: %s\nreplay: go test ./cluster -run 'TestSim$' -seed %d\n%s", seed, s.failure, seed, s.tail())
			return false
		}
		total.add(s)
		if seed%20 == 0 {
			if again := simulate(seed, simBugs{}, false); again.hash != s.hash {
				t.Errorf("seed %d: trace %x, then %x: not deterministic", seed, s.hash, again.hash)
				return false
			}
		}
		return true
	}
	if *oneSeed != 0 {
		run(*oneSeed)
		return
	}
	for seed, n := uint64(firstSeed), seeds(t, 2000); seed < firstSeed+n; seed++ {
		if !run(seed) {
			return
		}
	}
	t.Log(total)
	total.complete(t)
}

// simulate runs one seed to its end or its first failure.
func simulate(seed uint64, bugs simBugs, verbose bool) (s *sim) {
	s = newSim(seed, bugs)
	s.verbose = verbose
	reader := rand.Reader
	rand.Reader = entropy{s.rnd}
	defer func() {
		rand.Reader = reader
		for _, n := range s.nodes {
			n.disk.close()
		}
	}()
	defer func() {
		if p := recover(); p != nil { // the host's own checks, and raft's
			s.fail("assertion", "%v\n%s", p, debug.Stack())
		}
	}()
	s.birth()
	s.nemesis()
	s.runTo(s.storm)
	if !s.failed() {
		s.heal()
		s.settle()
	}
	return s
}

// stats add up what the seeds went through, to see that the faults and paths were met.
type stats struct {
	seeds, acks, opens, crashes, snapshots, moves, wipes, reads, silences, grown int
}

func (t *stats) add(s *sim) {
	t.seeds++
	t.acks += s.acks
	t.opens += s.opens
	t.crashes += s.crashes
	t.snapshots += s.snapshots
	t.moves += s.moves
	t.wipes += s.wipes
	t.reads += s.reads
	t.silences += s.silences
	t.grown += s.grown
}

func (t stats) String() string {
	return fmt.Sprintf("%d seeds: %d acknowledged, %d openings, %d crashes, %d snapshots, %d moves, %d wiped disks, %d linearizable reads, %d silences, %d groups to grow to five",
		t.seeds, t.acks, t.opens, t.crashes, t.snapshots, t.moves, t.wipes, t.reads, t.silences, t.grown)
}

// complete fails when a path was never met: a simulator that does nothing finds nothing.
func (t stats) complete(tb testing.TB) {
	if t.seeds < 200 {
		return
	}
	for what, n := range map[string]int{"acks": t.acks / 20, "openings": t.opens, "crashes": t.crashes, "snapshots": t.snapshots, "moves": t.moves, "wiped disks": t.wipes, "reads": t.reads, "silences": t.silences, "growths": t.grown * 4} {
		if n < t.seeds/10 {
			tb.Errorf("%s: only %d in %d seeds", what, n, t.seeds)
		}
	}
}
