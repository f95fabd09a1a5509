package cluster

// bugs are defects that tests switch on, one at a time, to see a checker find each. All are
// off outside of tests: nothing else can set HostConfig.bugs.
type bugs struct {
	ackBeforeCommit  bool // Committed as soon as a proposal is taken
	noSync           bool // Turn never asks for a sync
	answerBeforeSync bool // votes and append responses leave in Before
	noTermCheck      bool // apply takes a command of another term
	openEarly        bool // Opened at the election, not at the empty entry
	promoteUncaught  bool // a learner is promoted whatever it has
	oldConfState     bool // a snapshot carries the ConfState of the group's start
	senderHardState  bool // a snapshot's receiver takes the sender's term and vote
	noLease          bool // a leader serves as long as raft lets it
	reuseReplica     bool // a tombstone does not forbid its replica ids
}
