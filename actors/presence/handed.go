package presence

import (
	"slices"
	"time"
)

// HandedSession is a session in grace that an activation on another node kept.
type HandedSession struct {
	Attach Attach // as an edge would announce it; Session empty: presumed only
	Cause  Cause
	Since  time.Time // when its conn ended
	Until  time.Time // when its grace ends
}

// Handed is what another node knew of the user when it gave the shard away in good order. What is known here
// already counts more.
type Handed struct {
	Sessions []HandedSession
	Live     bool // there was a session with a conn, too: an edge will announce it
}

func (Handed) userInput() {}

// Leaving is what the user's next activation, on another node, is to be given; false if no edge will miss
// telling it anything.
func (u *User) Leaving(now time.Time) (Handed, bool) {
	var h Handed
	for i := range u.sessions {
		switch s := &u.sessions[i]; s.phase() {
		case live:
			h.Live = true
		case inGrace:
			h.Sessions = append(h.Sessions, u.leaving(now.UnixMilli(), s))
		}
	}
	return h, len(h.Sessions) > 0
}

func (u *User) leaving(now int64, s *session) HandedSession {
	a := Attach{Conn: s.conn, Session: s.id, Resume: true, Device: s.device, Class: s.class, Attempt: s.attempt,
		Away: s.flags&flagAway != 0, Inactive: s.flags&flagInactive != 0, ActiveAt: instant(int64(s.minute) * 60000),
		Grace: time.Duration(s.grace) * time.Millisecond, IssuedAt: s.iat, JTI: s.jti, Client: s.client}
	for _, c := range u.claims() {
		if c.session == s.id && s.id != "" {
			if c.until != 0 { // what is about to end may last a little longer
				c.TTL = max(instant(c.until).Sub(instant(now)), u.cfg.MinClaimTTL)
			}
			a.Claims = append(a.Claims, c.Claim)
		}
	}
	return HandedSession{Attach: a, Cause: s.cause, Since: instant(s.off), Until: instant(s.end)}
}

// handed takes over sessions in grace. A user of whom only such are left is no longer a guess.
func (u *User) handed(now int64, in *Handed) {
	if !in.Live {
		u.sessions = slices.DeleteFunc(u.sessions, func(s session) bool { return s.id == "" })
	}
	for i := range in.Sessions {
		h := &in.Sessions[i]
		a := &h.Attach
		until := min(h.Until.UnixMilli(), now+u.cfg.MaxGraceInactive.Milliseconds())
		if a.Session == "" {
			if !in.Live {
				u.presume(now, until)
			}
			continue
		}
		if until <= now || !u.takesOver(a) {
			continue
		}
		s := session{id: a.Session, device: a.Device, jti: a.JTI, client: a.Client, conn: a.Conn, attempt: a.Attempt,
			off: min(h.Since.UnixMilli(), now), end: until, iat: a.IssuedAt, grace: -1, class: a.Class, cause: h.Cause}
		if a.Grace >= 0 {
			s.grace = int32(min(a.Grace, u.cfg.MaxGraceInactive).Milliseconds())
		}
		s.set(flagAway, a.Away)
		s.set(flagInactive, a.Inactive)
		u.touch(&s, a.ActiveAt.UnixMilli(), now)
		u.sessions = append(u.sessions, s)
		u.adoptClaims(now, a)
		u.note(now, didTakeHand, h.Cause)
	}
	u.news = selfNews
}

// takesOver reports that a session is new here and may be.
func (u *User) takesOver(a *Attach) bool {
	i, r := u.admit(a)
	return i < 0 && r.Code == OK && len(u.sessions) < u.cfg.Devices
}
