package edge

import (
	"fmt"
	"time"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge/auth"
	"muster/edge/publish"
)

// method names a command as the protocol and tokens do.
func method(c *wire.Command) string {
	switch c.Method.(type) {
	case *wire.Command_Connect:
		return "connect"
	case *wire.Command_Refresh:
		return "refresh"
	case *wire.Command_Bye:
		return "bye"
	case *wire.Command_Ping:
		return "ping"
	case *wire.Command_Watch:
		return "watch"
	case *wire.Command_Query:
		return "query"
	case *wire.Command_Status:
		return "status"
	case *wire.Command_Claim:
		return "claim"
	case *wire.Command_ClaimEnd:
		return "claim.end"
	case *wire.Command_Activity:
		return "activity"
	case *wire.Command_ClientState:
		return "client_state"
	case *wire.Command_Audience:
		return "audience"
	case *wire.Command_Typing:
		return "typing"
	case *wire.Command_RoomEnter:
		return "room.enter"
	case *wire.Command_RoomLeave:
		return "room.leave"
	case *wire.Command_RoomWindow:
		return "room.window"
	case *wire.Command_Contact:
		return "contact"
	case *wire.Command_Contacts:
		return "contacts"
	case *wire.Command_Block:
		return "block"
	case *wire.Command_Publish:
		return "publish"
	case *wire.Command_Ack:
		return "ack"
	case *wire.Command_NotifyWhen:
		return "notify_when"
	case *wire.Command_Device:
		return "device"
	}
	return ""
}

// done is the empty reply to a command.
func done(c *wire.Command) *wire.Reply {
	r, ok := &wire.Reply{Id: c.Id}, &wire.Empty{}
	switch c.Method.(type) {
	case *wire.Command_Bye:
		r.Body = &wire.Reply_Bye{Bye: ok}
	case *wire.Command_Status:
		r.Body = &wire.Reply_Status{Status: ok}
	case *wire.Command_Claim:
		r.Body = &wire.Reply_Claim{Claim: ok}
	case *wire.Command_ClaimEnd:
		r.Body = &wire.Reply_ClaimEnd{ClaimEnd: ok}
	case *wire.Command_Activity:
		r.Body = &wire.Reply_Activity{Activity: ok}
	case *wire.Command_ClientState:
		r.Body = &wire.Reply_ClientState{ClientState: ok}
	case *wire.Command_Audience:
		r.Body = &wire.Reply_Audience{Audience: ok}
	case *wire.Command_Typing:
		r.Body = &wire.Reply_Typing{Typing: ok}
	case *wire.Command_RoomLeave:
		r.Body = &wire.Reply_RoomLeave{RoomLeave: ok}
	case *wire.Command_Block:
		r.Body = &wire.Reply_Block{Block: ok}
	case *wire.Command_Ack:
		r.Body = &wire.Reply_Ack{Ack: ok}
	case *wire.Command_NotifyWhen:
		r.Body = &wire.Reply_NotifyWhen{NotifyWhen: ok}
	case *wire.Command_Device:
		r.Body = &wire.Reply_Device{Device: ok}
	}
	return r
}

// reply answers a command that asked for an answer.
func (s *socket) reply(r *wire.Reply) {
	if r.Id != 0 {
		s.send(r)
	}
}

