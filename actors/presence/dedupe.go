package presence

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

const (
	dedupeWindow = 24 * time.Hour
	dedupeAhead  = 10 * time.Minute
	dedupeHours  = 25   // rows of an hour are gone when it is this old
	maxSenderIDs = 1024 // rows of one sender

	recentFor = time.Minute
	recentMax = 4096
)

// recent is what was done of late, by key: its commits may be under way, so that a look
// into the store would not find it. A shell has fewer than 4096 steps of a shard in
// flight, none for a minute.
type recent[K comparable, V any] struct{ rows []recentRow[K, V] }

type recentRow[K comparable, V any] struct {
	at  int64
	key K
	val V
}

func (r *recent[K, V]) get(key K) (val V, ok bool) {
	for i := len(r.rows) - 1; i >= 0; i-- {
		if r.rows[i].key == key {
			return r.rows[i].val, true
		}
	}
	return val, false
}

func (r *recent[K, V]) put(key K, val V, now int64) {
	if len(r.rows) == recentMax {
		r.rows = slices.Delete(r.rows, 0, 1)
	}
	r.rows = append(r.rows, recentRow[K, V]{now, key, val})
}

// age forgets what is old.
func (r *recent[K, V]) age(now int64) {
	n := 0
	for n < len(r.rows) && r.rows[n].at <= now-recentFor.Milliseconds() {
		n++
	}
	if n > 0 {
		r.rows = slices.Delete(r.rows, 0, n)
	}
	if len(r.rows) == 0 {
		r.rows = nil
	}
}

// sentID is a client id of a sender.
type sentID struct {
	sender string
	id     ID
}

// sender is one who published within the last 25 hours.
type sender struct {
	name   string
	floor  ID
	hours  []HourCount // of its ids, ascending
	last   ID          // the greatest that it used, if it was in this activation
	at     uint64      // the entry that says so; 0: none does
	known  uint64      // Restore: the offset as of which this is known
	row    bool        // a row may be there
	change change
}

// turn notes that the sender is to be recorded: no entry says what there is to know of it.
func (o *outbox) turn(s *sender, how change) {
	s.at, s.change, o.turned = 0, max(s.change, how), true
}

func (id ID) hour() uint32 { return uint32(id.Time().Unix() / 3600) }

func hourOf(now int64) uint32 { return uint32(now / 3_600_000) }

// dedupe answers a publish whose id is known, or cannot be.
func (u *User) dedupe(now int64, in *Publish) (Reply, bool) {
	k := in.Known
	if m := u.more; k == nil && m != nil {
		if v, ok := m.ids.get(sentID{in.Sender, in.ID}); ok {
			k = &v
		}
	}
	if k != nil {
		if k.Digest != in.Digest {
			return Reply{Code: IDReused, Message: "the client id came with another body"}, true
		}
		return published(in.Sender, *k, true), true
	}
	at, floor := in.ID.Time().UnixMilli(), ID{}
	if s := u.sender(in.Sender); s != nil {
		floor = s.floor
	}
	if at < now-dedupeWindow.Milliseconds() || at > now+dedupeAhead.Milliseconds() || bytes.Compare(in.ID[:], floor[:]) <= 0 {
		return Reply{Code: IDExpired, Message: "the client id is older than 24h, or too far ahead"}, true
	}
	return Reply{}, false
}

func (u *User) sender(name string) *sender {
	o := u.box()
	if o == nil {
		return nil
	}
	if i, found := o.findSender(name); found {
		return &o.senders[i]
	}
	return nil
}

func (o *outbox) findSender(name string) (int, bool) {
	return slices.BinarySearchFunc(o.senders, name, func(s sender, name string) int { return strings.Compare(s.name, name) })
}

// rows of the sender that the store still holds.
func (s *sender) rows(now int64) (n int) {
	for _, h := range s.hours {
		if h.Hour+dedupeHours > hourOf(now) {
			n += int(h.Rows)
		}
	}
	return n
}

// count adds d rows to an hour.
func (s *sender) count(hour uint32, d int) {
	hours := slices.Clone(s.hours) // records share them
	i, found := slices.BinarySearchFunc(hours, hour, func(h HourCount, hour uint32) int { return int(h.Hour) - int(hour) })
	if !found {
		hours = slices.Insert(hours, i, HourCount{Hour: hour})
	}
	if n := int(hours[i].Rows) + d; n > 0 {
		hours[i].Rows = uint16(n)
	} else {
		hours = slices.Delete(hours, i, i+1)
	}
	s.hours = hours
}

// MayKnow reports that an id of the sender may have been used. If not, there is no dedupe row of it.
func (u *User) MayKnow(sender string, id ID) bool {
	s := u.sender(sender)
	return s != nil && (s.last == ID{} || bytes.Compare(id[:], s.last[:]) <= 0)
}

// NeedsOldest reports that a publish of the sender must carry Publish.Oldest: the least
// id among its dedupe rows that is greater than after.
func (u *User) NeedsOldest(sender string, now time.Time) (after ID, ok bool) {
	s := u.sender(sender)
	if s == nil || s.rows(now.UnixMilli()) < maxSenderIDs {
		return ID{}, false
	}
	return s.floor, true
}

// remember makes a client id known. Of too many of a sender the oldest goes and becomes
// its floor. It returns the sender, which is to be recorded.
func (u *User) remember(now int64, in *Publish, k Known, out *Output) *sender {
	u.extra().ids.put(sentID{in.Sender, in.ID}, k, now)
	out.Records = append(out.Records, DedupeSet{in.Sender, in.ID, k.Epoch, k.Offset, k.At, k.Digest})
	o := u.outbox()
	o.ageSenders(now, out)
	i, found := o.findSender(in.Sender)
	if !found {
		o.senders = slices.Insert(o.senders, i, sender{name: in.Sender, last: in.ID})
	}
	s := &o.senders[i]
	if (s.last != ID{}) && bytes.Compare(in.ID[:], s.last[:]) > 0 {
		s.last = in.ID
	}
	if s.rows(now) >= maxSenderIDs && bytes.Compare(in.Oldest[:], s.floor[:]) > 0 {
		s.floor = in.Oldest
		s.count(in.Oldest.hour(), -1)
		out.Records = append(out.Records, DedupeGone{in.Sender, in.Oldest})
	}
	s.hours = slices.DeleteFunc(slices.Clone(s.hours), func(h HourCount) bool { return h.Hour+dedupeHours <= hourOf(now) })
	s.count(in.ID.hour(), 1)
	return s
}

// ageSenders forgets, once an hour, the hours that are over, and who has none left.
func (o *outbox) ageSenders(now int64, out *Output) {
	if hour := hourOf(now); hour != o.hour {
		o.hour = hour
		o.senders = slices.DeleteFunc(o.senders, func(s sender) bool {
			gone := s.hours[len(s.hours)-1].Hour+dedupeHours <= hour
			if gone && s.row {
				out.Records = append(out.Records, SenderSet{Sender: s.name, Lazy: true})
			}
			return gone
		})
	}
}
