package presence

import "encoding/json"

// received applies a transfer once.
func (u *User) received(now int64, in *Received, out *Output) Reply {
	m := u.extra()
	taken := TransferTaken{in.Source, in.Generation, in.Seq}
	if code, again := m.taken.get(taken); again {
		return Reply{Code: code}
	}
	if !validID(in.From) {
		return bad("transfer: from")
	}
	out.Records = append(out.Records, taken)
	var r Reply
	switch what := in.What.(type) {
	case Handshake:
		r = u.stanza(in.From, what, out)
	case BlockedBy:
		r = u.blockedBy(in.From, what.On, out)
	case NotifyWhen:
		r = u.await(now, in.From, what, out)
	case Publish:
		r = u.receivedEntry(now, in, what, out)
	case Erased:
		u.forget(in.From, out)
	default:
		r = bad("an unknown transfer")
	}
	u.extra().taken.put(taken, r.Code, now)
	return r
}

// receivedEntry puts an entry into the outbox that another user's change caused.
func (u *User) receivedEntry(now int64, in *Received, p Publish, out *Output) Reply {
	if u.relations().of(in.From).bits&(RelationBlocked|RelationBlockedBy) != 0 {
		return Reply{Code: Blocked, Message: "blocked"}
	}
	if p.Fresh = in.Fresh; p.Type == NotifyEntry {
		body, _ := json.Marshal(struct {
			User  string `json:"user"`
			State string `json:"state"`
		}{in.From, Online.String()})
		p.Body, p.Sender = string(body), in.From
	}
	if r := u.checkPublish(&p); r.Code != OK {
		return r
	}
	if u.full(&p) {
		return outboxFull
	}
	out.Records = append(out.Records, u.store(now, &p, out))
	return Reply{}
}

// forget ends all that there is between the user and one who was erased. What the user
// had told it may arrive after the erasure, and is taken back.
func (u *User) forget(from string, out *Output) {
	m := u.extra()
	if r := m.relations.of(from); r.bits != 0 {
		u.relate([]relation{{other: from}}, out)
		if r.bits&(RelationTo|RelationPendingOut) != 0 {
			out.Records = append(out.Records, TransferOut{from, Handshake{StanzaUnsubscribe, r.asked}})
		}
		if r.bits&RelationBlocked != 0 {
			out.Records = append(out.Records, TransferOut{from, BlockedBy{}})
		}
	}
	u.endWaiter(from, out)
	u.endGrants(func(g HeldGrant) bool { return g.To == from }, out)
}

// erase removes all that is known of the user. What is under way stays known, so that a
// transfer or an id that comes again changes nothing.
func (u *User) erase(now int64, out *Output) Reply {
	out.Records = append(out.Records, Erased{})
	for _, r := range u.relations() {
		out.Records = append(out.Records, TransferOut{r.other, Erased{}})
		if was := r.bits.Shown(); was != 0 {
			out.Contacts = append(out.Contacts, RelationRow{User: r.other})
		}
	}
	u.endAll(now, Kicked, CloseConn{Code: CloseRevoked, Reason: "erased"}, out, func(*session) bool { return true })
	m := u.extra()
	u.more = &extra{ids: m.ids, taken: m.taken, erased: true}
	u.log, u.logged = nil, 0
	u.active, u.last, u.gone, u.since = 0, 0, 0, 0
	u.news = selfNews
	return Reply{}
}