// dispatch answers what concerns this socket alone, and gives the rest to the home hub.
// It runs in the reading goroutine.
func (s *socket) dispatch(c *wire.Command) {
	var claims auth.Claims
	if s.caps != nil {
		claims.Caps = *s.caps
	}
	if !claims.Allows(method(c)) {
		s.refuse(c.Id, wire.CodePermissionDenied, "the token does not allow "+method(c), 0)
		return
	}
	e := s.edge
	switch m := c.Method.(type) {
	case *wire.Command_Connect:
		s.close(closeAlready)
	case *wire.Command_Ping:
		s.reply(&wire.Reply{Id: c.Id, Body: &wire.Reply_Ping{Ping: &wire.PingReply{ServerAt: uint64(e.unix(e.clock()))}}})
	case *wire.Command_Bye:
		s.reply(done(c))
		s.bye()
	case *wire.Command_Refresh:
		s.refresh(c.Id, m.Refresh.Token)
	case *wire.Command_Activity:
		if m.Activity.Away {
			s.home().tell(&commanded{s, c})
			return
		}
		s.active.Store(e.clock())
		if s.has(isAway) {
			s.home().tell(&busyAgain{s})
		}
		s.reply(done(c))
	case *wire.Command_ClientState:
		s.set(isInactive, m.ClientState.Inactive)
		if !m.ClientState.Inactive {
			s.wake(^uint64(0))
		}
		s.reply(done(c))
	default:
		s.home().tell(&commanded{s, c})
	}
}

// refresh replaces the token of a live session.
func (s *socket) refresh(id uint64, token string) {
	claims, ok := s.verify(id, token)
	if !ok {
		return
	}
	if claims.User != s.who.key.User || claims.App != s.who.key.App {
		s.refuse(id, wire.CodePermissionDenied, "the token is for another user", 0)
		return
	}
	if claims.Device != "" && claims.Device != s.self.device {
		s.refuse(id, wire.CodePermissionDenied, "the token is for another device", 0)
		return
	}
	s.allow(&claims)
	s.home().tell(&renewed{s: s, id: id, claims: &claims, exp: expiry(&claims)})
}

// command runs a command in its home hub. What comes before connect was answered waits for it.
func (h *hub) command(s *socket, c *wire.Command) {
	if o := h.openers[s.conn]; o != nil {
		if len(o.waiting) == maxWaiting {
			s.refuse(c.Id, wire.CodeNotReady, "connect is not answered yet", retryMoving)
			return
		}
		o.waiting = append(o.waiting, c)
		return
	}
	if s.phase() >= closing {
		return
	}
	var why string
	switch m := c.Method.(type) {
	case *wire.Command_Watch:
		h.commandWatch(s, c, m.Watch)
		return
	case *wire.Command_Query:
		h.commandQuery(s, c, m.Query)
		return
	case *wire.Command_Status:
		why = h.status(s, c, m.Status)
	case *wire.Command_Claim:
		why = h.claim(s, c, m.Claim)
	case *wire.Command_ClaimEnd:
		if why = badClaimID(m.ClaimEnd.Id); why == "" {
			h.endClaim(s, c, m.ClaimEnd.Id)
		}
	case *wire.Command_Audience:
		why = h.audience(s, c, m.Audience)
	case *wire.Command_Activity:
		h.setAway(s, true)
		s.reply(done(c))
	case *wire.Command_Typing:
		why = h.typing(s, c, m.Typing)
	case *wire.Command_RoomEnter:
		why = h.commandEnter(s, c, m.RoomEnter)
	case *wire.Command_RoomLeave:
		why = h.commandLeave(s, c, m.RoomLeave.Room)
	case *wire.Command_RoomWindow:
		why = h.commandWindow(s, c, m.RoomWindow.Room)
	default:
		why = h.commandKept(s, c)
	}
	if why != "" {
		s.refuse(c.Id, wire.CodeBadRequest, why, 0)
	}
}

// act sends a command to the user's activation and answers with its verdict. then, if any,
// runs when it was good.
func (h *hub) act(s *socket, c *wire.Command, a *link.Act, then ...func()) {
	a.Call = h.expect(s.who.shard, long, func(d *link.Down) {
		switch v := d.GetActed(); {
		case v == nil:
			s.refuse(c.Id, wire.CodeMoving, "", retryMoving)
		case v.Code == link.Code_NOT_FOUND && c.GetStatus() != nil:
			h.answer(s, done(c)) // status online ends the manual claim; there was none
		case v.Code != link.Code_OK:
			s.refuseWith(c.Id, v.Code, v.Message)
		default:
			for _, f := range then {
				f()
			}
			h.answer(s, done(c))
		}
	})
	h.sendAct(s, a)
}

