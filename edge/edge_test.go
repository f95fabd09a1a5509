package edge_test

import (
	"testing"

	"github.com/coder/websocket"

	"muster/clients/wire"
	"muster/edge"
)

const (
	online  = wire.State_STATE_ONLINE
	away    = wire.State_STATE_AWAY
	dnd     = wire.State_STATE_DND
	offline = wire.State_STATE_OFFLINE
)

// The main job: b watches a, a comes, changes its status and leaves; then a ping.
func TestPresenceEndToEnd(t *testing.T) {
	for _, hubs := range []int{1, 4} {
		w := newWorld(t, func(c *edge.Config) { c.Hubs = hubs })
		b := w.dial()
		r := b.connect("b", "a", "c")
		if !r.Done || len(r.Presences) != 0 || r.User != "b" || r.SessionId == "" {
			t.Fatalf("connect: %v", r)
		}
		a := user(w, "a")
		b.sees("a", online)
		a.status("dnd")
		b.sees("a", dnd)
		id := b.send(&wire.Command{Method: &wire.Command_Ping{Ping: &wire.Ping{}}})
		if b.reply(id).GetPing().GetServerAt() == 0 {
			t.Fatal("no pong")
		}
		a.raw(`{"id":9,"bye":{}}`)
		if got := a.closed(); got != websocket.StatusNormalClosure {
			t.Fatalf("bye closed with %v", got)
		}
		p := b.sees("a", offline)
		if p.Reason != wire.LeaveReason_LEAVE_REASON_EXPLICIT {
			t.Fatalf("reason %v", p.Reason)
		}
		// A later watcher finds who is there in the snapshot.
		c := user(w, "c")
		b.sees("c", online)
		id = c.send(&wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Add: []string{"b", "a"}}}})
		snap := c.reply(id).GetWatch()
		if len(snap.GetPresences()) != 1 || snap.Presences[0].User != "b" || !snap.Done {
			t.Fatalf("snapshot %v", snap)
		}
	}
}
