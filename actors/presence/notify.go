package presence

import (
	"slices"
	"strings"
	"time"
)

// Bounds of who waits for a user.
const (
	maxWaiters       = 1000
	defaultNotifyTTL = 7 * 24 * time.Hour
	minOutboxTTL     = 10 * time.Second
	maxOutboxTTL     = 30 * 24 * time.Hour
)

// waiter wants to know when the user comes online.
type waiter struct {
	asker  string
	until  int64 // Unix ms
	hidden Mask
}

// notifyWhen passes the wish on to whom it is about.
func (u *User) notifyWhen(in *NotifyWhen, out *Output) Reply {
	ttl := in.TTL
	if ttl == 0 {
		ttl = defaultNotifyTTL
	}
	if !validID(in.User) || ttl < minOutboxTTL || ttl > maxOutboxTTL {
		return bad("notify_when: a user, and a ttl of 10s to 720h")
	}
	out.Records = append(out.Records, TransferOut{in.User, NotifyWhen{TTL: ttl, End: in.End, Hidden: u.audience().hidden()}})
	return Reply{}
}

func (u *User) findWaiter(asker string) (int, bool) {
	return slices.BinarySearchFunc(u.more.waiters, asker, func(w waiter, id string) int { return strings.Compare(w.asker, id) })
}

// await notes that from waits for the user, or no longer does.
func (u *User) await(now int64, from string, in NotifyWhen, out *Output) Reply {
	m := u.extra()
	i, found := u.findWaiter(from)
	switch {
	case in.End:
		u.endWaiter(from, out)
		return Reply{}
	case m.relations.of(from).bits&(RelationBlocked|RelationBlockedBy) != 0:
		return Reply{Code: Blocked, Message: "blocked"}
	case !found && len(m.waiters) >= maxWaiters:
		return Reply{Code: Limit, Message: "notify_when"}
	}
	ttl := min(max(in.TTL, minOutboxTTL), maxOutboxTTL)
	w := waiter{from, now + ttl.Milliseconds(), in.Hidden & AllFields}
	if !found {
		m.waiters = slices.Insert(m.waiters, i, w)
	}
	m.waiters[i] = w
	u.news = max(u.news, countNews)
	out.Records = append(out.Records, NotifySet{w.asker, instant(w.until), w.hidden})
	return Reply{}
}

func (u *User) endWaiter(asker string, out *Output) {
	if i, found := u.findWaiter(asker); found {
		u.more.waiters = slices.Delete(u.more.waiters, i, i+1)
		out.Records = append(out.Records, NotifyEnded{asker})
	}
}

// notify tells those who wait and see the user online now.
func (u *User) notify(out *Output) {
	if u.more == nil || u.view.State == Offline {
		return
	}
	a := u.audience()
	u.more.waiters = slices.DeleteFunc(u.more.waiters, func(w waiter) bool {
		if a.Mask(Watcher{w.asker, w.hidden}, u.cfg.Reciprocal)&FieldState == 0 {
			return false
		}
		out.Records = append(out.Records, NotifyEnded{w.asker}, TransferOut{w.asker, Publish{Type: NotifyEntry}})
		return true
	})
}

func (u *User) expireWaiters(now int64, out *Output) {
	m := u.more
	m.waiters = slices.DeleteFunc(m.waiters, func(w waiter) bool {
		if w.until > now {
			return false
		}
		out.Records = append(out.Records, NotifyEnded{w.asker})
		return true
	})
}
