package edge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/auth"
	"muster/edge/publish"
)

const (
	maxRooms    = 100 // of a session
	maxWaiting  = 64  // commands sent before connect was answered
	maxIdle     = uint64(30 * 24 * time.Hour / time.Millisecond)
	maxGrace    = 600_000 // ms
	retryMoving = time.Second
)

// opener is a connect that is being answered.
type opener struct {
	*opened
	call    uint64
	gather  *gather
	answer  *link.Attached
	term    uint64
	outbox  *wire.OutboxPush // what the answer brought of it
	waiting []*wire.Command  // what the client sent meanwhile
	began   int64            // clock ms, 0 while it waits in the crowd
	slot    bool             // of the crowd
}

// open takes the first command of a socket. It runs in the reading goroutine, which may
// wait for keys.
func (s *socket) open(c *wire.Command, bad *wire.FieldError) {
	connect := c.GetConnect()
	if bad != nil && strings.HasPrefix(bad.Path, "connect") {
		s.refuse(bad.ID, wire.CodeBadRequest, bad.Error(), 0)
		s.close(closeDecode)
		return
	}
	if bad != nil || connect == nil {
		s.close(closeEarly)
		return
	}
	claims, ok := s.verify(c.Id, connect.Token)
	if !ok {
		return
	}
	if code, why, end := checkConnect(connect, &claims); code != 0 {
		s.refuse(c.Id, code, why, 0)
		s.close(end)
		return
	}
	if wait, ok := s.edge.admit(connect.SessionId != ""); !ok {
		s.refuse(c.Id, wire.CodeBusy, "too many sessions begin at once", wait)
		s.close(ending{code: wire.CloseRateLimited, retry: wait})
		return
	}
	s.identify(connect, &claims)
	s.out.pause()
	s.refs.Add(1)
	s.who = s.edge.users.join(presence.Key{App: claims.App, User: claims.User}, s)
	if _, ok := s.raise(opening); !ok {
		s.edge.users.part(s.who, s)
		s.unref()
		return
	}
	s.home().tell(&opened{s: s, id: c.Id, connect: connect, exp: expiry(&claims)})
}

// verify checks a token and answers for a bad one.
func (s *socket) verify(id uint64, token string) (auth.Claims, bool) {
	claims, err := s.edge.cfg.Auth.Verify(context.Background(), token)
	if err == nil {
		return claims, true
	}
	s.edge.count.badTokens.Add(1)
	var refused *auth.Error
	if !errors.As(err, &refused) {
		refused = &auth.Error{Reason: auth.Unavailable, Message: "the token could not be checked"}
		s.edge.cfg.Log.Error("edge: token check failed", "error", err)
	}
	switch refused.Reason {
	case auth.Expired:
		s.refuse(id, wire.CodeTokenExpired, refused.Message, 0)
		s.close(closeTokenExpired)
	case auth.Unavailable:
		s.refuse(id, wire.CodeNotReady, refused.Message, time.Second)
		s.close(closeInternal)
	default:
		s.refuse(id, wire.CodeUnauthorized, refused.Message, 0)
		s.close(closeUnauthorized)
	}
	return claims, false
}

// checkConnect holds a connect against its bounds and its token; code 0 is good.
func checkConnect(c *wire.Connect, claims *auth.Claims) (code wire.Code, why string, end ending) {
	if c.DeviceId == "" {
		c.DeviceId = claims.Device
	}
	declared := len(c.Watch)
	c.Watch = append(c.Watch, claims.Watch...)
	for _, r := range claims.Rooms {
		c.Rooms = append(c.Rooms, &wire.RoomEnter{Room: r})
	}
	switch {
	case !wire.ValidID(c.DeviceId):
		return wire.CodeBadRequest, "connect.device_id: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -", closeDecode
	case claims.Device != "" && claims.Device != c.DeviceId:
		return wire.CodePermissionDenied, "the token is for another device", closeNotPermitted
	case c.SessionId != "" && !sessionID(c.SessionId):
		return wire.CodeBadRequest, "connect.session_id: want 32 hex digits", closeDecode
	case len(c.Client) > wire.MaxClient:
		return wire.CodeTooLarge, "connect.client: more than 64 bytes", closeDecode
	case declared > wire.MaxWatch:
		return wire.CodeLimitExceeded, "connect.watch: more than 1000 ids; add the others with watch", closeDecode
	case len(c.Rooms) > maxRooms:
		return wire.CodeLimitExceeded, "connect.rooms: more than 100", closeDecode
	}
	if why := badIDs("connect.watch", c.Watch); why != "" {
		return wire.CodeBadRequest, why, closeDecode
	}
	for _, r := range c.Rooms {
		if !wire.ValidID(r.Room) || len(r.Info) > wire.MaxInfo {
			return wire.CodeBadRequest, "connect.rooms: a room's id or info is not valid", closeDecode
		}
	}
	if _, why := positionOf(c.Outbox); why != "" {
		return wire.CodeBadRequest, why, closeDecode
	}
	if len(c.Watch) > 0 && !claims.Allows("watch") || len(c.Rooms) > 0 && !claims.Allows("room.enter") {
		return wire.CodePermissionDenied, "the token does not allow to watch or to enter rooms", closeNotPermitted
	}
	return 0, "", ending{}
}

