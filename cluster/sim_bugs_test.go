package cluster

import "testing"

// injected lists the defects. Each must be found within so many seeds.
var injected = []struct {
	name   string
	in     string // which part has it
	set    func(*simBugs)
	within uint64
}{
	{"ack before commit", "host", func(b *simBugs) { b.ackBeforeCommit = true }, 200},
	{"no sync", "host", func(b *simBugs) { b.noSync = true }, 200},
	{"answer before sync", "host", func(b *simBugs) { b.answerBeforeSync = true }, 200},
	{"no term check at apply", "host", func(b *simBugs) { b.noTermCheck = true }, 200},
	{"activation before the term's empty entry", "host", func(b *simBugs) { b.openEarly = true }, 200},
	{"dedupe row in a second entry", "shell", func(b *simBugs) { b.splitDedupe = true }, 200},
	{"replica id reuse", "host and planner", func(b *simBugs) { b.reuseReplica = true }, 200},
	{"promote without catch-up", "host", func(b *simBugs) { b.promoteUncaught = true }, 200},
	{"old ConfState in a snapshot", "host", func(b *simBugs) { b.oldConfState = true }, 200},
	{"the sender's HardState in a snapshot", "host", func(b *simBugs) { b.senderHardState = true }, 2000},
	{"old log tail kept", "disk", func(b *simBugs) { b.keepTail = true }, 2000},
	{"soft effect ahead of its record", "shell", func(b *simBugs) { b.softAhead = true }, 200},
}

// TestBugs shows that every injected defect turns a checker red.
func TestBugs(t *testing.T) {
	for _, bug := range injected {
		t.Run(bug.name, func(t *testing.T) {
			var b simBugs
			bug.set(&b)
			for seed := uint64(firstSeed); seed < firstSeed+bug.within; seed++ {
				if s := simulate(seed, b, false); s.failed() {
					t.Logf("%d seeds: %s", seed-firstSeed+1, s.failure)
					return
				}
			}
			t.Errorf("not found in %d seeds", bug.within)
		})
	}
}
