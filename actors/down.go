package actors

import (
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
)

// What the cores say, as messages to edges.

func down(m presence.Message) *link.Down {
	switch m := m.(type) {
	case *presence.Views:
		return &link.Down{Body: &link.Down_Views{Views: &link.Views{Call: m.Call, App: m.App, Watcher: m.Watcher, Rows: list(m.Rows, viewRow)}}}
	case *presence.Change:
		return &link.Down{Body: &link.Down_Change{Change: &link.Change{App: m.App, User: m.User, Version: m.Version, Views: views(m.Views)}}}
	case *presence.Remask:
		out := &link.Remask{App: m.App, User: m.User, Version: m.Version, Watchers: m.Watchers, Views: views(m.Views)}
		for _, k := range m.Masks {
			out.Masks = append(out.Masks, uint32(k))
		}
		return &link.Down{Body: &link.Down_Remask{Remask: out}}
	case *presence.SelfView:
		return &link.Down{Body: &link.Down_Self{Self: selfView(presence.Key{App: m.App, User: m.User}, m.Version, m.Self)}}
	case *presence.TypingOut:
		return &link.Down{Body: &link.Down_Typing{Typing: &link.TypingOut{App: m.App, User: m.User, To: m.To, Kind: m.Kind, Stop: m.Stop}}}
	case *presence.AnnounceAgain:
		return again(m.Key)
	}
	panic("actors: a message of the core without a translation")
}

// again asks for an announcement: of a user, or of the shard if k is zero.
func again(k presence.Key) *link.Down {
	return &link.Down{Body: &link.Down_Again{Again: &link.AnnounceAgain{App: k.App, User: k.User}}}
}

func viewRow(to *link.Row, r *presence.Row) {
	to.User, to.Mask, to.Version, to.Pending, to.View = r.User, uint32(r.Mask), r.Version, r.Pending, view(r.Mask, r.View)
}

func views(all []presence.MaskedView) []*link.View {
	out := make([]*link.View, len(all))
	for i, v := range all {
		if out[i] = view(v.Mask, v.View); out[i] == nil {
			out[i] = &link.View{Mask: uint32(v.Mask)}
		}
	}
	return out
}

// view is what a mask shows; nil if it shows nothing.
func view(m presence.Mask, v *presence.View) *link.View {
	if v == nil {
		return nil
	}
	out := &link.View{Mask: uint32(m), State: uint32(v.State), Text: v.Text, Emoji: v.Emoji, Activity: v.Activity,
		LastSeen: toMs(v.LastSeen), Bucket: uint32(v.Bucket), Since: toMs(v.Since), Reason: uint32(v.Reason)}
	out.Devices = list(v.Devices, func(to *link.Device, d *presence.DeviceRow) { to.Class, to.State = uint32(d.Class), uint32(d.State) })
	return out
}

// list translates a list into messages that share one allocation; nil if it is empty.
func list[M, T any](from []T, set func(to *M, from *T)) []*M {
	if len(from) == 0 {
		return nil
	}
	all, out := make([]M, len(from)), make([]*M, len(from))
	for i := range from {
		out[i] = &all[i]
		set(out[i], &from[i])
	}
	return out
}

