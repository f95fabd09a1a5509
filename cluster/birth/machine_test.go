package birth

import (
	"slices"
	"strings"
	"testing"

	"muster/cluster/injected"
)

// check runs seeds until one goes wrong in the way wanted; "" is any.
func check(seeds int, f faults, want string) (seed uint64, w *world) {
	for seed := range uint64(seeds) {
		w := newWorld(seed, f)
		if wrong := w.run(); wrong != "" && strings.Contains(wrong, want) {
			return seed, w
		}
	}
	return 0, nil
}

func TestOneBirth(t *testing.T) {
	const seeds = 3000
	met := map[string]int{}
	for seed := range uint64(seeds) {
		w := newWorld(seed, faults{})
		if w.run() != "" {
			t.Fatalf("seed %d: %s\n%s", seed, w.wrong, strings.Join(w.trace, "\n"))
		}
		for what, n := range w.met {
			met[what] += n
		}
	}
	t.Log(met)
	for _, what := range []string{"attempt given up", "attempt resumed", "birth resumed", "pledge freed", "pledge kept over a restart", "late question refused",
		"second pledge refused", "born among faults"} {
		if met[what] < seeds/100 {
			t.Errorf("met %d times in %d seeds: %s", met[what], seeds, what)
		}
	}
	if seed, w := check(seeds/4, faults{calm: true}, ""); w != nil {
		t.Fatalf("calm, seed %d: %s\n%s", seed, w.wrong, strings.Join(w.trace, "\n"))
	}
}

// TestReplay: equal seeds give equal histories.
func TestReplay(t *testing.T) {
	for seed := range uint64(20) {
		a, b := newWorld(seed, faults{}), newWorld(seed, faults{})
		a.run()
		b.run()
		if !slices.Equal(a.trace, b.trace) {
			t.Fatalf("seed %d: two histories", seed)
		}
	}
}

// defect is an injected bug, or a shape of the cluster that the rules refuse.
func defect(name, in, by string, f faults) injected.Bug {
	checkers := injected.Checkers{{Name: "one cluster", Says: "two clusters"}, {Name: "liveness", Says: "no cluster was born"}, {Name: "liveness", Says: "did not get in"}}
	return injected.Bug{Name: name, In: in, By: by, Within: 10_000, Sample: 1000, Try: func(_ *testing.T, seed uint64) (checker, said string) {
		if said := newWorld(seed, f).run(); said != "" {
			return checkers.Of(said), said
		}
		return "", ""
	}}
}

var defects = []injected.Bug{
	defect("bootstrap despite a data directory", "node", "one cluster", faults{forgetCluster: true}),
	defect("pledge not durable", "disk", "one cluster", faults{pledgeLost: true}),
	defect("answer before the write", "node", "one cluster", faults{answerFirst: true}),
	defect("late questions are taken", "node", "liveness", faults{lateQuestions: true}),
	defect("initiator forgets its attempt", "disk", "liveness", faults{attemptLost: true}),
	defect("N is half of the planned nodes", "flags", "one cluster", faults{half: true}),
}

// TestInjectedBugs: each rule that is broken is found out.
func TestInjectedBugs(t *testing.T) { injected.Found(t, defects) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects) }
