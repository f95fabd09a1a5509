package edge

import (
	"slices"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/publish"
)

// roomSeat is a session's place in a room, as its home hub knows it.
type roomSeat struct {
	room   string
	occupy bool
}

// roomHere is a room that sessions of this edge are in, of the hub of its shard.
type roomHere struct{ seats []seat }

type seat struct {
	conn      uint64
	attempt   uint64
	user      string
	session   string
	info      string
	occupy    bool
	subscribe bool
	state     *link.Occupant // as everyone sees the user
}

func roomShard(k presence.Key) uint32 { return link.ShardOf(k.App, link.KindRoom, k.User) }

// What the hub of a room's shard is asked by the home hub of a session.
type (
	entering struct {
		s      *socket
		id     uint64 // of the command; 0: no reply
		room   string
		seat   seat
		gather *gather // of the connect that enters; nil: a command
	}
	leaving struct {
		s     *socket
		c     *wire.Command // nil: the session ends
		room  string
		cause link.Cause
	}
	listing struct {
		s    *socket
		id   uint64
		room string
	}
	showing struct { // an occupant's public state has changed
		s     *socket
		room  string
		state *link.Occupant
	}
)

func (h *hub) roomHub(s *socket, room string) *hub {
	return h.edge.hubOf(roomShard(presence.Key{App: s.who.key.App, User: room}))
}

// commandEnter lets the session into a room, as occupant, subscriber or both.
func (h *hub) commandEnter(s *socket, c *wire.Command, m *wire.RoomEnter) (why string) {
	switch {
	case !wire.ValidID(m.Room):
		return "room.enter.room: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -"
	case len(m.Info) > wire.MaxInfo:
		return "room.enter.info: more than 1 KiB"
	case m.SubscribeOnly && m.EnterOnly:
		return "room.enter: subscribe_only and enter_only exclude each other"
	}
	x := s.self.extra()
	if len(x.rooms) >= maxRooms && !slices.ContainsFunc(x.rooms, func(r roomSeat) bool { return r.room == m.Room }) {
		s.refuse(c.Id, wire.CodeLimitExceeded, "room.enter: more than 100 rooms in one session", 0)
		return ""
	}
	h.enterRoom(s, m, nil, c.Id)
	return ""
}

func (h *hub) enterRoom(s *socket, m *wire.RoomEnter, g *gather, id uint64) {
	x := s.self.extra()
	x.rooms = slices.DeleteFunc(x.rooms, func(r roomSeat) bool { return r.room == m.Room })
	x.rooms = append(x.rooms, roomSeat{m.Room, !m.SubscribeOnly})
	if g != nil {
		g.depart()
	}
	h.pass(h.roomHub(s, m.Room), &entering{s: s, id: id, room: m.Room, gather: g, seat: seat{
		conn: s.conn, attempt: s.self.attempt, user: s.who.key.User, session: s.self.id, info: m.Info,
		occupy: !m.SubscribeOnly, subscribe: !m.EnterOnly, state: s.who.occupant(),
	}})
}

// occupant is the user as everyone may see it.
func (u *local) occupant() *link.Occupant {
	return &link.Occupant{User: u.key.User, State: u.shown.state, Term: u.shown.term, Version: u.shown.version, Hidden: u.invisible}
}

func (t *seat) command(app, room string, call uint64) *link.RoomCommand {
	return &link.RoomCommand{
		Call: call, App: app, Room: room, User: t.user, Session: t.session, Conn: t.conn, Attempt: t.attempt,
		What: &link.RoomCommand_Enter{Enter: &link.RoomEnter{
			Occupy: t.occupy, Subscribe: t.subscribe, Info: t.info, Occupant: t.state, Announced: call == 0,
		}},
	}
}

