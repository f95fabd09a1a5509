package presence

import "time"

// NeedsOldest reports that a publish of the sender must carry Publish.Oldest: the least
// id among its dedupe rows that is greater than after.
func (u *User) NeedsOldest(sender string, now time.Time) (after ID, ok bool) {
	return ID{}, false
}

// Gone says why an offset that was named in a Delivery is no longer stored.
func (u *User) Gone(offset uint64) GapReason { return GapAcked }
