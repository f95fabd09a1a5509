package presence

import (
	"slices"
	"time"
)

// modelRelation is one relation of the naive user.
type modelRelation struct {
	to, from, out, in, approved, blocked, blockedBy bool
	asked, heard                                    uint64
}

func (r modelRelation) bits() (b Relation) {
	for i, on := range []bool{r.to, r.from, r.out, r.in, r.approved, r.blocked, r.blockedBy} {
		if on {
			b |= 1 << i
		}
	}
	return b
}

func relationOf(b Relation, asked, heard uint64) *modelRelation {
	on := func(i int) bool { return b>>i&1 != 0 }
	return &modelRelation{on(0), on(1), on(2), on(3), on(4), on(5), on(6), asked, heard}
}

func (m *model) relation(user string) *modelRelation {
	if r := m.rel[user]; r != nil {
		return r
	}
	m.rel[user] = &modelRelation{}
	return m.rel[user]
}

// owned applies what is about what a user owns for good.
func (m *model) owned(now time.Time, in Input) (r result) {
	defer func() {
		for user, x := range m.rel {
			if x.bits() == 0 {
				delete(m.rel, user)
			}
		}
	}()
	switch in := in.(type) {
	case Contact:
		if in.Session != "" && m.current(in.Session, in.Conn) == nil {
			return result{code: NotAttached}
		}
		return m.contact(now, in.User, in.Action)
	case SetRelations:
		for _, change := range []struct {
			users []string
			on    bool
		}{{in.Block, true}, {in.Unblock, false}} {
			for _, user := range change.users {
				if x := m.relation(user); x.blocked != change.on {
					x.blocked = change.on
					r.transfers = append(r.transfers, TransferOut{user, BlockedBy{change.on}})
				}
			}
		}
	case Import:
		for _, row := range in.Rows {
			x := m.relation(row.User)
			y := relationOf(row.Relation, 0, 0)
			if y.blocked && !x.blocked {
				r.transfers = append(r.transfers, TransferOut{row.User, BlockedBy{true}})
			}
			*x = modelRelation{to: y.to, from: y.from, approved: y.approved, blocked: x.blocked || y.blocked, blockedBy: x.blockedBy}
		}
	case Received:
		return m.received(now, in)
	case NotifyWhen:
		ttl := in.TTL
		if ttl == 0 {
			ttl = 7 * 24 * time.Hour
		}
		r.transfers = append(r.transfers, TransferOut{in.User, NotifyWhen{TTL: ttl, End: in.End, Hidden: m.hidden()}})
	case Publish:
		x := m.relation(in.Sender)
		if in.Sender != "" && x.blockedBy {
			return result{code: Blocked}
		}
		return m.box.publish(now, m.cfg, in, in.Sender != "" && x.blocked)
	case AckOutbox:
		for id, d := range m.box.readers {
			if d.conn == in.Conn && in.Epoch == m.box.epoch {
				offset := min(in.Offset, d.next)
				if offset > d.acked {
					d.acked, d.wait, d.at = offset, 5*time.Second, now.Add(5*time.Second)
				}
				if offset > m.box.devices[id].cursor {
					m.box.ack(now, m.box.devices[id], offset)
				}
			}
		}
	case SetDevice:
		return m.device(now, in)
	case Purge:
		r.items = m.box.purge(in.Epoch)
	case Erase:
		return m.erase()
	}
	return r
}

// contact is what the user does about another, as RFC 6121 says it.
func (m *model) contact(now time.Time, user string, do ContactAction) (r result) {
	x := m.relation(user)
	tell := func(s ContactStanza, serial uint64) {
		r.transfers = append(r.transfers, TransferOut{user, Handshake{s, serial}})
	}
	if x.blocked && (do == Subscribe || do == Approve) {
		return result{code: Blocked}
	}
	if do == Subscribe && !x.to {
		m.asks = max(uint64(now.UnixMilli()), m.asks+1)
		x.out, x.asked = true, m.asks
		tell(StanzaSubscribe, x.asked)
	}
	if do == Approve {
		if x.in {
			x.in, x.from = false, true
			tell(StanzaSubscribed, x.heard)
		} else if !x.from {
			x.approved = true
		}
	}
	if do == Unsubscribe || do == Remove {
		if x.to || x.out {
			x.to, x.out = false, false
			tell(StanzaUnsubscribe, x.asked)
		}
	}
	if do == Deny || do == Remove {
		x.approved = false
		if x.from || x.in {
			x.from, x.in = false, false
			tell(StanzaUnsubscribed, x.heard)
		}
	}
	return r
}

