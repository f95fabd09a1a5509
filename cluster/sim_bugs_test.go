package cluster

import (
	"testing"

	"muster/cluster/injected"
)

// defect is the injected bug that set switches on. It must be found within so many seeds: by any checker, and by those
// alone that see only what a user would.
func defect(name, in string, set func(*simBugs), within, byUser uint64) injected.Bug {
	try := func(outcomes bool) injected.Try {
		return func(_ *testing.T, seed uint64) (checker, said string) {
			b := simBugs{outcomes: outcomes}
			set(&b)
			if s := simulate(seed, b, false); s.failed() {
				return s.checker, s.failure
			}
			return "", ""
		}
	}
	return injected.Bug{Name: name, In: in, Within: within, Sample: 100, Try: try(false), Outcome: try(true), OutcomeWithin: byUser}
}

var defects = []injected.Bug{
	defect("ack before commit", "host", func(b *simBugs) { b.ackBeforeCommit = true }, 20, 20),
	defect("no sync", "host", func(b *simBugs) { b.noSync = true }, 20, 200),
	defect("answer before sync", "host", func(b *simBugs) { b.answerBeforeSync = true }, 20, 2000),
	defect("no term check at apply", "host", func(b *simBugs) { b.noTermCheck = true }, 20, 100),
	defect("activation before the term's empty entry", "host", func(b *simBugs) { b.openEarly = true }, 20, 500),
	defect("dedupe row in a second entry", "shell", func(b *simBugs) { b.splitDedupe = true }, 20, 200),
	defect("replica id reuse", "host, planner", func(b *simBugs) { b.reuseReplica = true }, 100, 1000),
	defect("promote without catch-up", "host", func(b *simBugs) { b.promoteUncaught = true }, 50, 200),
	defect("old ConfState in a snapshot", "host", func(b *simBugs) { b.oldConfState = true }, 50, 200),
	defect("the sender's HardState in a snapshot", "host", func(b *simBugs) { b.senderHardState = true }, 500, 500),
	defect("old log tail kept", "disk", func(b *simBugs) { b.keepTail = true }, 2000, 500),
	defect("lease off", "host", func(b *simBugs) { b.noLease = true }, 200, 200),
	defect("soft effect ahead of its record", "shell", func(b *simBugs) { b.softAhead = true }, 20, 20),
	defect("delivery ahead of its commit", "shell", func(b *simBugs) { b.eager = true }, 20, 20),
	defect("activation outlives its term", "shell", func(b *simBugs) { b.outlive = true }, 50, 500),
	defect("a deposed leader answers a resume", "shell", func(b *simBugs) { b.anyLeader = true }, 1000, 500),
	defect("linearizable read from memory", "shell", func(b *simBugs) { b.localRead = true }, 1000, 500),
	defect("trim ahead of the device", "shell", func(b *simBugs) { b.trimAhead = true }, 1000, 500),
	defect("one replica loses a write", "disk", func(b *simBugs) { b.loseOp = true }, 50, 50),
}

// inside are the checkers that look into the machine; without them only outcomes are left.
var inside = map[string]bool{
	"I1 ack": true, "I1 quorum": true, "I1 term": true, "I3 sync": true, "I3 vote": true, "I3 order": true,
	"I4 opening": true, "I5 replica ids": true, "I6 promotion": true, "I8 one command": true, "log on disk": true, "configuration": true,
}

// TestBugs shows that every injected defect turns a checker red.
func TestBugs(t *testing.T) { injected.Found(t, defects) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects) }
