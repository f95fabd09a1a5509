package edge

import (
	"slices"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

const (
	typingEvery = 3000 // ms between two for one target
	typingTTL   = 6000 // ms it is shown unless renewed
)

// typist is somebody, or a room, that is told that the user is composing.
type typist struct {
	user, room string
	until      int64 // clock ms
}

// typingAsked goes to the hub of the user who is to be told, to see whether the typist watches it,
// and back to the typist's.
type typingAsked struct {
	s       *socket
	c       *wire.Command
	watched bool
}

func (h *hub) typing(s *socket, c *wire.Command, m *wire.Typing) (why string) {
	switch m.Kind {
	case "":
		m.Kind = "text"
	case "text", "audio", "video":
	default:
		return "typing.kind: want text, audio or video"
	}
	target := m.User + m.Room
	if (m.User == "") == (m.Room == "") || !wire.ValidID(target) {
		return "typing: want a user or a room"
	}
	if m.Room != "" {
		if s.self.rare == nil || !slices.ContainsFunc(s.self.rare.rooms, func(r roomSeat) bool { return r.room == m.Room && r.occupy }) {
			s.refuse(c.Id, wire.CodePermissionDenied, "typing: this session has not entered the room", 0)
			return ""
		}
		h.startTyping(s, c, m)
		return ""
	}
	to := h.edge.hubOf(link.ShardOf(s.who.key.App, link.KindUser, m.User))
	h.pass(to, &typingAsked{s: s, c: c})
	return ""
}

// checkTyping sees whether the typist watches the one to be told.
func (h *hub) checkTyping(m *typingAsked) {
	user := m.c.GetTyping().User
	n := link.ShardOf(m.s.who.key.App, link.KindUser, user)
	if ref, ok := h.lookup(n, presence.Key{App: m.s.who.key.App, User: user}); ok {
		m.watched = h.entry(ref).row(m.s.idx) != nil
	}
	if !m.watched {
		m.s.refuse(m.c.Id, wire.CodePermissionDenied, "typing: this session does not watch the user", 0)
		return
	}
	h.pass(m.s.home(), m)
}

func (h *hub) startTyping(s *socket, c *wire.Command, m *wire.Typing) {
	now := h.edge.clock()
	x := s.self.extra()
	x.typing = slices.DeleteFunc(x.typing, func(t typist) bool { return t.until <= now })
	i := slices.IndexFunc(x.typing, func(t typist) bool { return t.user == m.User && t.room == m.Room })
	switch {
	case m.Stop && i < 0:
	case m.Stop:
		x.typing = slices.Delete(x.typing, i, i+1)
		h.sendTyping(s, m.User, m.Room, m.Kind, true)
	case i >= 0 && x.typing[i].until-typingTTL+typingEvery > now:
		wait := x.typing[i].until - typingTTL + typingEvery - now
		s.refuse(c.Id, wire.CodeRateLimited, "", time.Duration(wait)*time.Millisecond)
		return
	default:
		if i >= 0 {
			x.typing = slices.Delete(x.typing, i, i+1)
		}
		x.typing = append(x.typing, typist{m.User, m.Room, now + typingTTL})
		h.sendTyping(s, m.User, m.Room, m.Kind, false)
	}
	s.reply(done(c))
}

// stopTyping clears what a session that ends has shown.
func (h *hub) stopTyping(s *socket) {
	if s.self.rare == nil {
		return
	}
	now := h.edge.clock()
	for _, t := range s.self.rare.typing {
		if t.until > now {
			h.sendTyping(s, t.user, t.room, "", true)
		}
	}
	s.self.rare.typing = nil
}

func (h *hub) sendTyping(s *socket, user, room, kind string, stop bool) {
	m := &link.Up{Body: &link.Up_Typing{Typing: &link.Typing{
		App: s.who.key.App, User: s.who.key.User, Conn: s.conn, To: user, Room: room, Kind: kind, Stop: stop,
	}}}
	if room == "" {
		h.up(s.who.shard, m)
		return
	}
	n := roomShard(presence.Key{App: s.who.key.App, User: room})
	h.pass(h.edge.hubOf(n), &relayed{n, m})
}

// relayed is a message of a session for a shard of another hub.
type relayed struct {
	shard uint32
	up    *link.Up
}

// typingOut shows that a user is composing: to one watcher, or to a room.
func (h *hub) typingOut(n uint32, t *link.TypingOut) {
	p := &wire.TypingPush{User: t.User, Room: t.Room, Kind: t.Kind, Stop: t.Stop, TtlMs: typingTTL}
	if t.Stop {
		p.TtlMs = 0
	}
	cast := newCast(&wire.Push{Typing: []*wire.TypingPush{p}})
	show := func(s *socket) {
		if s.phase() == live && !s.has(isInactive) && !s.out.busy() {
			cast.to(s)
		}
	}
	if t.Room != "" {
		if r := h.shards[n].rooms[presence.Key{App: t.App, User: t.Room}]; r != nil {
			for _, seat := range r.seats {
				if s := h.edge.sockets.byConn(seat.conn); s != nil && seat.subscribe && seat.user != t.User {
					show(s)
				}
			}
		}
		return
	}
	key := presence.Key{App: t.App, User: t.To}
	u := h.edge.users.get(userShard(key), key)
	ref, ok := h.lookup(n, presence.Key{App: t.App, User: t.User})
	if u == nil || !ok {
		return
	}
	e := h.entry(ref)
	for _, s := range u.conns() {
		if r := e.row(s.idx); r != nil && r.mask()&uint32(presence.FieldTyping) != 0 {
			show(s)
		}
	}
}

// cast is a push for many sockets, encoded once per codec.
type cast struct {
	push   *wire.Push
	frames [codecs][]byte
}

func newCast(p *wire.Push) *cast { return &cast{push: p} }

func (c *cast) to(s *socket) { s.deliver(c.frame(s.codec), true) }

func (c *cast) frame(codec codec) []byte {
	b := &c.frames[codec.number()]
	if *b == nil {
		payload := codec.appendReply(newFrame(nil), &wire.Reply{Body: &wire.Reply_Push{Push: c.push}})
		*b = sealFrame(payload, codec.opcode())
	}
	return *b
}
