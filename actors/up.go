package actors

import (
	"maps"
	"slices"
	"strings"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
)

// What edges say, as inputs of the cores. Getters are used throughout: any field and
// any body may be absent.

func sender(m *link.Up) presence.Edge {
	return presence.Edge{Name: m.GetEdge(), Incarnation: m.GetIncarnation()}
}

// up handles one message from an edge.
func (g *gateway) up(m *link.Up, now time.Time) {
	e := sender(m)
	switch b := m.GetBody().(type) {
	case *link.Up_Attach:
		g.toUser(m, b.Attach.GetApp(), b.Attach.GetUser(), attach(e, b.Attach), now)
	case *link.Up_Detach:
		g.toUser(m, b.Detach.GetApp(), b.Detach.GetUser(), detach(e, b.Detach), now)
	case *link.Up_Report:
		for _, r := range b.Report.GetRows() {
			g.toUser(m, r.GetApp(), r.GetUser(), presence.Active{Conn: conn(e, r.GetConn()), Session: r.GetSession(),
				Away: r.GetAway(), ActiveAt: unixMs(r.GetActiveAt())}, now)
		}
	case *link.Up_Act:
		g.act(m, b.Act, now)
	case *link.Up_Interest:
		i := b.Interest
		g.learnAll(i.GetApp(), i.GetAdd(), now)
		g.step(presence.Interest{Call: i.GetCall(), Edge: e, App: i.GetApp(), Watcher: watcher(i.GetWatcher(), i.GetHidden()),
			Add: g.ours(i.GetApp(), i.GetAdd()), Remove: i.GetRemove()}, m, now)
	case *link.Up_Query:
		q := b.Query
		g.learnAll(q.GetApp(), q.GetUsers(), now)
		g.step(presence.Query{Call: q.GetCall(), Edge: e, App: q.GetApp(), Watcher: watcher(q.GetWatcher(), q.GetHidden()),
			Users: g.ours(q.GetApp(), q.GetUsers())}, m, now)
	case *link.Up_Typing:
		g.typing(m, b.Typing, now)
	case *link.Up_Announce:
		g.announce(e, b.Announce, now)
	case *link.Up_Room:
		g.toRoom(m, b.Room, now)
	case *link.Up_Ask:
		g.ask(e, b.Ask, now)
	case *link.Up_Ack:
		g.toUser(m, b.Ack.GetApp(), b.Ack.GetUser(), presence.AckOutbox{Session: b.Ack.GetSession(), Conn: conn(e, b.Ack.GetConn()),
			Epoch: b.Ack.GetEpoch(), Offset: b.Ack.GetOffset()}, now)
	case *link.Up_Transfer:
		g.transfer(m, now)
	case *link.Up_TransferDone:
		g.transferDone(b.TransferDone, now)
	case *link.Up_Handover:
		g.takeHandover(b.Handover, now)
	default:
		g.node.stats.Malformed.Add(1)
	}
}

// toUser routes an input to the user's activation. What names no user of this shard is
// counted and refused.
func (g *gateway) toUser(m *link.Up, app, user string, in presence.Input, now time.Time) {
	k := presence.Key{App: app, User: user}
	if in == nil || !g.holds(k, link.KindUser) {
		g.node.stats.Malformed.Add(1)
		if d := userReply(k, m, presence.Reply{Code: presence.BadRequest, Message: "no such command or user in this shard"}); d != nil {
			g.out.send(sender(m), d)
		}
		return
	}
	if code, why := g.admit(in); code != link.Code_OK {
		if d := userReply(k, m, presence.Reply{Code: presence.Code(code), Message: why}); d != nil {
			g.out.send(sender(m), d)
		}
		return
	}
	if at, ok := in.(presence.Attach); ok {
		at.NoRoom = g.full
		in = at
	}
	g.step(presence.Deliver{Key: k, Edge: sender(m), In: in}, m, now)
}

