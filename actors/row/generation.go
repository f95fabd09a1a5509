package row

import (
	"slices"

	"muster/actors/presence"
)

// Salt is what the epochs of outboxes are stored with: epoch xor salt. A shard that has
// lost history is of another generation, so its rows give other epochs than before, and
// devices that come with the old ones are told to begin anew. It is 0 up to generation 1.
func Salt(generation uint64) uint64 {
	if generation <= 1 {
		return 0
	}
	z := generation * 0x9e3779b97f4a7c15 // splitmix64
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Salted are records as they are stored under a generation, and the records of what is
// stored: it is its own inverse.
func Salted(records []presence.Record, generation uint64) []presence.Record {
	salt := Salt(generation)
	if salt == 0 {
		return records
	}
	records = slices.Clone(records)
	for i, r := range records {
		switch r := r.(type) {
		case presence.OutboxSet:
			r.Epoch = salted(r.Epoch, salt)
			records[i] = r
		case presence.CursorSet:
			r.Epoch = salted(r.Epoch, salt)
			records[i] = r
		case presence.DeviceSet:
			r.Epoch = salted(r.Epoch, salt)
			records[i] = r
		case presence.DedupeSet:
			r.Epoch = salted(r.Epoch, salt)
			records[i] = r
		}
	}
	return records
}

// salted leaves 0, which is no epoch, and what would become 0, as they are.
func salted(epoch, salt uint64) uint64 {
	if epoch == 0 || epoch == salt {
		return epoch
	}
	return epoch ^ salt
}

// SaltedKnown is Salted for a dedupe row.
func SaltedKnown(k *presence.Known, generation uint64) {
	if k != nil {
		k.Epoch = salted(k.Epoch, Salt(generation))
	}
}
