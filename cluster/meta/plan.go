package meta

import "time"

// Step is what Plan wants: a Command to commit, or an Order for a node.
type Step interface{ step() }

// Reports are the newest of each node, by node id.
type Reports map[uint64]Report

// Plan makes the next steps. It is pure: equal inputs give equal steps. Commands come first; orders must
// not leave before the commands of their plan are committed.
func Plan(s State, reports Reports, now time.Time) []Step { return nil }
