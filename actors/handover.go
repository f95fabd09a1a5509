package actors

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
)

// A shard that is given away in good order takes along what no edge can announce: the sessions in grace, and the
// places in rooms that are.

// handover is what the leader before sent for the term after its own.
type handover struct {
	term   uint64 // of that leader
	at     time.Time
	users  []*link.HandedUser
	places []*link.HandedPlace
}

const (
	handedBytes  = 64 << 10        // in one message, about
	handoverKept = 3 * time.Second // until the shard opens
)

// Leaving sends what the next leader of a shard must be told, by send, which carries a message to its Routed, and makes
// durable what is stored lazily: that leader would take who has just left for somebody who is not announced yet.
// It is to be called just before leadership is given to that node, and returns when both is done, with the
// first error. ErrNotLeader: the shard is not open here.
func (n *Node) Leaving(ctx context.Context, shard uint32, send func(*link.Up) error) error {
	if shard >= link.Shards {
		return ErrNotLeader
	}
	told, durable := make(chan error, 1), make(chan error, 1)
	var all []*link.Up
	n.post(shard, &request{done: func(err error) { told <- err }, do: func(g *gateway, now time.Time) {
		all = g.leaving(now)
		g.flush(now)
		g.whenDurable(func(err error) { durable <- err })
		told <- nil
	}})
	if err := n.await(ctx, told); err != nil {
		return err
	}
	for _, m := range all {
		if err := send(m); err != nil {
			return err
		}
	}
	return n.await(ctx, durable)
}

// await waits for one result.
func (n *Node) await(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.stop:
		return ErrNotLeader
	}
}

// leaving is what the shard's next leader must be told.
func (g *gateway) leaving(now time.Time) (all []*link.Up) {
	var h *link.Handover
	size := handedBytes
	add := func(m proto.Message) *link.Handover {
		n := proto.Size(m)
		if size += n; size > handedBytes {
			h, size = &link.Handover{Term: g.out.term}, n
			all = append(all, &link.Up{Shard: g.shard, Body: &link.Up_Handover{Handover: h}})
		}
		return h
	}
	for k, a := range g.users {
		if handed, some := a.user.Leaving(now); some {
			u := handedUser(k, &handed, now)
			h := add(u)
			h.Users = append(h.Users, u)
		}
	}
	for k, a := range g.rooms {
		for _, p := range a.room.Leaving() {
			p := handedPlace(k, &p, now)
			h := add(p)
			h.Places = append(h.Places, p)
		}
	}
	return all
}

func handedUser(k presence.Key, h *presence.Handed, now time.Time) *link.HandedUser {
	u := &link.HandedUser{App: k.App, User: k.User, Live: h.Live}
	for i := range h.Sessions {
		s := &h.Sessions[i]
		a := &s.Attach
		at := &link.Attach{Session: a.Session, Resume: a.Resume, Device: a.Device, Class: uint32(a.Class), Conn: a.Conn.ID, Attempt: a.Attempt,
			Away: a.Away, Inactive: a.Inactive, ActiveAt: toMs(a.ActiveAt), GraceMs: a.Grace.Milliseconds(), Iat: a.IssuedAt, Jti: a.JTI, Client: a.Client}
		if a.Grace < 0 {
			at.GraceMs = -1
		}
		at.Claims = list(a.Claims, claimOut)
		u.Sessions = append(u.Sessions, &link.HandedSession{Attach: at, Edge: a.Conn.Edge, Incarnation: a.Conn.Incarnation,
			Cause: link.Cause(s.Cause), AgoMs: now.Sub(s.Since).Milliseconds(), LeftMs: s.Until.Sub(now).Milliseconds()})
	}
	return u
}

func handedPlace(k presence.Key, p *room.Handed, now time.Time) *link.HandedPlace {
	e := &p.Enter
	return &link.HandedPlace{Edge: e.Conn.Edge, Incarnation: e.Conn.Incarnation, Reason: uint32(p.Reason), LeftMs: p.Until.Sub(now).Milliseconds(),
		Enter: &link.RoomCommand{App: k.App, Room: k.User, User: e.User, Session: e.Session, Conn: e.Conn.ID, Attempt: e.Attempt,
			What: &link.RoomCommand_Enter{Enter: &link.RoomEnter{Occupy: true, Info: e.Info, Occupant: &link.Occupant{User: e.User, State: uint32(e.State),
				Term: e.Version.Term, Version: e.Version.Number, Hidden: e.Hidden, EnteredAt: p.EnteredAt}}}}}
}

// takeHandover keeps what the leader before sends, for when the shard opens, or takes it if the shard has just
// opened.
func (g *gateway) takeHandover(h *link.Handover, now time.Time) {
	if g.handed.term != h.GetTerm() {
		g.handed = handover{term: h.GetTerm(), at: now}
	}
	g.handed.users = append(g.handed.users, h.GetUsers()...)
	g.handed.places = append(g.handed.places, h.GetPlaces()...)
	if g.out != nil && now.Sub(g.opening) < handoverKept {
		g.beHanded(now)
	}
}

// beHanded gives the users and rooms what the leader of the term before has sent.
func (g *gateway) beHanded(now time.Time) {
	h := g.handed
	if h.term+1 == g.out.term && now.Sub(h.at) < handoverKept {
		for _, u := range h.users {
			k := presence.Key{App: u.GetApp(), User: u.GetUser()}
			if g.holds(k, link.KindUser) {
				g.step(presence.Deliver{Key: k, In: handed(u, now, now.Sub(h.at))}, nil, now)
			}
		}
		for _, p := range h.places {
			g.takePlace(p, now, now.Sub(h.at))
		}
	}
	g.handed = handover{term: h.term, at: h.at}
}

// handed is a message as an input; it waited here for so long.
func handed(u *link.HandedUser, now time.Time, waited time.Duration) presence.Handed {
	in := presence.Handed{Live: u.GetLive()}
	for _, s := range u.GetSessions() {
		e := presence.Edge{Name: s.GetEdge(), Incarnation: s.GetIncarnation()}
		in.Sessions = append(in.Sessions, presence.HandedSession{Attach: attach(e, s.GetAttach()), Cause: enum[presence.Cause](uint32(s.GetCause())),
			Since: now.Add(-waited - ms(s.GetAgoMs())), Until: now.Add(ms(s.GetLeftMs()) - waited)})
	}
	return in
}

// takePlace gives a room a place that waited here for so long.
func (g *gateway) takePlace(p *link.HandedPlace, now time.Time, waited time.Duration) {
	c := p.GetEnter()
	k := presence.Key{App: c.GetApp(), User: c.GetRoom()}
	until := now.Add(ms(p.GetLeftMs()) - waited)
	if !g.holds(k, link.KindRoom) || c.GetEnter() == nil || !until.After(now) {
		return
	}
	if r := g.roomFor(k, now); r != nil {
		e := presence.Edge{Name: p.GetEdge(), Incarnation: p.GetIncarnation()}
		g.enqueue(r, &roomInput{in: room.Handed{Enter: enter(e, c, c.GetEnter()), EnteredAt: c.GetEnter().GetOccupant().GetEnteredAt(),
			Reason: enum[presence.Reason](p.GetReason()), Until: until}})
	}
}
