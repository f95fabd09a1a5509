package actors

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
)

// leaveRoom ends the conn of an occupant.
func (e *testEdge) leaveRoom(user, room string, conn uint64, why link.Cause) {
	e.mu.Lock()
	e.rooms[room] = slices.DeleteFunc(e.rooms[room], func(c *link.RoomCommand) bool { return c.User == user })
	e.mu.Unlock()
	e.room(user, "s-"+user, room, conn, &link.RoomCommand{What: &link.RoomCommand_Leave{Leave: why}})
}

// since takes what the edge was told since the last time.
func (e *testEdge) since() (told []string) {
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	told, e.told = e.told, nil
	return told
}

// occupants is who a room says is in it, each since when, Unix ms.
func (e *testEdge) occupants(room string) map[string]int64 {
	call := e.room("", "", room, 0, &link.RoomCommand{What: &link.RoomCommand_List{List: true}})
	synctest.Wait()
	all := map[string]int64{}
	for _, o := range e.answer(call).GetRoom().GetOccupants() {
		all[o.User] = o.EnteredAt
	}
	return all
}

// A room whose shard goes to another node in good order keeps the places of those who are in grace: who comes back in
// time was never gone, who does not leaves when the grace ends that was running, not sooner and not later.
func TestRoomHandOver(t *testing.T) {
	inParty(t, 2, 2, Config{}, func(p *party) {
		const room = "desk"
		shard := link.ShardOf(app, link.KindRoom, room)
		w, e := p.edges[0], p.edges[1]
		w.enter("ann", room, 1)
		for i, u := range []string{"bob", "cid", "dan", "eve", "fay"} {
			e.enter(u, room, uint64(2+i))
		}
		pass(time.Second)
		entered := w.occupants(room)["bob"]
		e.leaveRoom("bob", room, 2, link.Cause_SILENCE) // 15 s
		e.leaveRoom("cid", room, 3, link.Cause_GONE)    // 5 s
		e.leaveRoom("dan", room, 4, link.Cause_DRAIN)   // 60 s
		e.leaveRoom("eve", room, 5, link.Cause_SILENCE)
		began := time.Now()
		pass(time.Second)
		w.since()
		for range 3 {
			p.hand(shard, p.cores[(slices.Index(p.cores, p.leader(shard))+1)%2])
		}
		for _, said := range w.since() { // nobody is told that anybody left
			if said != "desk: +ann,bob,cid,dan,eve,fay ~ - of 6 all" {
				t.Fatal(said)
			}
		}
		if got := w.occupants(room)["bob"]; got != entered {
			t.Errorf("bob entered at %d, not at %d", got, entered)
		}
		pass(time.Until(began.Add(4900 * time.Millisecond)))
		w.heard()
		pass(200 * time.Millisecond)
		w.heard("desk: + ~ -cid of 5")
		pass(3 * time.Second)
		w.enter("bob", room, 12) // on another edge
		pass(time.Until(began.Add(14900 * time.Millisecond)))
		w.heard()
		pass(200 * time.Millisecond)
		w.heard("desk: + ~ -eve of 4")
		pass(time.Until(began.Add(59900 * time.Millisecond)))
		w.heard()
		pass(200 * time.Millisecond)
		w.heard("desk: + ~ -dan of 3")
		pass(time.Minute)
		w.heard()
		if who := w.occupants(room); len(who) != 3 || who["bob"] != entered {
			t.Errorf("in the room: %v", who)
		}
		p.hand(shard, p.cores[(slices.Index(p.cores, p.leader(shard))+1)%2])
		pass(time.Minute)
		w.heard("desk: +ann,bob,fay ~ - of 3 all")
	})
}
