package presence

// maxRequests bounds the unanswered requests of others. One more is not kept, so that a
// flood cannot push out what the user has not yet seen; to its sender it looks pending.
const maxRequests = 1000

// trigger is what the handshake reacts to.
type trigger uint8

const (
	doSubscribe trigger = iota
	doApprove
	doDeny
	doUnsubscribe
	heardSubscribe
	heardSubscribeBlocked // of one whom the user blocked: not answered
	heardSubscribed
	heardUnsubscribe
	heardUnsubscribed
)

// move is one rule of the handshake: of those for a trigger, the first counts of whose
// bits one is set, or that names none.
type move struct {
	on         trigger
	any        Relation
	set, clear Relation
	send       ContactStanza // 0: nothing is told
}

// handshake is that of RFC 6121. What differs: pre-approval is good for one request, and
// stanzas name the request that they are about.
var handshake = [...]move{
	{on: doSubscribe, any: RelationTo},
	{on: doSubscribe, set: RelationPendingOut, send: StanzaSubscribe},
	{on: doApprove, any: RelationPendingIn, set: RelationFrom, clear: RelationPendingIn, send: StanzaSubscribed},
	{on: doApprove, any: RelationFrom},
	{on: doApprove, set: RelationApproved},
	{on: doDeny, any: RelationPendingIn | RelationFrom, clear: RelationPendingIn | RelationFrom | RelationApproved, send: StanzaUnsubscribed},
	{on: doDeny, clear: RelationApproved},
	{on: doUnsubscribe, any: RelationTo | RelationPendingOut, clear: RelationTo | RelationPendingOut, send: StanzaUnsubscribe},
	{on: heardSubscribe, any: RelationFrom | RelationApproved, set: RelationFrom, clear: RelationApproved, send: StanzaSubscribed},
	{on: heardSubscribe, set: RelationPendingIn},
	{on: heardSubscribeBlocked, set: RelationPendingIn, clear: RelationFrom},
	{on: heardSubscribed, any: RelationPendingOut, set: RelationTo, clear: RelationPendingOut},
	{on: heardUnsubscribe, any: RelationFrom | RelationPendingIn, clear: RelationFrom | RelationPendingIn},
	{on: heardUnsubscribed, any: RelationTo | RelationPendingOut, clear: RelationTo | RelationPendingOut},
}

// react applies a trigger and returns what the other is told.
func (r *relation) react(on trigger) ContactStanza {
	for _, m := range handshake {
		if m.on == on && (m.any == 0 || r.bits&m.any != 0) {
			r.bits = r.bits&^m.clear | m.set
			return m.send
		}
	}
	return 0
}

// triggers of the actions, in their order.
var triggers = map[ContactAction][]trigger{
	Subscribe:   {doSubscribe},
	Approve:     {doApprove},
	Deny:        {doDeny},
	Unsubscribe: {doUnsubscribe},
	Remove:      {doUnsubscribe, doDeny},
}

// contact does what the user wants about another.
func (u *User) contact(now int64, in *Contact, out *Output) Reply {
	if in.Session != "" && u.current(in.Session, in.Conn) < 0 {
		return notAttached
	}
	if !validID(in.User) || triggers[in.Action] == nil {
		return bad("contact: a user, and subscribe, approve, deny, unsubscribe or remove")
	}
	was := u.relations().of(in.User)
	if was.bits&RelationBlocked != 0 && (in.Action == Subscribe || in.Action == Approve) {
		return Reply{Code: Blocked, Message: "you have blocked the user"}
	}
	r, serial := was, u.nextSerial(now)
	var sends []Handshake
	for _, t := range triggers[in.Action] {
		switch s := r.react(t); s {
		case 0:
		case StanzaSubscribe:
			r.asked = serial
			sends = append(sends, Handshake{s, r.asked})
		case StanzaUnsubscribe:
			sends = append(sends, Handshake{s, r.asked})
		default:
			sends = append(sends, Handshake{s, r.heard})
		}
	}
	if r.bits&relationContact != 0 && was.bits&relationContact == 0 && u.relations().count(relationContact) >= u.cfg.Relations {
		return Reply{Code: Limit, Message: "contacts"}
	}
	if r != was {
		if r.asked == serial {
			u.extra().serial = serial
		}
		u.relate([]relation{r}, out)
	}
	for _, s := range sends {
		out.Records = append(out.Records, TransferOut{in.User, s})
	}
	return Reply{Relation: &RelationRow{in.User, r.bits.Shown()}}
}

// nextSerial is that of the next request.
func (u *User) nextSerial(now int64) uint64 {
	if u.more == nil {
		return uint64(now)
	}
	return max(uint64(now), u.more.serial+1)
}

// stanza is what another user's side of the handshake says.
func (u *User) stanza(from string, in Handshake, out *Output) Reply {
	was := u.relations().of(from)
	r := was
	var answer ContactStanza
	switch in.Stanza {
	case StanzaSubscribe:
		if in.Serial <= r.heard {
			return Reply{}
		}
		r.heard = in.Serial
		on := heardSubscribe
		if r.bits&RelationBlocked != 0 {
			on = heardSubscribeBlocked
		}
		answer = r.react(on)
		if r.bits&^was.bits&RelationPendingIn != 0 && u.relations().count(RelationPendingIn) >= maxRequests {
			return Reply{Code: Limit, Message: "requests"}
		}
	case StanzaSubscribed:
		if in.Serial == r.asked {
			r.react(heardSubscribed)
		}
	case StanzaUnsubscribe:
		if in.Serial == r.heard || in.Serial == 0 {
			r.react(heardUnsubscribe)
		}
	case StanzaUnsubscribed:
		if in.Serial == r.asked || in.Serial == 0 {
			r.react(heardUnsubscribed)
		}
	default:
		return bad("an unknown stanza")
	}
	if r != was {
		u.relate([]relation{r}, out)
	}
	if answer != 0 {
		out.Records = append(out.Records, TransferOut{from, Handshake{answer, r.heard}})
	}
	return Reply{}
}