func sessionID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 16
}

func expiry(c *auth.Claims) uint64 {
	if c.Expires.IsZero() {
		return 0
	}
	return uint64(c.Expires.UnixMilli())
}

// identify takes what the core will be told from a connect.
func (s *socket) identify(c *wire.Connect, claims *auth.Claims) {
	e := s.edge
	s.self = session{
		id: c.SessionId, device: c.DeviceId, client: c.Client, attempt: c.Attempt,
		class: uint8(c.Class), graceMs: -1,
	}
	if s.self.id == "" {
		var id [16]byte
		rand.Read(id[:])
		s.self.id = hex.EncodeToString(id[:])
	}
	if c.GraceMs != nil {
		s.self.graceMs = int32(min(*c.GraceMs, maxGrace))
	}
	if r, _ := positionOf(c.Outbox); r != nil {
		s.self.extra().read = r
	}
	s.allow(claims)
	s.own(claims)
	now := e.clock()
	s.active.Store(now - int64(min(c.IdleMs, maxIdle)))
	s.set(isAway, s.active.Load()+e.cfg.IdleAfter.Milliseconds() <= now)
	s.set(isInactive, c.Inactive)
}

// allow notes what a token lets its bearer do.
func (s *socket) allow(claims *auth.Claims) {
	s.caps = nil
	if claims.Caps != nil {
		s.caps = &claims.Caps
	}
}

// own takes over what a token says of itself.
func (s *socket) own(claims *auth.Claims) {
	s.self.jti = claims.ID
	s.self.iat = 0
	if !claims.Issued.IsZero() {
		s.self.iat = claims.Issued.Unix()
	}
	if claims.Expires.IsZero() {
		s.expires.Store(0)
	} else {
		s.expires.Store(max(claims.Expires.Add(auth.Leeway).UnixMilli()-s.edge.wall, 1))
	}
}

func (s *session) extra() *rare {
	if s.rare == nil {
		s.rare = new(rare)
	}
	return s.rare
}

// attach is what the core is told of a session.
func (s *socket) attach(call uint64, resume bool) *link.Attach {
	return &link.Attach{
		Call: call, App: s.who.key.App, User: s.who.key.User, Device: s.self.device, Class: uint32(s.self.class),
		Session: s.self.id, Resume: resume, Conn: s.conn, Attempt: s.self.attempt, Away: s.has(isAway),
		ActiveAt: s.edge.unix(s.active.Load()), GraceMs: int64(s.self.graceMs), Inactive: s.has(isInactive),
		Jti: s.self.jti, Iat: s.self.iat, Client: s.self.client, Node: s.edge.cfg.Node, Outbox: s.self.position(),
	}
}

// open takes a connect whose token is good.
func (h *hub) open(m *opened) {
	if m.s.phase() >= closing {
		return
	}
	o := &opener{opened: m}
	h.openers[m.s.conn] = o
	h.crowd.join(o)
	h.edge.count.waiting.Add(1)
	h.letIn(h.edge.clock())
}

