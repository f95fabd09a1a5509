package presence

import (
	"cmp"
	"slices"
	"strings"
)

// Restore folds stored records, in any order, into a fresh activation. The user is
// offline until a session attaches or is announced. What has ended meanwhile ends with
// the first Step.
func (u *User) Restore(records ...Record) {
	for _, r := range records {
		switch r := r.(type) {
		case Marker:
			u.last, u.gone, u.since, u.view = milli(r.LastSeen), milli(r.LastConnected), 0, &View{}
			if r.Online {
				u.since = milli(r.Since)
			} else {
				u.view = &View{Reason: r.Reason, Since: r.Since}
			}
		case InvisibleSet:
		default:
			u.restore(r)
		}
	}
	m := u.extra()
	for _, r := range records { // its last seen is above that of the marker
		if r, ok := r.(InvisibleSet); ok {
			m.cover = nil
			if r.On {
				m.cover = &cover{}
				for _, h := range r.Claims {
					m.cover.claims = append(m.cover.claims, h.claim())
				}
				u.last = milli(r.LastSeen)
			}
		}
	}
	slices.SortStableFunc(m.claims, func(a, b claim) int { return cmp.Compare(a.at, b.at) })
	slices.SortFunc(m.relations, func(a, b relation) int { return strings.Compare(a.other, b.other) })
	slices.SortFunc(m.waiters, func(a, b waiter) int { return strings.Compare(a.asker, b.asker) })
	if m.outbox != nil {
		m.outbox.restored(records)
	}
	u.rebuild()
	u.tidy(0)
	v := u.public(0)
	u.view = &v
	u.news = noNews
	if len(records) > 0 {
		u.news = countNews
	}
	if u.more != nil {
		u.more.restored = true
	}
}

// restore takes over one record.
func (u *User) restore(r Record) {
	m := u.extra()
	switch r := r.(type) {
	case ClaimSet:
		m.claims = append(without(m.claims, r.Claim.ID), r.claim())
	case ClaimEnded:
		m.claims = without(m.claims, r.ID)
	case RulesSet:
		m.rules, m.grants = r.Rules, r.Grants
	case RelationSet:
		m.relations = slices.DeleteFunc(m.relations, func(old relation) bool { return old.other == r.Other })
		if r.Relation != 0 {
			m.relations = append(m.relations, relation{r.Other, r.Asked, r.Heard, r.Relation})
		}
	case Revocations:
		m.revoked = r
	case NotifySet:
		m.waiters = slices.DeleteFunc(m.waiters, func(w waiter) bool { return w.asker == r.Asker })
		m.waiters = append(m.waiters, waiter{r.Asker, r.Until.UnixMilli(), r.Hidden})
	case NotifyEnded:
		m.waiters = slices.DeleteFunc(m.waiters, func(w waiter) bool { return w.asker == r.Asker })
	case Erased:
		*u = *NewUser(u.cfg, instant(0))
	case OutboxSet:
		o := u.outbox()
		o.epoch, o.head, o.gaps = r.Epoch, r.Head, slices.Clone(r.Gaps)
	case EntryPut, EntriesDropped, DeviceSet, DeviceGone, CursorSet, SenderSet:
		u.outbox().restore(r)
	}
}

func (o *outbox) restore(r Record) {
	switch r := r.(type) {
	case EntryPut:
		e := &r.Entry
		o.entries = append(o.entries, e.held())
		if len(r.Hours) > 0 {
			o.learn(SenderSet{e.Sender, r.Floor, r.Hours, e.Offset, false}, e.Offset)
		}
	case EntriesDropped:
		o.entries = slices.DeleteFunc(o.entries, func(h held) bool { return h.offset >= r.From && h.offset <= r.To })
	case DeviceSet:
		o.devices = slices.DeleteFunc(o.devices, func(d device) bool { return d.id == r.Device })
		o.devices = append(o.devices, device{
			id: r.Device, provider: r.Provider, token: r.Token, start: Position{r.Epoch, r.Offset}, seen: r.Seen,
		})
	case DeviceGone:
		o.devices = slices.DeleteFunc(o.devices, func(d device) bool { return d.id == r.Device })
	case SenderSet:
		if len(r.Hours) == 0 {
			o.senders = slices.DeleteFunc(o.senders, func(s sender) bool { return s.name == r.Sender })
			return
		}
		o.learn(r, 0)
	}
}

// learn takes what an entry or, with entry 0, a row says of a sender, if it is the newest.
func (o *outbox) learn(r SenderSet, entry uint64) {
	i, found := o.findSender(r.Sender)
	if !found {
		o.senders = slices.Insert(o.senders, i, sender{name: r.Sender})
	}
	s := &o.senders[i]
	s.row = s.row || entry == 0
	if r.Offset > s.known || entry == 0 && r.Offset == s.known {
		s.floor, s.hours, s.at, s.known = r.Floor, r.Hours, entry, r.Offset
	}
}

// restored puts in order what has come in any.
func (o *outbox) restored(records []Record) {
	slices.SortFunc(o.entries, func(a, b held) int { return cmp.Compare(a.offset, b.offset) })
	slices.SortFunc(o.devices, func(a, b device) int { return strings.Compare(a.id, b.id) })
	for i := range o.devices {
		if d := &o.devices[i]; d.start.Epoch == o.epoch {
			d.cursor = d.start.Offset
		}
	}
	if n := len(o.entries); n > 0 {
		o.head = max(o.head, o.entries[n-1].offset)
	}
	trimmed := uint64(0)
	for _, r := range records {
		switch r := r.(type) {
		case CursorSet:
			if d := o.device(r.Device); d != nil {
				d.seen = max(d.seen, r.Seen)
				if r.Epoch == o.epoch {
					d.cursor = max(d.cursor, r.Offset)
				}
			}
		case OutboxSet:
			trimmed = r.Trimmed
		}
	}
	n := o.after(trimmed)
	if n > 0 {
		o.stale = o.entries[n-1].offset
		o.entries = slices.Delete(o.entries, 0, n)
	}
	low, _ := o.cursors()
	if n = o.after(low); n > 0 && len(o.devices) > 0 {
		o.stale = o.entries[n-1].offset
		o.entries = slices.Delete(o.entries, 0, n)
	}
	for _, h := range o.entries {
		o.bytes += int(h.size)
		if o.until == 0 || h.until < o.until {
			o.until = h.until
		}
	}
	o.trimGaps()
}
