package birth

import (
	"slices"
	"strings"
	"testing"
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

// TestInjectedBugs: each rule that is broken is found out.
func TestInjectedBugs(t *testing.T) {
	for _, bug := range []struct {
		name string
		f    faults
		want string
	}{
		{"initialised node gives birth again", faults{forgetCluster: true}, "two clusters"},
		{"pledge not durable", faults{pledgeLost: true}, "two clusters"},
		{"answer before the write", faults{answerFirst: true}, "two clusters"},
		{"late questions are taken", faults{lateQuestions: true}, "no cluster was born"},
		{"initiator forgets its attempt", faults{attemptLost: true}, "no cluster was born"},
		{"N is half of the planned nodes", faults{half: true}, "two clusters"},
	} {
		t.Run(bug.name, func(t *testing.T) {
			seed, w := check(10_000, bug.f, bug.want)
			if w == nil {
				t.Fatal("not found")
			}
			t.Logf("seed %d: %s", seed, w.wrong)
		})
	}
}