// begin attaches the session.
func (h *hub) begin(o *opener) {
	s := o.s
	o.call = h.expect(s.who.shard, long, func(d *link.Down) { h.attached(o, d) })
	s.self.reported = int32(s.edge.unix(s.active.Load()) / 60_000)
	h.upSoon(s.who.shard, o.call, &link.Up{Body: &link.Up_Attach{Attach: s.attach(o.call, o.connect.SessionId != "")}})
}

// attached goes on with connect when the core has decided: interest, then one reply.
func (h *hub) attached(o *opener, d *link.Down) {
	s := o.s
	if s.phase() >= closing {
		return
	}
	if d == nil {
		h.refuseOpen(o, wire.CodeMoving, "the session could not be attached in time", ending{code: wire.CloseCutOff, cause: link.Cause_SILENCE, retry: retryMoving})
		return
	}
	a := d.GetAttached()
	switch a.Code {
	case link.Code_OK:
	case link.Code_DEVICE_LIMIT:
		h.refuseOpen(o, publish.Refusal(a.Code), a.Message, closeDeviceLimit)
		return
	case link.Code_REVOKED:
		h.refuseOpen(o, publish.Refusal(a.Code), a.Message, ending{code: wire.CloseRevoked})
		return
	case link.Code_STALE_ATTEMPT:
		h.refuseOpen(o, publish.Refusal(a.Code), a.Message, ending{code: wire.CloseReplaced})
		return
	case link.Code_DENIED:
		h.refuseOpen(o, publish.Refusal(a.Code), a.Message, closeNotPermitted)
		return
	default:
		h.refuseOpen(o, publish.Refusal(a.Code), a.Message, ending{code: wire.CloseInternal, retry: retryMoving})
		return
	}
	if a.Session != "" {
		s.self.id = a.Session
	}
	s.set(isAttached, true)
	h.edge.count.sessions.Add(1)
	s.who.hidden.Store(a.Hidden)
	if a.Self != nil {
		h.note(s.who, d.Term, a.Self)
	}
	o.answer, o.term, o.outbox = a, d.Term, h.taken(s, a.Outbox)
	o.gather = &gather{s: s, done: func(h *hub) { h.opened(o) }}
	o.gather.depart()
	for _, r := range o.connect.Rooms {
		h.enterRoom(s, r, o.gather, 0)
	}
	o.gather.ask(h, o.connect.Watch, nil)
	o.gather.arrive(h)
}

func (h *hub) refuseOpen(o *opener, code wire.Code, message string, end ending) {
	s := o.s
	h.through(o)
	retry := end.retry
	if i, _ := code.Info(); !i.Retryable {
		retry = 0
	}
	r := &wire.Reply{Id: o.id, Body: &wire.Reply_Error{Error: code.Error(message, retry)}}
	s.out.release(h.edge.clock(), appendFrame(nil, s.codec.opcode(), s.codec.appendReply(nil, r)))
	h.edge.count.refused.Add(1)
	s.close(end)
}

// opened writes the connect reply, then what was held back.
func (h *hub) opened(o *opener) {
	s := o.s
	h.through(o)
	if _, ok := s.raise(live); !ok {
		return
	}
	list := o.gather.replies(s, func(n int, p []*wire.Presence, pending []string, done bool) *wire.Reply {
		r := &wire.ConnectReply{Presences: p, Pending: pending, Done: done}
		if n == 0 {
			r.SessionId, r.Resumed, r.User, r.ExpAt = s.self.id, o.answer.Resumed, s.who.key.User, o.exp
			r.Node, r.PingMs = h.edge.cfg.Node, uint64(h.edge.cfg.PingInterval.Milliseconds())
			r.ServerAt = uint64(h.edge.unix(h.edge.clock()))
			r.Rooms = o.gather.rooms
			if o.answer.Self != nil {
				r.Self = selfOf(o.term, o.answer.Self)
			}
			r.Outbox, o.outbox = cutOutbox(o.outbox, replyRoom-len(r.AppendJSON(nil)))
		}
		return &wire.Reply{Id: o.id, Body: &wire.Reply_Connect{Connect: r}}
	})
	list = append(list, s.outboxFrames(o.outbox)...)
	if wants := s.out.release(h.edge.clock(), list...); wants != 0 {
		s.wake(wants)
	}
	if o.answer.Resumed {
		h.edge.count.resumed.Add(1)
	}
	h.edge.count.opened.Add(1)
	h.edge.wheel.arm(s, h.edge.clock())
	for _, c := range o.waiting {
		h.command(s, c)
	}
}