// enter takes a session's seat in the hub of the room's shard.
func (h *hub) enterHere(m *entering) {
	key := presence.Key{App: m.s.who.key.App, User: m.room}
	n := roomShard(key)
	sh := h.shards[n]
	r := sh.rooms[key]
	if r == nil {
		r = &roomHere{}
		sh.rooms[key] = r
	}
	r.remove(m.seat.conn)
	r.seats = append(r.seats, m.seat)
	call := h.expect(n, long, func(d *link.Down) {
		reply, err := roomReply(m.room, d)
		if err != nil {
			h.vacate(key, m.seat.conn)
		}
		if m.gather != nil {
			m.gather.entered(&wire.RoomEnterReply{Room: m.room, Ver: reply.Ver, Occupants: reply.Occupants, Count: reply.Count, Error: err})
			m.gather.arrive(h)
			return
		}
		if err != nil {
			m.s.send(&wire.Reply{Id: m.id, Body: &wire.Reply_Error{Error: err}})
			return
		}
		m.s.reply(&wire.Reply{Id: m.id, Body: &wire.Reply_RoomEnter{RoomEnter: &wire.RoomEnterReply{
			Room: m.room, Ver: reply.Ver, Occupants: reply.Occupants, Count: reply.Count,
		}}})
	})
	if !h.up(n, &link.Up{Body: &link.Up_Room{Room: m.seat.command(key.App, m.room, call)}}) {
		h.answered(call, nil)
	}
}

// roomReply is what a client is told of a room; or the error.
func roomReply(room string, d *link.Down) (*wire.RoomWindowReply, *wire.Error) {
	w := &wire.RoomWindowReply{Room: room}
	r := d.GetRoom()
	if r == nil {
		return w, wire.CodeMoving.Error("", retryMoving)
	}
	if r.Code != link.Code_OK {
		return w, publish.Refusal(r.Code).Error(r.Message, 0)
	}
	w.Ver, w.Occupants, w.Count = []uint64{d.Term, r.Version}, occupantsOf(r.Occupants), r.Count
	return w, nil
}

func occupantsOf(list []*link.Occupant) []*wire.Occupant {
	out := make([]*wire.Occupant, 0, len(list))
	for _, o := range list {
		if !o.Hidden {
			out = append(out, &wire.Occupant{User: o.User, State: stateOf(o.State), Info: o.Info, EnteredAt: millis(o.EnteredAt)})
		}
	}
	return out
}

func (g *gather) entered(r *wire.RoomEnterReply) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rooms = append(g.rooms, r)
}

func (r *roomHere) remove(conn uint64) (had bool) {
	n := len(r.seats)
	r.seats = slices.DeleteFunc(r.seats, func(t seat) bool { return t.conn == conn })
	return len(r.seats) < n
}

// vacate drops a seat, and the room with its last one.
func (h *hub) vacate(key presence.Key, conn uint64) (had bool) {
	sh := h.shards[roomShard(key)]
	r := sh.rooms[key]
	if r == nil {
		return false
	}
	had = r.remove(conn)
	if len(r.seats) == 0 {
		delete(sh.rooms, key)
	}
	return had
}

func (h *hub) commandLeave(s *socket, c *wire.Command, room string) (why string) {
	if !wire.ValidID(room) {
		return "room.leave.room: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -"
	}
	x := s.self.extra()
	x.rooms = slices.DeleteFunc(x.rooms, func(r roomSeat) bool { return r.room == room })
	h.pass(h.roomHub(s, room), &leaving{s: s, c: c, room: room, cause: link.Cause_BYE})
	return ""
}

// leaveRooms takes a session that ends out of its rooms.
func (h *hub) leaveRooms(s *socket, cause link.Cause) {
	if s.self.rare == nil {
		return
	}
	for _, r := range s.self.rare.rooms {
		h.pass(h.roomHub(s, r.room), &leaving{s: s, room: r.room, cause: cause})
	}
	s.self.rare.rooms = nil
}

