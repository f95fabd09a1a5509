package edge

import (
	"fmt"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/publish"
)

const wantID = "want 1 to 128 of A-Z a-z 0-9 . _ @ + = -"

// commandKept runs a command that changes or reads what is kept of a user.
func (h *hub) commandKept(s *socket, c *wire.Command) (why string) {
	switch m := c.Method.(type) {
	case *wire.Command_Contact:
		return h.contact(s, c, m.Contact)
	case *wire.Command_Contacts:
		return h.contacts(s, c, m.Contacts)
	case *wire.Command_Block:
		return h.block(s, c, m.Block)
	case *wire.Command_Publish:
		h.commandPublish(s, c, m.Publish)
	case *wire.Command_Ack:
		return h.ack(s, c, m.Ack)
	case *wire.Command_NotifyWhen:
		return h.notifyWhen(s, c, m.NotifyWhen)
	case *wire.Command_Device:
		return h.device(s, c, m.Device)
	}
	return ""
}

// other checks the id of another user than the session's own.
func (s *socket) other(field, user string) (why string) {
	switch {
	case !wire.ValidID(user):
		return field + ": " + wantID
	case user == s.who.key.User:
		return field + ": a user has no relation to itself"
	}
	return ""
}

func (h *hub) contact(s *socket, c *wire.Command, m *wire.Contact) (why string) {
	action, ok := publish.Action(m.Action)
	if !ok {
		return "contact.action: want subscribe, approve, deny, unsubscribe or remove"
	}
	if why := s.other("contact.user", m.User); why != "" {
		return why
	}
	a := &link.Act{What: &link.Act_Contact{Contact: &link.ContactAct{User: m.User, Action: action}}}
	a.Call = h.expect(s.who.shard, long, func(d *link.Down) {
		switch v := d.GetActed(); {
		case v == nil:
			s.refuse(c.Id, wire.CodeMoving, "", retryMoving)
		case v.Code != link.Code_OK:
			s.refuseWith(c.Id, v.Code, v.Message)
		default:
			row := &wire.ContactRow{User: m.User}
			if v.Contact != nil {
				row = contactRow(v.Contact)
			}
			h.answer(s, &wire.Reply{Id: c.Id, Body: &wire.Reply_Contact{Contact: &wire.ContactReply{Contact: row}}})
		}
	})
	h.sendAct(s, a)
	return ""
}

// contacts answers with one page of relations, as many as fit in a frame.
func (h *hub) contacts(s *socket, c *wire.Command, m *wire.Contacts) (why string) {
	switch {
	case m.After != "" && !wire.ValidID(m.After):
		return "contacts.after: " + wantID
	case m.Limit > wire.MaxContactsPage:
		return fmt.Sprintf("contacts.limit: more than %d", wire.MaxContactsPage)
	}
	limit := m.Limit
	if limit == 0 {
		limit = wire.MaxContactsPage
	}
	key := s.who.key
	call := h.expect(s.who.shard, long, func(d *link.Down) {
		switch v := d.GetAnswer(); {
		case v == nil:
			s.refuse(c.Id, wire.CodeMoving, "", retryMoving)
		case v.Code != link.Code_OK:
			s.refuseWith(c.Id, v.Code, v.Message)
		default:
			r := &wire.ContactsReply{More: v.More}
			rows := contactRows(v.Contacts)
			if r.Contacts = rows[:fitting(rows)]; len(r.Contacts) < len(rows) {
				r.More = true
			}
			h.answer(s, &wire.Reply{Id: c.Id, Body: &wire.Reply_Contacts{Contacts: r}})
		}
	})
	if !h.up(s.who.shard, &link.Up{Body: &link.Up_Ask{Ask: &link.Ask{Call: call, App: key.App, What: &link.Ask_Contacts{
		Contacts: &link.ContactsPage{User: key.User, After: m.After, Limit: limit},
	}}}}) {
		h.answered(call, nil)
	}
	return ""
}

