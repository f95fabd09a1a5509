package cluster

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// injected lists the defects. Each must be found within so many seeds: by any checker, and by
// those alone that see only what a user would.
var injected = []struct {
	name           string
	in             string // who has it
	set            func(*simBugs)
	within, byUser uint64
}{
	{"ack before commit", "host", func(b *simBugs) { b.ackBeforeCommit = true }, 20, 20},
	{"no sync", "host", func(b *simBugs) { b.noSync = true }, 20, 200},
	{"answer before sync", "host", func(b *simBugs) { b.answerBeforeSync = true }, 20, 2000},
	{"no term check at apply", "host", func(b *simBugs) { b.noTermCheck = true }, 20, 100},
	{"activation before the term's empty entry", "host", func(b *simBugs) { b.openEarly = true }, 20, 500},
	{"dedupe row in a second entry", "shell", func(b *simBugs) { b.splitDedupe = true }, 20, 200},
	{"replica id reuse", "host, planner", func(b *simBugs) { b.reuseReplica = true }, 100, 1000},
	{"promote without catch-up", "host", func(b *simBugs) { b.promoteUncaught = true }, 50, 200},
	{"old ConfState in a snapshot", "host", func(b *simBugs) { b.oldConfState = true }, 50, 200},
	{"the sender's HardState in a snapshot", "host", func(b *simBugs) { b.senderHardState = true }, 500, 500},
	{"old log tail kept", "disk", func(b *simBugs) { b.keepTail = true }, 2000, 500},
	{"lease off", "host", func(b *simBugs) { b.noLease = true }, 200, 200},
	{"soft effect ahead of its record", "shell", func(b *simBugs) { b.softAhead = true }, 20, 20},
	{"delivery ahead of its commit", "shell", func(b *simBugs) { b.eager = true }, 20, 20},
	{"activation outlives its term", "shell", func(b *simBugs) { b.outlive = true }, 50, 500},
	{"a deposed leader answers a resume", "shell", func(b *simBugs) { b.anyLeader = true }, 1000, 500},
	{"linearizable read from memory", "shell", func(b *simBugs) { b.localRead = true }, 1000, 500},
	{"trim ahead of the device", "shell", func(b *simBugs) { b.trimAhead = true }, 1000, 500},
	{"one replica loses a write", "disk", func(b *simBugs) { b.loseOp = true }, 50, 50},
}

// inside are the checkers that look into the machine; without them only outcomes are left.
var inside = map[string]bool{
	"I1 ack": true, "I1 quorum": true, "I1 term": true, "I3 sync": true, "I3 vote": true, "I3 order": true,
	"I4 opening": true, "I5 replica ids": true, "I6 promotion": true, "I8 one command": true, "log on disk": true, "configuration": true,
}

// find runs seeds until one fails.
func find(b simBugs, within uint64) (*sim, uint64) {
	for n := uint64(1); n <= within; n++ {
		if s := simulate(firstSeed+n-1, b, false); s.failed() {
			return s, n
		}
	}
	return nil, 0
}

// TestBugs shows that every injected defect turns a checker red.
func TestBugs(t *testing.T) {
	for _, bug := range injected {
		t.Run(bug.name, func(t *testing.T) {
			var b simBugs
			bug.set(&b)
			s, n := find(b, bug.within)
			if s == nil {
				t.Fatalf("not found in %d seeds", bug.within)
			}
			t.Logf("%d seeds: %s", n, s.failure)
		})
	}
}

const (
	page  = "../docs/verification.md"
	begin = "<!-- begin: go test ./cluster -run TestVerification -update -->\n"
	end   = "<!-- end -->\n"
)

// TestVerification holds the table of docs/verification.md to the list of defects; with
// -update it measures and writes it.
func TestVerification(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := bytes.Cut(text, []byte(begin))
	table, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		t.Fatalf("%s has no markers for the table", page)
	}
	if *update {
		table := measure(t)
		if err := os.WriteFile(page, slices.Concat(head, []byte(begin), []byte(table), []byte(end), tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	rows := strings.Count(string(table), "\n| ")
	for _, bug := range injected {
		if !strings.Contains(string(table), "\n| "+bug.name+" | ") {
			t.Errorf("the table lacks %q; run: go test ./cluster -run TestVerification -update", bug.name)
		}
	}
	if want := len(injected) + 1; rows != want {
		t.Errorf("the table has %d rows, want %d", rows, want)
	}
}

// sample is how many seeds the table's counts are of.
const sample = 100

func measure(t *testing.T) string {
	var out strings.Builder
	out.WriteString("\n| defect | injected in | first red checker | seeds | red of " + fmt.Sprint(sample) +
		" seeds, by checker | by its outcome alone | seeds |\n|---|---|---|---|---|---|---|\n")
	for _, bug := range injected {
		var b simBugs
		bug.set(&b)
		first, n := find(b, bug.within)
		if first == nil {
			t.Fatalf("%s: not found in %d seeds", bug.name, bug.within)
		}
		counts := map[string]int{}
		for seed := uint64(firstSeed); seed < firstSeed+sample; seed++ {
			if s := simulate(seed, b, false); s.failed() {
				counts[s.checker]++
			}
		}
		b.outcomes = true
		user, m := find(b, bug.byUser)
		by, seeds := "not found", fmt.Sprintf("%d", bug.byUser)
		if user != nil {
			by, seeds = user.checker, fmt.Sprint(m)
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %d | %s | %s | %s |\n", bug.name, bug.in, first.checker, n, list(counts), by, seeds)
		t.Logf("%s: %s after %d; %s after %s", bug.name, first.checker, n, by, seeds)
	}
	return out.String() + "\n"
}

// list is the counts in words, the largest first.
func list(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names, ", ")
}
