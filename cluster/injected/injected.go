// Package injected has what tests need to show that their checkers can turn red: defects that are switched on one at a
// time, the search for the first seed that finds each, and the table of docs/verification.md that says how soon it does.
package injected

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// Bug is a defect that a test switches on, alone.
type Bug struct {
	Name   string
	In     string // what has it
	By     string // the checker that must turn red; "": any
	Within uint64 // seeds, from 1 on, of which one must do so
	Sample uint64 // seeds, from 1 on, whose findings the table counts
	Try    Try
	// Outcome is Try with those checkers alone that see what a user would; nil: Try has no others.
	Outcome       Try
	OutcomeWithin uint64 // seeds after which the table says "not found"
}

// Try runs one seed with the defect. It returns the first checker that turned red and what it said; "" if none did.
type Try func(t *testing.T, seed uint64) (checker, said string)

// Checkers name what a simulator complains of: the first whose Says is a part of the complaint.
type Checkers []struct{ Name, Says string }

// Of is the checker that said so. A complaint without a name is a mistake in the list.
func (all Checkers) Of(said string) string {
	for _, c := range all {
		if strings.Contains(said, c.Says) {
			return c.Name
		}
	}
	return unnamed + said
}

const unnamed = "unnamed: "

// find tries seeds until a checker turns red, or the one named by; seed 0: none did.
func find(t *testing.T, try Try, by string, within uint64) (seed uint64, checker, said string) {
	for seed := uint64(1); seed <= within; seed++ {
		if checker, said := try(t, seed); checker != "" && (by == "" || by == checker) {
			return seed, checker, said
		}
	}
	return 0, "", ""
}

// Found fails unless each of the defects turns a checker red.
func Found(t *testing.T, bugs []Bug) {
	for _, b := range bugs {
		t.Run(b.Name, func(t *testing.T) {
			seed, checker, said := find(t, b.Try, b.By, b.Within)
			if seed == 0 {
				t.Fatalf("not found in %d seeds", b.Within)
			}
			t.Logf("%d seeds: %s: %s", seed, checker, said)
			if strings.HasPrefix(checker, unnamed) {
				t.Error("a checker without a name")
			}
		})
	}
}

// measure is the row of a defect.
func (b *Bug) measure(t *testing.T, pkg string) row {
	seed, checker, _ := find(t, b.Try, b.By, b.Within)
	if seed == 0 {
		t.Fatalf("%s: not found in %d seeds", b.Name, b.Within)
	}
	counts := map[string]int{}
	for seed := uint64(1); seed <= b.Sample; seed++ {
		if checker, _ := b.Try(t, seed); checker != "" {
			counts[checker]++
		}
	}
	outcome := "the same"
	if b.Outcome != nil {
		outcome = fmt.Sprintf("not found in %d", b.OutcomeWithin)
		if seed, checker, _ := find(t, b.Outcome, "", b.OutcomeWithin); seed != 0 {
			outcome = fmt.Sprintf("%s, %d", checker, seed)
		}
	}
	for checker := range counts {
		if strings.HasPrefix(checker, unnamed) {
			t.Errorf("%s: %s", b.Name, checker)
		}
	}
	r := row{b.Name, b.In, pkg, checker, fmt.Sprint(seed), list(counts, b.Sample), outcome}
	t.Log(r)
	return r
}

// list is the counts in words, the largest first.
func list(counts map[string]int, of uint64) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	if len(names) == 0 {
		return fmt.Sprintf("0 of %d", of)
	}
	return fmt.Sprintf("%s of %d", strings.Join(names, ", "), of)
}
