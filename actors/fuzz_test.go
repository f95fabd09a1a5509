package actors

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"muster/actors/actorstest"
	"muster/actors/link"
	"muster/actors/presence"
)

// Bodies that are absent, and lists with absent members.
func hollow() []*link.Up {
	ups := []*link.Up{
		nil, {},
		{Body: &link.Up_Attach{}}, {Body: &link.Up_Detach{}}, {Body: &link.Up_Report{}}, {Body: &link.Up_Act{}},
		{Body: &link.Up_Interest{}}, {Body: &link.Up_Typing{}}, {Body: &link.Up_Query{}}, {Body: &link.Up_Announce{}},
		{Body: &link.Up_Room{}}, {Body: &link.Up_Ask{}},
		{Body: &link.Up_Report{Report: &link.Report{Rows: []*link.Active{nil, {}}}}},
		{Body: &link.Up_Announce{Announce: &link.Announce{Term: 1, Sessions: []*link.Attach{nil, {}}, Watches: []*link.Interest{nil, {}},
			Seen: []*link.Seen{nil, {}}, Rooms: []*link.RoomCommand{nil, {}}, SessionsDone: true, Done: true}}},
	}
	shard := shardOf("ann")
	for _, a := range []*link.Act{{}, {What: &link.Act_Claim{}}, {What: &link.Act_EndClaim{}}, {What: &link.Act_Invisible{}}, {What: &link.Act_Audience{}},
		{What: &link.Act_Relations{}}, {What: &link.Act_Kick{}}, {What: &link.Act_Revoke{}},
		{What: &link.Act_Audience{Audience: &link.Audience{Rules: []*link.Rule{nil, {}}, Grants: []*link.Grant{nil, {}}}}}} {
		a.App, a.User, a.Call = app, "ann", 1
		ups = append(ups, &link.Up{Shard: shard, Body: &link.Up_Act{Act: a}})
	}
	for _, c := range []*link.RoomCommand{{}, {What: &link.RoomCommand_Enter{}}, {What: &link.RoomCommand_Leave{}}, {What: &link.RoomCommand_List{}},
		{What: &link.RoomCommand_Update{}}} {
		c.App, c.Room, c.User, c.Call = app, "desk", "ann", 1
		ups = append(ups, &link.Up{Shard: link.ShardOf(app, link.KindRoom, "desk"), Body: &link.Up_Room{Room: c}})
	}
	for _, q := range []*link.Ask{{}, {What: &link.Ask_Online{}}, {What: &link.Ask_Counts{}}, {What: &link.Ask_Explain{}}, {What: &link.Ask_User{}}} {
		q.App = app
		ups = append(ups, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: q}})
	}
	return append(ups,
		&link.Up{Shard: shard, Body: &link.Up_Attach{Attach: &link.Attach{App: app, User: "ann", Class: 1 << 30, GraceMs: -1 << 63, ActiveAt: -1 << 63, Attempt: 1<<64 - 1}}},
		&link.Up{Shard: shard, Body: &link.Up_Detach{Detach: &link.Detach{App: app, User: "ann", Cause: 99}}},
		&link.Up{Shard: shard, Body: &link.Up_Interest{Interest: &link.Interest{App: app, Add: []string{"ann", ""}, Remove: []string{"", "bob"}, Hidden: 1 << 31}}},
		&link.Up{Shard: shard, Body: &link.Up_Query{Query: &link.Query{App: app, Users: []string{"", "ann", "ann"}}}})
}

// Whatever an edge leaves out, nothing panics and the shard goes on.
func TestHollowMessages(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		e := c.edges[0]
		for _, shard := range []uint32{0, shardOf("ann")} {
			for i, m := range hollow() {
				if m == nil {
					c.node.Up(nil)
					continue
				}
				m = proto.Clone(m).(*link.Up)
				if m.Shard == 0 {
					m.Shard = shard
				}
				e.send(m)
				pass(time.Millisecond)
				if s := c.node.Stats(); s.Panics.Load() != 0 {
					t.Fatalf("message %d (%v) panicked", i, m)
				}
			}
		}
		call := e.attach("bob", "s1", 1)
		synctest.Wait()
		if e.answer(call).GetAttached().GetCode() != link.Code_OK {
			t.Fatal("the shard is lost")
		}
	})
}

// FuzzUp gives a gateway any message, at the shard it belongs to.
func FuzzUp(f *testing.F) {
	for _, m := range hollow() {
		if raw, err := proto.Marshal(m); err == nil {
			f.Add(raw)
		}
	}
	rows := &actorstest.Memory{}
	n, err := New(Config{Name: "n1", Store: rows})
	if err != nil {
		f.Fatal(err)
	}
	if err := n.Start(); err != nil {
		f.Fatal(err)
	}
	rows.Open(n, 1)
	f.Cleanup(n.Stop)
	s := &sink{batches: make(chan struct{}, 1000)}
	p := link.NewPipe("e0", 1, s, n)
	p.Dial()
	f.Cleanup(func() { p.Close(true) })
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := &link.Up{}
		if proto.Unmarshal(raw, m) != nil {
			return
		}
		m.Shard = home(m)
		_ = s.up.Up(m)
		_ = s.up.Up(&link.Up{Shard: m.Shard, Body: &link.Up_Ask{Ask: &link.Ask{Call: batch, What: &link.Ask_Counts{}}}})
		<-s.batches
		if s := n.Stats(); s.Panics.Load() != 0 {
			t.Fatalf("panicked: %v", m)
		}
	})
}

// home is the shard that a message names an actor of.
func home(m *link.Up) uint32 {
	user := func(app, id string) uint32 { return link.ShardOf(app, link.KindUser, id) }
	switch b := m.GetBody().(type) {
	case *link.Up_Attach:
		return user(b.Attach.GetApp(), b.Attach.GetUser())
	case *link.Up_Detach:
		return user(b.Detach.GetApp(), b.Detach.GetUser())
	case *link.Up_Act:
		return user(b.Act.GetApp(), b.Act.GetUser())
	case *link.Up_Typing:
		return user(b.Typing.GetApp(), b.Typing.GetUser())
	case *link.Up_Room:
		return link.ShardOf(b.Room.GetApp(), link.KindRoom, b.Room.GetRoom())
	}
	return m.GetShard() % link.Shards
}

// A gateway ignores what it does not know.
func TestUnknownMessage(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		c.node.post(0, "?")
		c.node.post(0, presence.Key{})
		c.edges[0].saw()
	})
}