func (m *model) received(now time.Time, in Received) (r result) {
	key := TransferTaken{in.Source, in.Generation, in.Seq}
	if code, again := m.taken[key]; again {
		return result{code: code}
	}
	defer func() { m.taken[key] = r.code }()
	x := m.relation(in.From)
	blocked := x.blocked || x.blockedBy
	switch what := in.What.(type) {
	case BlockedBy:
		x.blockedBy = what.On
	case Handshake:
		switch what.Stanza {
		case StanzaSubscribe:
			if what.Serial <= x.heard {
				break
			}
			x.heard = what.Serial
			if !x.blocked && (x.from || x.approved) {
				x.from, x.approved = true, false
				r.transfers = append(r.transfers, TransferOut{in.From, Handshake{StanzaSubscribed, x.heard}})
			} else {
				x.in = true
				x.from = false
			}
		case StanzaSubscribed:
			if x.out && what.Serial == x.asked {
				x.out, x.to = false, true
			}
		case StanzaUnsubscribe:
			if what.Serial == x.heard || what.Serial == 0 {
				x.from, x.in = false, false
			}
		case StanzaUnsubscribed:
			if what.Serial == x.asked || what.Serial == 0 {
				x.to, x.out = false, false
			}
		}
	case NotifyWhen:
		switch {
		case what.End:
			delete(m.waits, in.From)
		case blocked:
			r.code = Blocked
		default:
			m.waits[in.From] = modelWait{now.Add(what.TTL), what.Hidden}
		}
	case Publish:
		if blocked {
			return result{code: Blocked}
		}
		what.Fresh, what.Body, what.Sender = in.Fresh, `{"user":"`+in.From+`","state":"online"}`, in.From
		r = m.box.publish(now, m.cfg, what, false)
		r.published = nil
	case Erased:
		if x.to || x.out {
			r.transfers = append(r.transfers, TransferOut{in.From, Handshake{StanzaUnsubscribe, x.asked}})
		}
		if x.blocked {
			r.transfers = append(r.transfers, TransferOut{in.From, BlockedBy{}})
		}
		delete(m.rel, in.From)
		delete(m.waits, in.From)
		delete(m.grants, in.From)
	}
	return r
}

// modelWait is somebody who waits for the user.
type modelWait struct {
	until  time.Time
	hidden Mask
}

// hidden are the fields that nobody may see.
func (m *model) hidden() (mask Mask) {
	for i := range fields {
		r, ok := m.rules[1<<i]
		if !ok {
			r = m.cfg.Audience.Rules()[i]
		}
		if r.Rule == Nobody {
			mask |= 1 << i
		}
	}
	return mask
}

func (m *model) device(now time.Time, in SetDevice) (r result) {
	if in.Forget {
		if m.box.devices[in.Device] == nil {
			return result{code: NotFound}
		}
		m.box.forget(in.Device)
		return r
	}
	if !m.box.register(now, in.Device) {
		return result{code: Limit}
	}
	d := m.box.devices[in.Device]
	m.box.ack(now, d, 0)
	d.provider, d.token = in.Provider, in.Token
	return r
}

func (m *model) erase() (r result) {
	for _, user := range sortedKeys(m.rel) {
		r.transfers = append(r.transfers, TransferOut{user, Erased{}})
	}
	for _, s := range m.ordered() {
		if s.phase == "live" {
			r.closes = append(r.closes, CloseConn{s.a.Conn, CloseRevoked, "erased"})
		}
		m.end(s, Kicked)
	}
	fresh := newModel(m.cfg, time.Time{})
	fresh.taken, fresh.box.ids, fresh.why = m.taken, m.box.ids, Kicked
	fresh.state, fresh.erased, fresh.asks = m.state, true, 0
	*m = *fresh
	return r
}

// ends lets everything durable end whose time has come.
func (m *model) ends(now time.Time) {
	for asker, w := range m.waits {
		if !w.until.After(now) {
			delete(m.waits, asker)
		}
	}
	m.box.tick(now)
}

// tell is who learns that the user is online.
func (m *model) tell(owner string) (all []TransferOut) {
	if _, only := m.sessions[""]; only {
		if lives, graces := m.counts(); lives == 0 && graces == 1 && m.cover == nil {
			return nil
		}
	}
	if m.raw().State == Offline {
		return nil
	}
	for _, asker := range sortedKeys(m.waits) {
		if m.mask(owner, Watcher{asker, m.waits[asker].hidden})&FieldState != 0 {
			delete(m.waits, asker)
			all = append(all, TransferOut{asker, Publish{Type: NotifyEntry}})
		}
	}
	return all
}

// stopReading ends what conns no longer do.
func (m *model) stopReading() {
	for d, r := range m.box.readers {
		if !slices.ContainsFunc(m.ordered(), func(s *modelSession) bool { return s.phase == "live" && s.a.Conn == r.conn }) {
			delete(m.box.readers, d)
		}
	}
}
