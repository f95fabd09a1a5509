package actors

import (
	"slices"
	"sync"

	"muster/actors/presence"
)

// journal keeps the records of users for the life of the process, so that a panic of an
// activation or of its gateway does not forget that a user is invisible, whom it has
// blocked, or which tokens are revoked. A restart does, until there is durable state.
// Markers are left out: they cost a row for every user, and the edges know as much.
type journal struct {
	mu    sync.Mutex
	users map[presence.Key][]presence.Record
}

func (j *journal) keep(k presence.Key, records []presence.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range records {
		if _, lazy := r.(presence.Marker); !lazy {
			j.users[k] = fold(j.users[k], r)
		}
	}
	if len(j.users[k]) == 0 {
		delete(j.users, k)
	}
}

// of returns what there is of a user, in the order in which it was made.
func (j *journal) of(k presence.Key) []presence.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.users[k])
}

// fold appends a record in place of the one it replaces.
func fold(all []presence.Record, r presence.Record) []presence.Record {
	kind := kindOf(r)
	all = slices.DeleteFunc(slices.Clone(all), func(old presence.Record) bool { return kindOf(old) == kind })
	if _, ended := r.(presence.ClaimEnded); ended {
		return all
	}
	return append(all, r)
}

// kindOf is what a record replaces.
func kindOf(r presence.Record) string {
	switch r := r.(type) {
	case presence.ClaimSet:
		return "claim " + r.Claim.ID
	case presence.ClaimEnded:
		return "claim " + r.ID
	case presence.InvisibleSet:
		return "invisible"
	case presence.RulesSet:
		return "rules"
	case presence.RelationsSet:
		return "relations"
	}
	return "revocations"
}
