package actors

import (
	"time"

	"muster/actors/link"
	"muster/actors/presence"
)

func conn(e presence.Edge, id uint64) presence.Conn {
	return presence.Conn{Edge: e.Name, Incarnation: e.Incarnation, ID: id}
}

func watcher(user string, hidden uint32) presence.Watcher {
	return presence.Watcher{User: user, Hidden: mask(hidden)}
}

// mask drops bits that are no fields.
func mask(m uint32) presence.Mask { return presence.Mask(m) & presence.AllFields }

func version(o *link.Occupant) presence.Version {
	return presence.Version{Term: o.GetTerm(), Number: o.GetVersion()}
}

// unixMs is the instant, zero for 0.
func unixMs(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func ms(d int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(max(d, -most), most)) * time.Millisecond
}

// enum maps a number that is out of the range of an enumeration to above, which the
// cores refuse.
func enum[T ~uint8](v uint32) T { return T(min(v, 255)) }

func attach(e presence.Edge, a *link.Attach) presence.Attach {
	in := presence.Attach{
		Conn: conn(e, a.GetConn()), Session: a.GetSession(), Resume: a.GetResume(), Device: a.GetDevice(),
		Class: enum[presence.Class](a.GetClass()), Attempt: a.GetAttempt(), Away: a.GetAway(), Inactive: a.GetInactive(),
		ActiveAt: unixMs(a.GetActiveAt()), Grace: ms(a.GetGraceMs()), IssuedAt: a.GetIat(), JTI: a.GetJti(), Client: a.GetClient(),
	}
	for _, c := range a.GetClaims() {
		in.Claims = append(in.Claims, claim(c))
	}
	return in
}

func detach(e presence.Edge, d *link.Detach) presence.Detach {
	return presence.Detach{Conn: conn(e, d.GetConn()), Session: d.GetSession(), Attempt: d.GetAttempt(),
		Cause: enum[presence.Cause](uint32(d.GetCause())), Inactive: d.GetInactive(), Away: d.GetAway(), ActiveAt: unixMs(d.GetActiveAt())}
}

// act is the command as an input; nil if it says nothing.
func act(e presence.Edge, a *link.Act) presence.Input {
	session, c := a.GetSession(), conn(e, a.GetConn())
	switch w := a.GetWhat().(type) {
	case *link.Act_Claim:
		return presence.SetClaim{Session: session, Conn: c, Claim: claim(w.Claim)}
	case *link.Act_EndClaim:
		return presence.EndClaim{Session: session, Conn: c, ID: w.EndClaim}
	case *link.Act_Invisible:
		return presence.SetInvisible{Session: session, Conn: c, On: w.Invisible}
	case *link.Act_Audience:
		return audience(w.Audience)
	case *link.Act_Relations:
		r := w.Relations
		return presence.SetRelations{AddContacts: r.GetContactsAdd(), RemoveContacts: r.GetContactsRemove(), Block: r.GetBlock(),
			Unblock: r.GetUnblock(), BlockedBy: r.GetBlockedBy(), UnblockedBy: r.GetUnblockedBy()}
	case *link.Act_Kick:
		k := w.Kick
		return presence.Kick{Device: k.GetDevice(), Session: k.GetSession(), Reason: k.GetReason(), Close: k.GetClose()}
	case *link.Act_Revoke:
		r := w.Revoke
		return presence.Revoke{Before: r.GetBefore(), JTI: r.GetJti(), Until: r.GetUntil()}
	}
	return nil
}

func claim(c *link.Claim) presence.Claim {
	return presence.Claim{ID: c.GetId(), Source: c.GetSource(), State: enum[presence.State](c.GetState()), Text: c.GetText(),
		Emoji: c.GetEmoji(), Activity: c.GetActivity(), Priority: int(c.GetPriority()), TTL: ms(c.GetTtlMs()), Durable: c.GetDurable()}
}

func audience(a *link.Audience) presence.SetAudience {
	var in presence.SetAudience
	for _, r := range a.GetRules() {
		in.Rules = append(in.Rules, presence.FieldRule{Field: enum[presence.Mask](r.GetField()), Rule: enum[presence.Rule](r.GetRule()), Users: r.GetUsers()})
	}
	for _, t := range a.GetGrants() {
		in.Grants = append(in.Grants, presence.Grant{To: t.GetTo(), Fields: mask(t.GetFields()), TTL: ms(t.GetTtlMs())})
	}
	return in
}
