package actors

import (
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
)

// A failing activation takes nobody with it; its edges announce it, watchers see nothing.
func TestPanicIsContained(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann", "bob")
		e.attach("ann", "a1", 1)
		e.attach("bob", "b1", 2)
		w.saw("wendy>ann: online", "wendy>bob: online")
		c.crash("ann")
		call := hide(e, true)
		w.saw()
		if e.answer(call) != nil {
			t.Fatalf("answered although it was not persisted: %v", e.answer(call))
		}
		pass(time.Minute)
		w.saw()
		if s := c.node.Stats(); s.Panics.Load() != 1 || s.Parked.Load() != 0 {
			t.Fatalf("%d panics, %d parked", s.Panics.Load(), s.Parked.Load())
		}
		e.status("ann", "a1", 1, presence.DND, "")
		w.saw("wendy>ann: dnd")
		e.detach("ann", "a1", 1, link.Cause_BYE)
		w.saw("wendy>ann: offline")
	})
}

func hide(e *testEdge, on bool) uint64 {
	return e.act("ann", &link.Act{Session: "a1", Conn: 1, What: &link.Act_Invisible{Invisible: on}})
}

// The third panic in a minute parks the user for 30 s; then it is as if nothing was.
func TestParking(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		hide := func() uint64 { return hide(e, true) }
		for range 3 {
			pass(2 * time.Second)
			c.crash("ann")
			hide()
		}
		synctest.Wait()
		if s := c.node.Stats(); s.Panics.Load() != 3 || s.Parked.Load() != 1 || s.Users.Load() != 0 {
			t.Fatalf("%d panics, %d parked, %d resident", s.Panics.Load(), s.Parked.Load(), s.Users.Load())
		}
		acted, attached := hide(), e.attach("ann", "a1", 1)
		synctest.Wait()
		if a, b := e.answer(acted).GetActed().GetCode(), e.answer(attached).GetAttached().GetCode(); a != link.Code_BUSY || b != link.Code_BUSY {
			t.Fatalf("parked: %v, %v", a, b)
		}
		explain := e.ask(shardOf("ann"), &link.Ask{What: &link.Ask_Explain{Explain: &link.Explain{User: "ann"}}})
		synctest.Wait()
		if x := decode[Explained](t, e.answer(explain).GetAnswer().GetJson()); x.ParkedTill.IsZero() || x.Resident {
			t.Fatalf("explain: %+v", x)
		}
		pass(31 * time.Second)
		w.saw()
		if n := c.counts(); n["sessions"] != 1 {
			t.Fatalf("not announced after parking: %v", n)
		}
		hide()
		w.saw("wendy>ann: offline")
		if n := len(c.node.gateways[shardOf("ann")].trouble); n != 0 {
			pass(time.Minute)
			if n = len(c.node.gateways[shardOf("ann")].trouble); n != 0 {
				t.Fatalf("%d troubles are remembered", n)
			}
		}
	})
}

// A gateway that panics begins its shard anew under the same term; the edges announce, and
// watchers see nothing.
func TestGatewayPanics(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		shard := shardOf("ann")
		g := c.node.gateways[shard]
		term := c.node.terms[shard].Load()
		g.core = nil
		e.status("ann", "a1", 1, presence.DND, "")
		w.saw()
		if got := c.node.terms[shard].Load(); got != term || c.node.Stats().Reopened.Load() != 1 {
			t.Fatalf("term %d after %d, reopened %d", got, term, c.node.Stats().Reopened.Load())
		}
		e.status("ann", "a1", 1, presence.DND, "")
		w.saw("wendy>ann: dnd")
		pass(time.Minute)
		w.saw()
		if n := c.node.Stats().Users.Load(); n != 1 {
			t.Fatalf("%d users resident", n)
		}
	})
}

// A shut outlet lets nothing out, whatever the activations do.
func TestOutletIsCut(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		w.saw()
		for i := range c.node.outlets {
			c.node.outlets[i].Load().cut()
		}
		call := e.attach("ann", "a1", 1)
		w.saw()
		if e.answer(call) != nil {
			t.Fatal("answered through a shut outlet")
		}
	})
}

