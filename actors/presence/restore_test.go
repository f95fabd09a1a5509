package presence

import (
	"reflect"
	"slices"
	"time"
)

// stored is what a restored activation must have of a live one.
type stored struct {
	Claims, Cover []claim
	Covered       bool
	Rules         []FieldRule
	Grants        []HeldGrant
	Relations     relations
	Revoked       Revocations
	Waiters       []waiter
	Epoch, Head   uint64
	Trimmed       uint64
	Bytes         int
	Until         int64
	Entries       []held
	Gaps          []Gap
	Senders       []sender
	Devices       []device
}

// durable is what is stored of a user.
func (u *User) durable() (s stored) {
	m := u.more
	if m == nil {
		return s
	}
	s = stored{Rules: m.rules, Grants: m.grants, Relations: m.relations, Revoked: m.revoked, Waiters: m.waiters}
	s.Claims = slices.DeleteFunc(slices.Clone(m.claims), func(c claim) bool { return c.session != "" })
	if m.cover != nil {
		s.Covered, s.Cover = true, m.cover.claims
	}
	if o := m.outbox; o != nil {
		s.Epoch, s.Head, s.Trimmed, s.Bytes, s.Until = o.epoch, o.head, o.trimmed(), o.bytes, o.until
		s.Entries, s.Gaps, s.Senders, s.Devices = o.entries, o.gaps, slices.Clone(o.senders), slices.Clone(o.devices)
		for i := range s.Senders {
			s.Senders[i].last, s.Senders[i].known, s.Senders[i].row = ID{}, 0, false
		}
		for i := range s.Devices {
			s.Devices[i].start = Position{}
		}
	}
	for v, i := reflect.ValueOf(&s).Elem(), 0; i < v.NumField(); i++ {
		if f := v.Field(i); f.Kind() == reflect.Slice && f.Len() == 0 {
			f.SetZero()
		}
	}
	if len(s.Revoked.Tokens) == 0 {
		s.Revoked.Tokens = nil
	}
	return s
}

// checkRestore demands that what is stored makes the same user again, in whatever order.
func (w *world) checkRestore(a *actor) {
	records := slices.Clone(w.stored(a.key.User))
	for i := len(records) - 1; i > 0; i-- {
		if j := w.pick(i + 1); !w.ordered(records[i]) && !w.ordered(records[j]) {
			records[i], records[j] = records[j], records[i]
		}
	}
	u := NewUser(w.cfg, time.Time{})
	u.Restore(records...)
	if at, ok := a.u.Deadline(); ok && !at.After(w.now) {
		return // what has ended ends with the first step
	}
	u.Step(w.now, Tick{})
	if live, back := a.u.durable(), u.durable(); !reflect.DeepEqual(live, back) {
		w.fail("%s: restores\n%+v, not\n%+v", a.key.User, back, live)
	}
	if live, back := a.u.view, u.view; live.State == Offline && (!live.Equal(back) || live.Reason != back.Reason && !live.Since.IsZero()) {
		w.fail("%s: restored it shows %+v, not %+v", a.key.User, *back, *live)
	}
	if u.last != a.u.last && a.u.view.State == Offline {
		w.fail("%s: restored it was last seen %d, not %d", a.key.User, u.last, a.u.last)
	}
}

// ordered records are about rows that others made.
func (w *world) ordered(r Record) bool {
	_, dropped := r.(EntriesDropped)
	return dropped
}