func toMs(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func selfView(k presence.Key, version uint64, s *presence.Self) *link.SelfView {
	if s == nil {
		return nil
	}
	out := &link.SelfView{App: k.App, User: k.User, Version: version, View: view(presence.AllFields, &s.View),
		Invisible: s.Invisible, Everyone: uint32(s.Everyone), Hidden: uint32(s.Hidden)}
	out.Claims = list(s.Claims, claimOut)
	if len(s.Rules)+len(s.Grants) == 0 {
		return out
	}
	out.Audience = &link.Audience{}
	out.Audience.Rules = list(s.Rules, func(to *link.Rule, r *presence.FieldRule) {
		to.Field, to.Rule, to.Users = uint32(r.Field), uint32(r.Rule), r.Users
	})
	out.Audience.Grants = list(s.Grants, func(to *link.Grant, t *presence.Grant) {
		to.To, to.Fields, to.TtlMs = t.To, uint32(t.Fields), t.TTL.Milliseconds()
	})
	return out
}

func claimOut(to *link.Claim, c *presence.Claim) {
	to.Id, to.Source, to.State, to.Text, to.Emoji = c.ID, c.Source, uint32(c.State), c.Text, c.Emoji
	to.Activity, to.Priority, to.TtlMs, to.Durable = c.Activity, int32(c.Priority), c.TTL.Milliseconds(), c.Durable
}

func closeConn(k presence.Key, c presence.CloseConn) *link.Down {
	return &link.Down{Body: &link.Down_Close{Close: &link.CloseConn{App: k.App, User: k.User, Conn: c.Conn.ID, Code: c.Code, Reason: c.Reason}}}
}

// userReply answers the command in up; nil if it asks for no answer.
func userReply(k presence.Key, up *link.Up, r presence.Reply) *link.Down {
	switch b := up.GetBody().(type) {
	case *link.Up_Attach:
		if b.Attach.GetCall() == 0 {
			return nil
		}
		return &link.Down{Body: &link.Down_Attached{Attached: &link.Attached{Call: b.Attach.Call, App: k.App, User: k.User, Conn: b.Attach.Conn,
			Code: link.Code(r.Code), Message: r.Message, Session: r.Session, Resumed: r.Resumed, Hidden: uint32(r.Hidden), Self: selfView(k, 0, r.Self)}}}
	case *link.Up_Act:
		if b.Act.GetCall() == 0 {
			return nil
		}
		out := &link.Acted{Call: b.Act.Call, Code: link.Code(r.Code), Message: r.Message, Conn: b.Act.Conn}
		if p := r.Published; p != nil {
			out.Published = &link.Published{Epoch: p.Epoch, Offset: p.Offset, At: toMs(p.At), Duplicate: p.Duplicate}
		}
		if r.Relation != nil {
			out.Contact = &link.ContactRow{}
			contactRow(out.Contact, r.Relation)
		}
		return &link.Down{Body: &link.Down_Acted{Acted: out}}
	}
	return nil
}

func contactRow(to *link.ContactRow, r *presence.RelationRow) {
	has := func(bit presence.Relation) bool { return r.Relation&bit != 0 }
	to.User, to.To, to.From = r.User, has(presence.RelationTo), has(presence.RelationFrom)
	to.PendingOut, to.PendingIn = has(presence.RelationPendingOut), has(presence.RelationPendingIn)
	to.Approved, to.Blocked = has(presence.RelationApproved), has(presence.RelationBlocked)
}

func roomReply(c *link.RoomCommand, r *room.Reply) *link.Down {
	return &link.Down{Body: &link.Down_Room{Room: &link.RoomReply{Call: c.GetCall(), Conn: c.GetConn(), App: c.GetApp(), Room: c.GetRoom(),
		Code: link.Code(r.Code), Message: r.Message, Version: r.Version, Occupants: occupants(r.Occupants), Count: uint32(r.Count)}}}
}

func roomSend(k presence.Key, s room.Send) *link.Down {
	if t := s.Typing; t != nil {
		return &link.Down{Body: &link.Down_Typing{Typing: &link.TypingOut{App: k.App, User: t.User, Room: k.User, Kind: t.Kind, Stop: t.Stop}}}
	}
	c := s.Change
	return &link.Down{Body: &link.Down_RoomChange{RoomChange: &link.RoomChange{App: k.App, Room: k.User, Version: c.Version,
		Enter: occupants(c.Enter), Update: occupants(c.Update), Leave: occupants(c.Leave), Count: uint32(c.Count), All: c.All}}}
}

func occupants(all []room.Occupant) []*link.Occupant {
	return list(all, func(to *link.Occupant, o *room.Occupant) {
		to.User, to.State, to.Term, to.Version = o.User, uint32(o.State), o.Version.Term, o.Version.Number
		to.Info, to.EnteredAt, to.Reason = o.Info, o.EnteredAt, uint32(o.Reason)
	})
}
