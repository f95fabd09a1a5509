package presence

import "time"

// Deadline is the earliest time at which Step must be called with Tick even if no other
// input arrives; false when nothing is pending.
func (u *User) Deadline() (at time.Time, ok bool) {
	var first int64
	due := func(t int64) {
		if t != 0 && (first == 0 || t < first) {
			first = t
		}
	}
	for i := range u.sessions {
		switch s := &u.sessions[i]; s.phase() {
		case inGrace:
			due(s.end)
		case resumable:
			due(s.resumeEnd(u.cfg))
		}
	}
	m := u.more
	if m == nil {
		return instant(first), first != 0
	}
	for i := range m.claims {
		due(m.claims[i].until)
	}
	if m.cover != nil {
		for i := range m.cover.claims {
			due(m.cover.claims[i].until)
		}
	}
	for i := range m.grants {
		due(m.grants[i].Until.UnixMilli())
	}
	for i := range m.revoked.Tokens {
		due(m.revoked.Tokens[i].Until * 1000)
	}
	for i := range m.waiters {
		due(m.waiters[i].until)
	}
	if o := m.outbox; o != nil {
		due(o.until)
		for i := range o.readers {
			due(o.readers[i].at)
		}
		for i := range o.devices {
			due(o.devices[i].due())
		}
	}
	return instant(first), first != 0
}

// expire fires what is due.
func (u *User) expire(now int64, out *Output) {
	u.expireSessions(now)
	m := u.more
	if m == nil {
		return
	}
	m.claims = u.expireClaims(m.claims, now, out)
	if m.cover != nil {
		m.cover.claims = u.expireClaims(m.cover.claims, now, nil)
	}
	u.endGrants(func(g HeldGrant) bool { return g.Until.UnixMilli() <= now }, out)
	u.expireTokens(now, out)
	u.expireWaiters(now, out)
	u.expireEntries(now, out)
	u.expireDevices(now, out)
	if m.outbox != nil {
		m.outbox.ageSenders(now, out)
	}
}

// changes is when what the user shows to others, as long as it is offline, or who may see
// it, ends by itself.
func (u *User) changes() time.Time {
	m := u.more
	if m == nil {
		return time.Time{}
	}
	var first int64
	due := func(t int64) {
		if t != 0 && (first == 0 || t < first) {
			first = t
		}
	}
	claims := m.claims
	if m.cover != nil {
		claims = m.cover.claims
	}
	for i := range claims {
		if claims[i].session == "" {
			due(claims[i].until)
		}
	}
	for i := range m.grants {
		due(m.grants[i].Until.UnixMilli())
	}
	return instant(first)
}