// fitting is how many of the rows fit in a frame.
func fitting(rows []*wire.ContactRow) int {
	size := 0
	for i, r := range rows {
		if size += len(r.User) + 128; size > chunk {
			return i
		}
	}
	return len(rows)
}

func (h *hub) block(s *socket, c *wire.Command, m *wire.Block) (why string) {
	switch n := len(m.Add) + len(m.Remove); {
	case n == 0:
		return "block: name at least one user in add or remove"
	case n > wire.MaxBlock:
		s.refuse(c.Id, wire.CodeLimitExceeded, fmt.Sprintf("block: more than %d users at once", wire.MaxBlock), 0)
		return ""
	}
	for field, users := range map[string][]string{"block.add": m.Add, "block.remove": m.Remove} {
		for i, user := range users {
			if why := s.other(fmt.Sprintf("%s[%d]", field, i), user); why != "" {
				return why
			}
		}
	}
	h.act(s, c, &link.Act{What: &link.Act_Relations{Relations: &link.Relations{Block: m.Add, Unblock: m.Remove}}})
	return ""
}

func (h *hub) notifyWhen(s *socket, c *wire.Command, m *wire.NotifyWhen) (why string) {
	if why := s.other("notify_when.user", m.User); why != "" {
		return why
	}
	switch {
	case m.State != "" && m.State != "online":
		return "notify_when.state: want online"
	case !publish.GoodTTL(m.TtlMs):
		return "notify_when.ttl_ms: " + publish.WantTTL
	}
	h.act(s, c, &link.Act{What: &link.Act_NotifyWhen{NotifyWhen: &link.NotifyWhen{
		User: m.User, TtlMs: int64(m.TtlMs), End: m.End,
	}}})
	return ""
}

func (h *hub) device(s *socket, c *wire.Command, m *wire.Device) (why string) {
	switch {
	case len(m.Provider) > wire.MaxProvider:
		return fmt.Sprintf("device.provider: more than %d bytes", wire.MaxProvider)
	case len(m.Token) > wire.MaxPushToken:
		return fmt.Sprintf("device.token: more than %d bytes", wire.MaxPushToken)
	case m.Token != "" && m.Provider == "":
		return "device.provider: missing, it says whose token it is"
	case m.Forget && m.Token != "":
		return "device: a device that is forgotten has no token"
	}
	h.act(s, c, &link.Act{What: &link.Act_Device{Device: &link.DeviceSet{
		Device: s.self.device, Provider: m.Provider, Token: m.Token, Forget: m.Forget,
	}}}, func() {
		if m.Forget && s.self.rare != nil {
			s.self.rare.read = nil // or an announcement would register it again
		}
	})
	return ""
}

// contactsChanged tells a user's devices which relations are others now.
func (h *hub) contactsChanged(m *link.ContactsChanged) {
	key := presence.Key{App: m.App, User: m.User}
	u := h.edge.users.get(userShard(key), key)
	if u == nil {
		return
	}
	for rows := contactRows(m.Rows); len(rows) > 0; {
		n := fitting(rows)
		all := newCast(&wire.Push{Contact: rows[:n]})
		rows = rows[n:]
		for _, s := range u.conns() {
			if s.has(isAttached) {
				h.post(s, all.frame(s.codec))
			}
		}
	}
}

func contactRows(list []*link.ContactRow) []*wire.ContactRow {
	rows := make([]*wire.ContactRow, 0, len(list))
	for _, r := range list {
		rows = append(rows, contactRow(r))
	}
	return rows
}

// contactRow is a relation as its user sees it.
func contactRow(r *link.ContactRow) *wire.ContactRow {
	w := &wire.ContactRow{
		User: r.User, PendingOut: r.PendingOut, PendingIn: r.PendingIn, Approved: r.Approved, Blocked: r.Blocked,
	}
	switch {
	case r.To && r.From:
		w.Subscription = "both"
	case r.To:
		w.Subscription = "to"
	case r.From:
		w.Subscription = "from"
	case r.PendingOut || r.PendingIn || r.Approved || r.Blocked:
		w.Subscription = "none"
	}
	return w
}