func TestRoomLife(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, f := c.edges[0], c.edges[1]
		call := e.enter("ann", "desk", 1)
		e.heard("desk: +ann ~ - of 1")
		if r := e.answer(call).GetRoom(); r.GetCount() != 1 || users(r.GetOccupants()) != "ann" {
			t.Fatalf("reply: %v", r)
		}
		f.enter("bob", "desk", 2)
		f.enter("cid", "desk", 3)
		pass(200 * time.Millisecond)
		e.heard("desk: +bob,cid ~ - of 3")
		f.heard("desk: +bob,cid ~ - of 3")

		f.room("bob", "s-bob", "desk", 2, &link.RoomCommand{What: &link.RoomCommand_Leave{Leave: link.Cause_SILENCE}})
		pass(14 * time.Second)
		e.heard()
		e.enter("bob", "desk", 4)
		pass(time.Minute)
		e.heard()

		e.send(&link.Up{Shard: link.ShardOf(app, link.KindRoom, "desk"), Body: &link.Up_Typing{Typing: &link.Typing{App: app, User: "bob", Conn: 4, Room: "desk"}}})
		e.heard("typing bob→desk")
		f.heard("typing bob→desk")

		c.pipes[1].Close(true) // cid's edge dies
		pass(16 * time.Second)
		e.heard("desk: + ~ -cid of 2")

		for _, u := range []string{"ann", "bob"} {
			conn := map[string]uint64{"ann": 1, "bob": 4}[u]
			e.room(u, "s-"+u, "desk", conn, &link.RoomCommand{What: &link.RoomCommand_Leave{Leave: link.Cause_BYE}})
		}
		pass(time.Second)
		if n := c.node.Stats().Rooms.Load(); n != 0 {
			t.Fatalf("%d rooms are resident", n)
		}
		list := e.room("ann", "s-ann", "desk", 1, &link.RoomCommand{What: &link.RoomCommand_List{List: true}})
		again := e.enter("ann", "desk", 9)
		synctest.Wait()
		if r := e.answer(list).GetRoom(); r == nil || r.Count != 0 {
			t.Fatalf("list of an empty room: %v", r)
		}
		if r := e.answer(again).GetRoom(); r.GetVersion() < 6 {
			t.Fatalf("the version of a room fell with its activation: %v", r)
		}
	})
}

// Rooms come back from announcements after a cut, and after a panic of their activation.
func TestRoomRepair(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, f := c.edges[0], c.edges[1]
		e.enter("ann", "desk", 1)
		pass(time.Second)
		f.enter("bob", "desk", 2)
		pass(time.Second)
		e.heard("desk: +ann ~ - of 1", "desk: +bob ~ - of 2")
		f.heard("desk: +bob ~ - of 2")

		c.pipes[1].Cut()
		pass(time.Second)
		e.room("ann", "s-ann", "desk", 1, &link.RoomCommand{What: &link.RoomCommand_Leave{Leave: link.Cause_BYE}})
		delete(e.rooms, "desk")
		f.heard()
		c.pipes[1].Redial()
		f.heard("desk: +bob ~ - of 1 all")
		e.heard()
		e.enter("ann", "desk", 5)
		pass(time.Second)
		e.heard("desk: +ann ~ - of 2")
		f.heard("desk: +ann ~ - of 2")

		k := presence.Key{App: app, User: "desk"}
		g := c.node.gateways[link.ShardOf(app, link.KindRoom, "desk")]
		g.rooms[k].room.Room = &room.Room{}
		c.pipes[0].Redial() // the announcement makes it panic
		pass(4 * time.Second)
		e.heard("desk: +ann,bob ~ - of 2 all")
		f.heard("desk: +ann,bob ~ - of 2 all")
		if n := c.node.Stats().Panics.Load(); n != 1 {
			t.Fatalf("%d panics", n)
		}
	})
}

// A shard begins anew, the first activation of a user panics, and the request to
// announce again is lost: the user still is not shown offline.
func TestFaultsOnTopOfEachOther(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		c.node.gateways[shardOf("ann")].core = nil
		c.node.post(shardOf("ann"), presence.Cluster{})
		w.saw()
		c.crash("ann")
		c.pipes[0].DropDown(1)
		e.status("ann", "a1", 1, presence.Online, "")
		w.saw()
		pass(time.Minute)
		w.saw()
		if s := c.node.Stats(); s.Panics.Load() != 2 {
			t.Fatalf("%d panics", s.Panics.Load())
		}
	})
}

// What a user decided outlives the panics of its activation and of its shard.
func TestInvisibleOutlivesPanics(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		e.act("ann", &link.Act{Session: "a1", Conn: 1, What: &link.Act_Invisible{Invisible: true}})
		w.saw("wendy>ann: online", "wendy>ann: offline")
		c.crash("ann")
		e.act("ann", &link.Act{What: &link.Act_Revoke{Revoke: &link.Revoke{Before: 1}}})
		pass(time.Minute)
		c.node.gateways[shardOf("ann")].core = nil
		c.node.post(shardOf("ann"), presence.Cluster{})
		pass(time.Minute)
		w.saw()
		if s := c.node.Stats(); s.Panics.Load() != 2 {
			t.Fatalf("%d panics", s.Panics.Load())
		}
		e.act("ann", &link.Act{Session: "a1", Conn: 1, What: &link.Act_Invisible{}})
		w.saw("wendy>ann: online")
	})
}