func (h *hub) leaveHere(m *leaving) {
	key := presence.Key{App: m.s.who.key.App, User: m.room}
	var t seat
	if r := h.shards[roomShard(key)].rooms[key]; r != nil {
		for _, t = range r.seats {
			if t.conn == m.s.conn {
				break
			}
		}
	}
	if h.vacate(key, m.s.conn) {
		h.up(roomShard(key), &link.Up{Body: &link.Up_Room{Room: &link.RoomCommand{
			App: key.App, Room: m.room, User: t.user, Session: t.session, Conn: t.conn, Attempt: t.attempt,
			What: &link.RoomCommand_Leave{Leave: m.cause},
		}}})
	}
	if m.c != nil {
		m.s.reply(done(m.c))
	}
}

func (h *hub) commandWindow(s *socket, c *wire.Command, room string) (why string) {
	if !wire.ValidID(room) {
		return "room.window.room: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -"
	}
	h.pass(h.roomHub(s, room), &listing{s, c.Id, room})
	return ""
}

func (h *hub) listHere(m *listing) {
	key := presence.Key{App: m.s.who.key.App, User: m.room}
	call := h.expect(roomShard(key), long, func(d *link.Down) {
		reply, err := roomReply(m.room, d)
		if err != nil {
			m.s.send(&wire.Reply{Id: m.id, Body: &wire.Reply_Error{Error: err}})
			return
		}
		m.s.reply(&wire.Reply{Id: m.id, Body: &wire.Reply_RoomWindow{RoomWindow: reply}})
	})
	up := &link.Up{Body: &link.Up_Room{Room: &link.RoomCommand{
		Call: call, App: key.App, Room: m.room, User: m.s.who.key.User, Conn: m.s.conn, What: &link.RoomCommand_List{List: true},
	}}}
	if !h.up(roomShard(key), up) {
		h.answered(call, nil)
	}
}

// relay tells the rooms a user is in what everyone may now see of it.
func (h *hub) relay(u *local) {
	told := make(map[string]bool)
	for _, s := range u.conns() {
		if s.self.rare == nil || !s.has(isAttached) {
			continue
		}
		for _, r := range s.self.rare.rooms {
			if r.occupy && !told[r.room] {
				told[r.room] = true
				h.pass(h.roomHub(s, r.room), &showing{s, r.room, u.occupant()})
			}
		}
	}
}

func (h *hub) showHere(m *showing) {
	key := presence.Key{App: m.s.who.key.App, User: m.room}
	n := roomShard(key)
	r := h.shards[n].rooms[key]
	if r == nil {
		return
	}
	var by *seat
	for i := range r.seats {
		if t := &r.seats[i]; t.user == m.state.User && t.occupy {
			t.state, by = m.state, t
		}
	}
	if by == nil {
		return
	}
	h.up(n, &link.Up{Body: &link.Up_Room{Room: &link.RoomCommand{
		App: key.App, Room: m.room, User: by.user, Session: by.session, Conn: by.conn, Attempt: by.attempt,
		What: &link.RoomCommand_Update{Update: m.state},
	}}})
}

// roomChange tells the subscribers here what changed in a room.
func (h *hub) roomChange(n uint32, term uint64, c *link.RoomChange) {
	r := h.shards[n].rooms[presence.Key{App: c.App, User: c.Room}]
	if r == nil {
		return
	}
	p := &wire.RoomPush{
		Room: c.Room, Ver: []uint64{term, c.Version}, Enter: occupantsOf(c.Enter), Update: occupantsOf(c.Update), Count: c.Count, All: c.All,
	}
	for _, o := range c.Leave {
		p.Leave = append(p.Leave, &wire.RoomLeft{User: o.User, Reason: wire.LeaveReason(o.Reason)})
	}
	all := newCast(&wire.Push{Room: p})
	for _, t := range r.seats {
		if !t.subscribe {
			continue
		}
		if s := h.edge.sockets.byConn(t.conn); s != nil && s.phase() < closing {
			all.to(s)
		}
	}
}