// renew takes over a refreshed token: the core must know it, to revoke it.
func (h *hub) renew(m *renewed) {
	s := m.s
	call := h.expect(s.who.shard, long, func(d *link.Down) {
		a := d.GetAttached()
		switch {
		case d == nil:
			s.refuse(m.id, wire.CodeMoving, "", retryMoving)
		case a.Code == link.Code_REVOKED:
			s.refuse(m.id, publish.Refusal(a.Code), a.Message, 0)
			s.close(closeRevoked)
		case a.Code != link.Code_OK:
			s.refuse(m.id, publish.Refusal(a.Code), a.Message, retryMoving)
		default:
			s.send(&wire.Reply{Id: m.id, Body: &wire.Reply_Refresh{Refresh: &wire.RefreshReply{ExpAt: m.exp}}})
			h.postOutbox(s, h.taken(s, a.Outbox))
		}
	})
	s.own(m.claims)
	s.edge.wheel.arm(s, s.expires.Load())
	h.upSoon(s.who.shard, call, &link.Up{Body: &link.Up_Attach{Attach: s.attach(call, true)}})
}

// part ends a session's hold on this edge: the core, the rooms and the watched users' shards learn of it.
func (h *hub) part(s *socket, cause link.Cause) {
	if o := h.openers[s.conn]; o != nil { // who has gone is not attached after all when the shard moves
		delete(h.calls, o.call)
		h.through(o)
	}
	if s.has(isAttached) {
		s.set(isAttached, false)
		h.edge.count.sessions.Add(-1)
	}
	h.leaveRooms(s, cause)
	h.stopTyping(s)
	if cause != link.Cause_CAUSE_UNSPECIFIED {
		h.up(s.who.shard, &link.Up{Body: &link.Up_Detach{Detach: &link.Detach{
			App: s.who.key.App, User: s.who.key.User, Session: s.self.id, Conn: s.conn, Attempt: s.self.attempt,
			Cause: cause, Inactive: s.has(isInactive), Away: s.has(isAway), ActiveAt: h.edge.unix(s.active.Load()),
		}}})
	}
	h.edge.users.part(s.who, s)
	for _, other := range h.edge.hubs {
		if other != h {
			s.refs.Add(1)
			other.tell(&unwatched{s})
		}
	}
	h.unwatchAll(s)
	s.unref()
}

// goneIdle makes a device away that had no input for long enough.
func (h *hub) goneIdle(s *socket) {
	if s.phase() != live || s.has(isAway) || s.active.Load()+h.edge.cfg.IdleAfter.Milliseconds() > h.edge.clock() {
		return
	}
	h.setAway(s, true)
}

func (h *hub) backAgain(s *socket) {
	if s.phase() == live && s.has(isAway) {
		h.setAway(s, false)
	}
}

func (h *hub) setAway(s *socket, away bool) {
	s.set(isAway, away)
	row := h.activeRow(s)
	h.up(s.who.shard, &link.Up{Body: &link.Up_Report{Report: &link.Report{Rows: []*link.Active{row}}}})
}

func (h *hub) activeRow(s *socket) *link.Active {
	at := h.edge.unix(s.active.Load())
	s.self.reported = int32(at / 60_000)
	return &link.Active{App: s.who.key.App, User: s.who.key.User, Session: s.self.id, Conn: s.conn, Away: s.has(isAway), ActiveAt: at}
}

// reportMinute tells each shard the sessions whose minute of last activity has changed.
func (h *hub) reportMinute() {
	for n, sh := range h.shards {
		if sh == nil || !sh.open {
			continue
		}
		var rows []*link.Active
		for _, u := range h.edge.users.all(uint32(n)) {
			for _, s := range u.conns() {
				if s.has(isAttached) && int32(h.edge.unix(s.active.Load())/60_000) > s.self.reported {
					rows = append(rows, h.activeRow(s))
				}
			}
		}
		if len(rows) > 0 {
			h.up(uint32(n), &link.Up{Body: &link.Up_Report{Report: &link.Report{Rows: rows}}})
		}
	}
}
