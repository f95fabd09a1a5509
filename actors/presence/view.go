package presence

import (
	"slices"
	"time"
)

// resolution of last seen for others.
const resolution = time.Minute

// Equal reports whether two views show the same. The reason is part of a transition,
// not of what is shown.
func (v *View) Equal(w *View) bool {
	return v.State == w.State && v.Bucket == w.Bucket && v.Text == w.Text && v.Emoji == w.Emoji &&
		v.Activity == w.Activity && v.LastSeen.Equal(w.LastSeen) && v.Since.Equal(w.Since) &&
		slices.Equal(v.Devices, w.Devices)
}

// Empty reports that the view shows nothing: offline, and that is all.
func (v *View) Empty() bool {
	return v.State == Offline && v.Bucket == NoBucket && v.Text == "" && v.Emoji == "" && v.LastSeen.IsZero()
}

// Masked returns what one with the mask sees at time now. Without FieldState that is
// offline, said as if by a goodbye. Last seen is rounded down to a minute; when the state
// began is withheld where it would tell it.
func (v *View) Masked(m Mask, now time.Time) View {
	if m&FieldState == 0 {
		return View{Reason: ReasonExplicit}
	}
	w := *v
	w.LastSeen = time.Time{}
	if m&FieldStatus == 0 {
		w.Text, w.Emoji = "", ""
	}
	if m&FieldActivity == 0 {
		w.Activity = ""
	}
	if m&FieldDevices == 0 {
		w.Devices = nil
	}
	if v.State != Offline {
		return w
	}
	w.Since = time.Time{}
	switch {
	case v.LastSeen.IsZero():
	case m&FieldLastSeen != 0:
		w.LastSeen = v.LastSeen.Truncate(resolution)
		w.Since = v.Since.Truncate(resolution)
	case m&FieldBucket != 0:
		w.Bucket = bucketOf(now.Sub(v.LastSeen))
	}
	return w
}

func bucketOf(ago time.Duration) Bucket {
	const day = 24 * time.Hour
	switch {
	case ago < 3*day:
		return Recently
	case ago < 7*day:
		return Week
	case ago < 30*day:
		return Month
	}
	return LongAgo
}

// reason is what watchers are told.
func (c Cause) reason() Reason {
	switch c {
	case Bye:
		return ReasonExplicit
	case Kicked, Revoked:
		return ReasonKicked
	case NodeLost:
		return ReasonNodeLost
	case Expired:
		return ReasonExpired
	}
	return ReasonTimeout
}

// exact is what the user would show without the invisible flag, by the published rule:
// no session: offline; the winning claim; the best over devices of online and away.
func (u *User) exact() View {
	var v View
	for i := range u.sessions {
		if s := &u.sessions[i]; s.phase() != resumable {
			v.State = max(v.State, s.state())
		}
	}
	c := winner(u.claims(), v.State == Offline)
	if c != nil {
		v.Text, v.Emoji = c.Text, c.Emoji
	}
	if v.State == Offline {
		return v
	}
	if c != nil {
		v.Activity = c.Activity
		if c.State != Offline {
			v.State = c.State
		}
	}
	v.Devices = u.devices()
	return v
}

// public is what the user shows at best, with the times that hold since its last change.
func (u *User) public(now int64) View {
	var v View
	if c := u.covered(); c != nil {
		if w := winner(c.claims, true); w != nil {
			v.Text, v.Emoji = w.Text, w.Emoji
		}
	} else {
		v = u.exact()
	}
	old := u.view
	v.Since = old.Since
	if v.State != old.State {
		v.Since = instant(now)
		if old.State == Offline && u.since != 0 {
			v.Since, u.since = instant(u.since), 0
		}
		if v.State == Offline && u.covered() == nil {
			u.last = u.active
		}
	}
	if v.State != Offline {
		return v
	}
	v.Reason = old.Reason
	if old.State != Offline {
		v.Reason = u.why.reason()
	}
	v.LastSeen = instant(u.last)
	return v
}

// state of one device.
func (s *session) state() State {
	if s.flags&flagAway != 0 {
		return Away
	}
	return Online
}

// devices is the best state per class, the class with the latest input first.
func (u *User) devices() []DeviceRow {
	var best [classes]State
	var minute [classes]uint32
	var order [classes]Class
	n := 0
	for i := range u.sessions {
		s := &u.sessions[i]
		if s.phase() == resumable || s.class == NoClass {
			continue
		}
		if best[s.class] == Offline {
			order[n] = s.class
			n++
		}
		best[s.class] = max(best[s.class], s.state())
		minute[s.class] = max(minute[s.class], s.minute)
	}
	if n == 0 {
		return nil
	}
	slices.SortFunc(order[:n], func(a, b Class) int {
		if minute[a] != minute[b] {
			return int(int64(minute[b]) - int64(minute[a]))
		}
		return int(a) - int(b)
	})
	old := u.view.Devices
	same := len(old) == n
	for i := 0; same && i < n; i++ {
		same = old[i] == DeviceRow{order[i], best[order[i]]}
	}
	if same {
		return old
	}
	rows := make([]DeviceRow, n)
	for i, c := range order[:n] {
		rows[i] = DeviceRow{c, best[c]}
	}
	return rows
}

// selfView is what the user sees of itself.
func (u *User) selfView(now int64) *Self {
	a := u.audience()
	s := &Self{View: *u.view, Everyone: a.Mask(Watcher{}, 0), Hidden: a.hidden()}
	m := u.more
	if m == nil {
		return s
	}
	if len(m.rules) > 0 {
		s.Rules = a.Rules()
	}
	if m.cover != nil {
		s.Invisible = true
		s.View = u.exact()
		s.View.Since = u.view.Since
	}
	for _, c := range m.claims {
		if c.until != 0 {
			c.TTL = instant(c.until).Sub(instant(now))
		}
		c.Durable = c.session == ""
		s.Claims = append(s.Claims, c.Claim)
	}
	slices.Reverse(s.Claims)
	slices.SortStableFunc(s.Claims, func(a, b Claim) int { return b.Priority - a.Priority })
	for _, g := range m.grants {
		s.Grants = append(s.Grants, Grant{g.To, g.Fields, g.Until.Sub(instant(now))})
	}
	return s
}