// act routes a command.
func (g *gateway) act(m *link.Up, a *link.Act, now time.Time) {
	k := presence.Key{App: a.GetApp(), User: a.GetUser()}
	if _, again := a.GetWhat().(*link.Act_Regraph); !again || !g.holds(k, link.KindUser) {
		g.toUser(m, k.App, k.User, act(sender(m), a), now)
		return
	}
	g.regraph(k, now)
	if d := userReply(k, m, presence.Reply{}); d != nil {
		g.out.send(sender(m), d)
	}
}

const maxID = 128 // bytes of an app, user or room id

// holds reports whether the shard holds an actor.
func (g *gateway) holds(k presence.Key, kind string) bool {
	return k.App != "" && k.User != "" && len(k.App) <= maxID && len(k.User) <= maxID &&
		link.ShardOf(k.App, kind, k.User) == g.shard
}

// ours leaves out users of other shards.
func (g *gateway) ours(app string, users []string) []string {
	foreign := func(u string) bool { return !g.holds(presence.Key{App: app, User: u}, link.KindUser) }
	if !slices.ContainsFunc(users, foreign) {
		return users
	}
	g.node.stats.Malformed.Add(1)
	return slices.DeleteFunc(slices.Clone(users), foreign)
}

func (g *gateway) typing(m *link.Up, t *link.Typing, now time.Time) {
	if t.GetRoom() == "" {
		g.step(presence.Typing{App: t.GetApp(), User: t.GetUser(), To: t.GetTo(), Kind: t.GetKind(), Stop: t.GetStop()}, m, now)
		return
	}
	if a := g.rooms[presence.Key{App: t.GetApp(), User: t.GetRoom()}]; a != nil {
		g.enqueue(a, &roomInput{in: room.Typing{User: t.GetUser(), Conn: conn(sender(m), t.GetConn()), Kind: t.GetKind(), Stop: t.GetStop()}})
	}
}

// toRoom routes a command to a room.
func (g *gateway) toRoom(m *link.Up, c *link.RoomCommand, now time.Time) {
	k := presence.Key{App: c.GetApp(), User: c.GetRoom()}
	in := roomCommand(sender(m), c)
	refuse := func(code link.Code, why string) {
		if c.GetCall() != 0 {
			g.out.send(sender(m), &link.Down{Body: &link.Down_Room{Room: &link.RoomReply{Call: c.Call, Conn: c.Conn,
				App: c.App, Room: c.Room, Code: code, Message: why}}})
		}
	}
	if in == nil || !g.holds(k, link.KindRoom) {
		g.node.stats.Malformed.Add(1)
		refuse(link.Code_BAD_REQUEST, "no such command or room in this shard")
		return
	}
	a := g.rooms[k]
	if _, enters := in.(room.Enter); a == nil && !enters && !g.parked(k, true, now) {
		// Nobody is there: no activation is needed to say so.
		if c.GetCall() != 0 {
			g.out.send(sender(m), roomReply(c, &room.Reply{Version: g.floor}))
		}
		return
	}
	if a = g.roomFor(k, now); a == nil {
		refuse(link.Code_BUSY, "parked after repeated faults")
		return
	}
	g.enqueue(a, &roomInput{in, m})
}

func roomCommand(e presence.Edge, c *link.RoomCommand) room.Input {
	switch w := c.GetWhat().(type) {
	case *link.RoomCommand_Enter:
		return enter(e, c, w.Enter)
	case *link.RoomCommand_Leave:
		return room.Leave{User: c.User, Session: c.Session, Conn: conn(e, c.Conn), Cause: presence.Cause(w.Leave)}
	case *link.RoomCommand_List:
		return room.List{}
	case *link.RoomCommand_Update:
		o := w.Update
		return room.Update{User: c.User, State: presence.State(o.GetState()), Version: version(o), Hidden: o.GetHidden()}
	}
	return nil
}

