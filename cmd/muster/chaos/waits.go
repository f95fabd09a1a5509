package chaos

import (
	"cmp"
	"slices"
	"time"
)

// Pause is how long a shard could not be written to when it got a new leader.
type Pause struct {
	Shard uint32        `json:"shard"`
	At    time.Duration `json:"at"` // of the first acknowledgement of the new term
	Took  time.Duration `json:"took"`
	Fine  bool          `json:"fine,omitempty"` // writes began every fineEach; else as the load had it
}

// pauseReach is how long before its end a pause may have begun, and how long after it writes are looked at: during a partition
// only some servers take any.
const pauseReach = 10 * time.Second

// pauses measures the pause of each shard at each change of its leader: the longest time that a client which began to
// write would have waited for an acknowledgement, by whatever server it asked.
func pauses(sends []send, changes []leader, shardOf func(user string) uint32, fine map[uint32]bool) (list []Pause) {
	writes := map[uint32][]send{}
	for _, s := range sends {
		shard := shardOf(s.user)
		writes[shard] = append(writes[shard], s)
	}
	for _, all := range writes {
		slices.SortFunc(all, func(a, b send) int { return cmp.Compare(a.call, b.call) })
	}
	for _, c := range changes {
		all := writes[c.Shard]
		list = append(list, Pause{Shard: c.Shard, At: c.At, Took: longestWait(all, c.At), Fine: fine[c.Shard]})
	}
	return list
}

// longestWait goes backwards over the writes of a shard, in the order in which they began: one that began later may have
// been acknowledged earlier. Those count that began before a moment and had to wait for it.
func longestWait(all []send, at time.Duration) (longest time.Duration) {
	after, _ := slices.BinarySearchFunc(all, at+pauseReach, func(s send, t time.Duration) int { return cmp.Compare(s.call, t) })
	soonest := time.Duration(-1)
	for i := after - 1; i >= 0 && all[i].call > at-pauseReach; i-- {
		s := all[i]
		if s.acked && (soonest < 0 || s.back < soonest) {
			soonest = s.back
		}
		if soonest >= at && s.call <= at {
			longest = max(longest, soonest-s.call)
		}
	}
	return longest
}
