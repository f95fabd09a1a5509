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
	if p := a.GetOutbox(); p != nil {
		in.Outbox = &presence.Position{Epoch: p.GetEpoch(), Offset: p.GetOffset()}
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
		return presence.SetRelations{Block: w.Relations.GetBlock(), Unblock: w.Relations.GetUnblock()}
	case *link.Act_Kick:
		k := w.Kick
		return presence.Kick{Device: k.GetDevice(), Session: k.GetSession(), Reason: k.GetReason(), Close: k.GetClose()}
	case *link.Act_Revoke:
		r := w.Revoke
		return presence.Revoke{Before: r.GetBefore(), JTI: r.GetJti(), Until: r.GetUntil()}
	case *link.Act_Contact:
		if w.Contact.GetUser() == a.GetUser() {
			return nil
		}
		return presence.Contact{Session: session, Conn: c, User: w.Contact.GetUser(), Action: enum[presence.ContactAction](w.Contact.GetAction())}
	case *link.Act_Publish:
		if p := publish(w.Publish); p != nil {
			return *p
		}
		return nil
	case *link.Act_NotifyWhen:
		if w.NotifyWhen.GetUser() == a.GetUser() {
			return nil
		}
		in := notifyWhen(w.NotifyWhen)
		in.Hidden = 0
		return in
	case *link.Act_Device:
		d := w.Device
		return presence.SetDevice{Session: session, Conn: c, Device: d.GetDevice(), Provider: d.GetProvider(), Token: d.GetToken(), Forget: d.GetForget()}
	case *link.Act_Erase:
		return presence.Erase{}
	case *link.Act_Purge:
		return presence.Purge{Epoch: w.Purge}
	case *link.Act_Import:
		in := presence.Import{Replace: w.Import.GetReplace()}
		for _, r := range w.Import.GetRows() {
			if r.GetUser() == a.GetUser() {
				return nil
			}
			in.Rows = append(in.Rows, relationRow(r))
		}
		return in
	}
	return nil
}

// publish is nil if the id is none.
func publish(p *link.Publish) *presence.Publish {
	in := &presence.Publish{Sender: p.GetSender(), ClientID: p.GetClientId(), Body: p.GetBody(), Digest: digest(p.GetBody()),
		Class: enum[presence.Urgency](p.GetClass()), TTL: ms(p.GetTtlMs()), Collapse: p.GetCollapse(), AnyDevice: p.GetAnyDevice()}
	if len(p.GetId()) != len(in.ID) {
		return nil
	}
	copy(in.ID[:], p.GetId())
	return in
}

func notifyWhen(n *link.NotifyWhen) presence.NotifyWhen {
	return presence.NotifyWhen{User: n.GetUser(), TTL: ms(n.GetTtlMs()), End: n.GetEnd(), Hidden: mask(n.GetHidden())}
}

func relationRow(r *link.ContactRow) presence.RelationRow {
	out := presence.RelationRow{User: r.GetUser()}
	for _, f := range []struct {
		on  bool
		bit presence.Relation
	}{{r.GetTo(), presence.RelationTo}, {r.GetFrom(), presence.RelationFrom}, {r.GetPendingOut(), presence.RelationPendingOut},
		{r.GetPendingIn(), presence.RelationPendingIn}, {r.GetApproved(), presence.RelationApproved}, {r.GetBlocked(), presence.RelationBlocked}} {
		if f.on {
			out.Relation |= f.bit
		}
	}
	return out
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