func enter(e presence.Edge, c *link.RoomCommand, w *link.RoomEnter) room.Enter {
	o := w.GetOccupant()
	return room.Enter{User: c.GetUser(), Session: c.GetSession(), Conn: conn(e, c.GetConn()), Attempt: c.GetAttempt(),
		Occupy: w.GetOccupy(), Subscribe: w.GetSubscribe(), Info: w.GetInfo(),
		State: presence.State(o.GetState()), Version: version(o), Hidden: o.GetHidden()}
}

// roomsAnnounced collects the places of an announcement by room until it is done.
type roomsAnnounced struct {
	id     uint64
	places map[presence.Key][]room.Enter
}

func (g *gateway) announce(e presence.Edge, a *link.Announce, now time.Time) {
	in := presence.Announce{Edge: e, ID: a.GetId(), Term: a.GetTerm(), SessionsDone: a.GetSessionsDone(), Done: a.GetDone()}
	if a.GetUser() != "" {
		in.Only = presence.Key{App: a.GetApp(), User: a.GetUser()}
	}
	for _, s := range a.GetSessions() {
		if k := (presence.Key{App: s.GetApp(), User: s.GetUser()}); g.holds(k, link.KindUser) {
			at := attach(e, s)
			at.NoRoom = g.full
			in.Sessions = append(in.Sessions, presence.UserAttach{Key: k, Attach: at})
		}
	}
	for _, w := range a.GetWatches() {
		in.Watches = append(in.Watches, presence.Interest{App: w.GetApp(), Watcher: watcher(w.GetWatcher(), w.GetHidden()),
			Add: g.ours(w.GetApp(), w.GetAdd())})
	}
	for _, s := range a.GetSeen() {
		for _, u := range g.ours(s.GetApp(), s.GetUsers()) {
			in.Seen = append(in.Seen, presence.Key{App: s.GetApp(), User: u})
		}
	}
	for _, w := range a.GetWatches() {
		g.learnAll(w.GetApp(), w.GetAdd(), now)
	}
	switch {
	case in.Term != g.core.Term():
	case in.Only == (presence.Key{}):
		g.step(in, nil, now)
		g.announceRooms(e, a, now)
	default:
		g.announceOne(in, now)
	}
}

// announceOne takes the announcement of one user. Its sessions come in one message, which
// says so; what follows are watches.
func (g *gateway) announceOne(in presence.Announce, now time.Time) {
	watches := in.Watches
	if in.Watches = nil; in.SessionsDone {
		g.step(in, nil, now)
	}
	for _, w := range watches {
		w.Edge = in.Edge
		g.step(w, nil, now)
	}
}

func (g *gateway) announceRooms(e presence.Edge, a *link.Announce, now time.Time) {
	all := g.announcing[e]
	if all == nil || all.id != a.GetId() {
		all = &roomsAnnounced{id: a.GetId(), places: map[presence.Key][]room.Enter{}}
		g.announcing[e] = all
	}
	for _, c := range a.GetRooms() {
		if k := (presence.Key{App: c.GetApp(), User: c.GetRoom()}); c.GetEnter() != nil && g.holds(k, link.KindRoom) {
			all.places[k] = append(all.places[k], enter(e, c, c.GetEnter()))
		}
	}
	if !a.GetDone() {
		return
	}
	delete(g.announcing, e)
	for k, r := range g.rooms {
		if all.places[k] == nil {
			g.enqueue(r, &roomInput{in: room.Announce{Edge: e}})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(all.places), compareKeys) {
		if r := g.roomFor(k, now); r != nil {
			g.enqueue(r, &roomInput{in: room.Announce{Edge: e, Places: all.places[k]}})
		}
	}
}

func compareKeys(a, b presence.Key) int {
	if c := strings.Compare(a.App, b.App); c != 0 {
		return c
	}
	return strings.Compare(a.User, b.User)
}