// sendAct names the session; without a link the call is answered as moving at once.
func (h *hub) sendAct(s *socket, a *link.Act) {
	a.App, a.User, a.Session, a.Conn = s.who.key.App, s.who.key.User, s.self.id, s.conn
	if !h.up(s.who.shard, &link.Up{Body: &link.Up_Act{Act: a}}) {
		h.answered(a.Call, nil)
	}
}

func (s *socket) refuseWith(id uint64, c link.Code, message string) {
	code := publish.Refusal(c)
	retry := time.Duration(0)
	if i, _ := code.Info(); i.Retryable {
		retry = retryMoving
	}
	s.refuse(id, code, message, retry)
}

func badIDs(field string, ids []string) string {
	for i, id := range ids {
		if !wire.ValidID(id) {
			return fmt.Sprintf("%s[%d]: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -", field, i)
		}
	}
	return ""
}

// commandWatch changes the watch list and answers with a snapshot of what was added.
func (h *hub) commandWatch(s *socket, c *wire.Command, w *wire.Watch) {
	if len(w.Add)+len(w.Remove) > wire.MaxWatch || len(w.Visible) > h.edge.cfg.MaxWatches {
		s.refuse(c.Id, wire.CodeLimitExceeded, "watch: more than 1000 ids at once", 0)
		return
	}
	for field, ids := range map[string][]string{"watch.add": w.Add, "watch.remove": w.Remove, "watch.visible": w.Visible} {
		if why := badIDs(field, ids); why != "" {
			s.refuse(c.Id, wire.CodeBadRequest, why, 0)
			return
		}
	}
	remove := w.Remove
	s.who.mu.Lock()
	had := len(s.watches)
	s.who.mu.Unlock()
	if w.Replace {
		had = 0
	}
	if had+len(w.Add) > h.edge.cfg.MaxWatches {
		s.refuse(c.Id, wire.CodeLimitExceeded, fmt.Sprintf("watch: more than %d users in one session", h.edge.cfg.MaxWatches), 0)
		return
	}
	s.gathering.Add(1)
	g := &gather{s: s, replace: w.Replace, done: nil}
	if w.VisibleSet || len(w.Visible) > 0 {
		g.visible = visibleSet(w.Visible)
	}
	g.done = func(h *hub) {
		if c.Id != 0 {
			for _, b := range g.replies(s, func(_ int, p []*wire.Presence, pending []string, done bool) *wire.Reply {
				return &wire.Reply{Id: c.Id, Body: &wire.Reply_Watch{Watch: &wire.WatchReply{Presences: p, Pending: pending, Done: done}}}
			}) {
				s.deliver(b, true)
			}
		}
		if s.gathering.Add(-1) == 0 {
			s.wake(^uint64(0))
		}
	}
	g.ask(h, w.Add, remove)
}

// commandQuery answers once for users, watched or not.
func (h *hub) commandQuery(s *socket, c *wire.Command, q *wire.Query) {
	if len(q.Users) > wire.MaxWatch {
		s.refuse(c.Id, wire.CodeLimitExceeded, "query: more than 1000 ids", 0)
		return
	}
	if why := badIDs("query.users", q.Users); why != "" {
		s.refuse(c.Id, wire.CodeBadRequest, why, 0)
		return
	}
	g := &gather{s: s, query: true}
	g.done = func(*hub) {
		for _, b := range g.replies(s, func(_ int, p []*wire.Presence, pending []string, done bool) *wire.Reply {
			return &wire.Reply{Id: c.Id, Body: &wire.Reply_Query{Query: &wire.QueryReply{Presences: p, Pending: pending, Done: done}}}
		}) {
			s.deliver(b, true)
		}
	}
	g.ask(h, q.Users, nil)
}
