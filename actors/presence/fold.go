package presence

import "slices"

// Fold adds records to those of one user and drops what they replace or end: what is
// left restores the same state. A shell without a disk keeps it, so that a panic does
// not reveal an invisible user. The result may share memory with records.
func Fold(records []Record, more ...Record) []Record {
	for _, r := range more {
		records = slices.DeleteFunc(records, func(old Record) bool { return replaces(r, old) })
		switch r := r.(type) {
		case ClaimEnded:
		case InvisibleSet:
			if r.On {
				records = append(records, r)
			}
		default:
			records = append(records, r)
		}
	}
	return records
}

// replaces reports that after r the older record says nothing.
func replaces(r, old Record) bool {
	switch r := r.(type) {
	case ClaimSet:
		o, same := old.(ClaimSet)
		return same && o.Claim.ID == r.Claim.ID
	case ClaimEnded:
		o, same := old.(ClaimSet)
		return same && o.Claim.ID == r.ID
	case InvisibleSet:
		_, same := old.(InvisibleSet)
		return same
	case RulesSet:
		_, same := old.(RulesSet)
		return same
	case RelationsSet:
		_, same := old.(RelationsSet)
		return same
	case Revocations:
		_, same := old.(Revocations)
		return same
	case Marker:
		_, same := old.(Marker)
		return same
	}
	return false
}
