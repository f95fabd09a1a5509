package presence

import "slices"

// Fold adds records to those of one user and drops what they replace or end: what is
// left restores the same state. What is about rows that may be elsewhere, or of the shard,
// is kept in its order. The result may share memory with records.
func Fold(records []Record, more ...Record) []Record {
	for _, r := range more {
		records = slices.DeleteFunc(records, func(old Record) bool { return replaces(r, old) })
		if ends(r) {
			continue
		}
		if d, ok := r.(EntriesDropped); ok && len(records) > 0 {
			if last, ok := records[len(records)-1].(EntriesDropped); ok && last.Reason == d.Reason && last.To+1 == d.From {
				records[len(records)-1] = EntriesDropped{last.From, d.To, d.Reason}
				continue
			}
		}
		records = append(records, r)
	}
	return records
}

// ends reports that a record only removes.
func ends(r Record) bool {
	switch r := r.(type) {
	case InvisibleSet:
		return !r.On
	case RelationSet:
		return r.Relation == 0
	case SenderSet:
		return len(r.Hours) == 0
	case ClaimEnded, DedupeGone, DeviceGone, NotifyEnded, Erased:
		return true
	}
	return false
}

// rowOf names what a record sets or removes; empty: nothing that another one would.
func rowOf(r Record) (kind byte, id string, offset uint64) {
	switch r := r.(type) {
	case ClaimSet:
		return 'c', r.Claim.ID, 0
	case ClaimEnded:
		return 'c', r.ID, 0
	case InvisibleSet:
		return 'i', "", 0
	case RulesSet:
		return 'a', "", 0
	case RelationSet:
		return 'g', r.Other, 0
	case Revocations:
		return 'k', "", 0
	case Marker:
		return 'm', "", 0
	case OutboxSet:
		return 'o', "", 0
	case EntryPut:
		return 'z', "", r.Entry.Offset
	case EntriesDropped:
		return 'e', "", 0
	case DedupeSet:
		return 'h', r.Sender + "\x00" + string(r.ID[:]), 0
	case DedupeGone:
		return 'h', r.Sender + "\x00" + string(r.ID[:]), 0
	case SenderSet:
		return 's', r.Sender, 0
	case DeviceSet:
		return 'd', r.Device, 0
	case DeviceGone:
		return 'd', r.Device, 0
	case CursorSet:
		return 'p', r.Device, 0
	case NotifySet:
		return 'n', r.Asker, 0
	case NotifyEnded:
		return 'n', r.Asker, 0
	}
	return 0, "", 0
}

// replaces reports that after r the older record says nothing.
func replaces(r, old Record) bool {
	kind, id, offset := rowOf(old)
	if kind == 0 {
		return false
	}
	switch r := r.(type) {
	case Erased:
		return kind != 'h'
	case EntriesDropped:
		return kind == 'z' && offset >= r.From && offset <= r.To
	case DeviceGone:
		if kind == 'p' && id == r.Device {
			return true
		}
	}
	k, i, o := rowOf(r)
	return k == kind && i == id && o == offset
}
