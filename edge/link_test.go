package edge_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge"
)

// A link that is cut and dialled again is repaired by announcements: nobody flaps, nothing is lost.
func TestLinkIsRepaired(t *testing.T) {
	for _, hubs := range []int{1, 4} {
		inBubble(t, func(t *testing.T, w *world) {
			b := user(w, "b", "a", "c", "d")
			a, c := user(w, "a"), user(w, "c")
			b.seesAll(online, "a", "c")
			time.Sleep(time.Second)
			b.frames()

			w.pipe.Cut()
			synctest.Wait()
			if e := a.reply(a.send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: "dnd"}}})).GetError(); e.GetCode() != uint32(wire.CodeMoving) || !e.Retryable || e.RetryAfterMs == 0 {
				t.Fatalf("status without a link: %v", e)
			}
			r := b.reply(b.send(&wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Add: []string{"e"}}}})).GetWatch()
			if len(r.GetPending()) != 1 || r.Pending[0] != "e" || !r.Done {
				t.Fatalf("watch without a link: %v", r)
			}
			c.raw(`{"bye":{}}`)
			time.Sleep(2 * time.Second)
			w.pipe.Dial()
			// c's goodbye was lost with the link; its absence from the announcement says it.
			b.sees("c", offline)
			for _, f := range b.frames() {
				for _, p := range f.GetPush().GetPresence() {
					if p.User == "a" && p.State != online {
						t.Fatalf("a flapped: %s", asJSON(f))
					}
				}
			}
			a.status("dnd")
			b.sees("a", dnd)
			e := user(w, "e")
			b.sees("e", online)
			e.ws.CloseNow()
		}, func(c *edge.Config) { c.Hubs = hubs })
	}
}

// Lost messages are a gap, and a gap is a new epoch.
func TestLostMessages(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := user(w, "b", "a")
		a := user(w, "a")
		b.sees("a", online)
		time.Sleep(time.Second)
		w.pipe.DropDown(1)
		a.send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: "dnd"}}})
		b.sees("a", dnd)
		time.Sleep(500 * time.Millisecond) // between two beats
		w.pipe.DropUp(1)
		a.send(&wire.Command{Method: &wire.Command_Activity{Activity: &wire.Activity{Away: true}}})
		// The next one shows the gap and goes with it: the client is told to try again.
		e := a.reply(a.send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: "online"}}})).GetError()
		if e.GetCode() != uint32(wire.CodeMoving) {
			t.Fatalf("%v", e)
		}
		time.Sleep(time.Duration(e.GetRetryAfterMs()) * time.Millisecond)
		a.status("online")
		b.sees("a", away)
	})
}

// connect waits for the link for 2 s, then says so and sends the client elsewhere.
func TestConnectWithoutLink(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.pipe.Cut()
		synctest.Wait()
		began := time.Now()
		c := w.dial()
		e := c.reply(c.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "u", DeviceId: "d"}}})).GetError()
		if e.GetCode() != uint32(wire.CodeMoving) || e.RetryAfterMs == 0 || time.Since(began) < 2*time.Second || time.Since(began) > 2100*time.Millisecond {
			t.Fatalf("%v after %v", e, time.Since(began))
		}
		if got := c.closed(); got != websocket.StatusCode(wire.CloseCutOff) {
			t.Fatalf("closed %v", got)
		}
		c = w.dial()
		id := c.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "u", DeviceId: "d", Watch: []string{"x"}}}})
		c.send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: "dnd"}}})
		time.Sleep(time.Second)
		w.pipe.Dial()
		if r := c.reply(id); r.GetConnect() == nil || !r.GetConnect().Done {
			t.Fatalf("connect: %s", asJSON(r))
		}
		if r := c.reply(id + 1); r.GetStatus() == nil {
			t.Fatalf("a command sent before connect was answered: %s", asJSON(r))
		}
	})
}

// Without a core for 10 s clients are sent elsewhere, not all at once.
func TestCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		began := time.Now()
		const n = 20
		var all []*client
		for i := range n {
			all = append(all, user(w, fmt.Sprint("u", i)))
		}
		w.pipe.Cut()
		first, last := time.Duration(0), time.Duration(0)
		for last == 0 && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
			closed := w.edge.Stats().Closes[wire.CloseCutOff]
			if closed > 0 && first == 0 {
				first = time.Since(began)
			}
			if closed == n {
				last = time.Since(began)
			}
		}
		if first < 10*time.Second || last > 20*time.Second || last-first < 2*time.Second {
			t.Fatalf("closed from %v to %v", first, last)
		}
		for _, c := range all {
			if got := c.closed(); got != websocket.StatusCode(wire.CloseCutOff) {
				t.Fatalf("closed %v", got)
			}
		}
	})
}

// A newer socket of a session takes over; nobody else sees it. The old socket is told.
func TestTakeover(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := user(w, "b", "a")
		old := w.dial()
		con := old.connectAs(&wire.Connect{Token: "a", DeviceId: "d", Attempt: 5, Watch: []string{"b"}})
		b.sees("a", online)
		next := w.dial()
		r := next.connectAs(&wire.Connect{Token: "a", DeviceId: "d", SessionId: con.SessionId, Attempt: 6, Watch: []string{"b"}})
		if !r.Resumed || r.SessionId != con.SessionId {
			t.Fatalf("%v", r)
		}
		if got := old.closed(); got != websocket.StatusCode(wire.CloseReplaced) {
			t.Fatalf("closed %v", got)
		}
		late := w.dial()
		e := late.reply(late.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{
			Token: "a", DeviceId: "d", SessionId: con.SessionId, Attempt: 4}}})).GetError()
		if e == nil {
			t.Fatal("an older attempt was let in")
		}
		if got := late.closed(); got != websocket.StatusCode(wire.CloseReplaced) {
			t.Fatalf("closed %v", got)
		}
		time.Sleep(2 * time.Minute)
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("seen: %s", asJSON(l[0]))
		}
		b.status("dnd")
		next.sees("b", dnd)
	})
}

// Two devices of one watcher share rows; each has its own list.
func TestSharedRows(t *testing.T) {
	for _, hubs := range []int{1, 4} {
		inBubble(t, func(t *testing.T, w *world) {
			one, two := w.dial(), w.dial()
			one.connectAs(&wire.Connect{Token: "b", DeviceId: "d1", Watch: []string{"a", "c"}})
			two.connectAs(&wire.Connect{Token: "b", DeviceId: "d2", Watch: []string{"a"}})
			a, c := user(w, "a"), user(w, "c")
			one.seesAll(online, "a", "c")
			two.sees("a", online)
			r := one.reply(one.send(&wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Replace: true, Add: []string{"c"}}}}))
			if p := r.GetWatch().GetPresences(); len(p) != 1 || p[0].User != "c" {
				t.Fatalf("%s", asJSON(r))
			}
			time.Sleep(time.Second)
			one.frames()
			two.frames()
			a.status("dnd")
			c.status("dnd")
			two.sees("a", dnd)
			one.sees("c", dnd)
			for _, f := range append(one.frames(), two.frames()...) {
				if len(f.GetPush().GetPresence()) > 0 {
					t.Fatalf("too much: %s", asJSON(f))
				}
			}
			two.raw(`{"bye":{}}`)
			two.closed()
			synctest.Wait()
			if n := w.edge.Stats().Watches; n != 1 {
				t.Fatalf("%d rows, want 1", n)
			}
			one.raw(`{"bye":{}}`)
			one.closed()
			synctest.Wait()
			if n := w.edge.Stats().Watches; n != 0 {
				t.Fatalf("%d rows left", n)
			}
		}, func(c *edge.Config) { c.Hubs = hubs })
	}
}

// Going invisible looks like leaving, and what happens behind it is not seen.
func TestInvisible(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b, a := user(w, "b", "a"), user(w, "a")
		b.sees("a", online)
		a.status("invisible")
		p := b.sees("a", offline)
		if p.Reason != wire.LeaveReason_LEAVE_REASON_EXPLICIT {
			t.Fatalf("%v", p)
		}
		a.raw(`{"bye":{}}`)
		time.Sleep(2 * time.Minute)
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("seen: %s", asJSON(l[0]))
		}
		a = user(w, "a")
		a.status("dnd")
		b.sees("a", dnd)
	})
}

// Who hides a field from everyone stops seeing it of others, and the other way round: the rows are sent again.
func TestReciprocity(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := user(w, "a", "b"), user(w, "b", "a")
		time.Sleep(time.Second)
		up := w.node.Stats().Up.Load()
		r := b.reply(b.send(&wire.Command{Method: &wire.Command_Audience{Audience: &wire.Audience{LastSeen: &wire.Rule{Rule: "nobody"}}}}))
		if r.GetAudience() == nil {
			t.Fatal(asJSON(r))
		}
		synctest.Wait()
		if n := w.node.Stats().Up.Load() - up; n != 2 {
			t.Fatalf("%d messages to the core, want the command and the rows", n)
		}
		a.status("dnd")
		b.sees("a", dnd)
	})
}

func TestRoom(t *testing.T) {
	for _, hubs := range []int{1, 4} {
		inBubble(t, func(t *testing.T, w *world) {
			enter := func(c *client) *wire.RoomEnterReply {
				t.Helper()
				r := c.reply(c.send(&wire.Command{Method: &wire.Command_RoomEnter{RoomEnter: &wire.RoomEnter{Room: "r", Info: `{"n":1}`}}}))
				if r.GetRoomEnter() == nil {
					t.Fatal(asJSON(r))
				}
				return r.GetRoomEnter()
			}
			inRoom := func(c *client, match func(*wire.RoomPush) bool) *wire.RoomPush {
				t.Helper()
				return c.push(func(p *wire.Push) bool { return p.Room != nil && match(p.Room) }).Room
			}
			a, b := user(w, "a"), user(w, "b")
			enter(a)
			if r := enter(b); r.Count != 2 || len(r.Occupants) != 2 {
				t.Fatalf("%v", r)
			}
			inRoom(a, func(p *wire.RoomPush) bool {
				return len(p.Enter) == 1 && p.Enter[0].User == "b" && p.Enter[0].State == online
			})
			b.status("dnd")
			inRoom(a, func(p *wire.RoomPush) bool { return len(p.Update) == 1 && p.Update[0].State == dnd })
			time.Sleep(time.Second)
			a.frames()
			w.pipe.Cut()
			w.pipe.Dial()
			time.Sleep(5 * time.Second)
			for _, f := range a.frames() {
				if p := f.GetPush().GetRoom(); p != nil && len(p.Leave) > 0 {
					t.Fatalf("a lost link emptied the room: %s", asJSON(f))
				}
			}
			b.send(&wire.Command{Method: &wire.Command_Typing{Typing: &wire.Typing{Room: "r"}}})
			a.push(func(p *wire.Push) bool {
				return len(p.Typing) == 1 && p.Typing[0].Room == "r" && p.Typing[0].User == "b"
			})
			b.reply(b.send(&wire.Command{Method: &wire.Command_RoomLeave{RoomLeave: &wire.RoomLeave{Room: "r"}}}))
			inRoom(a, func(p *wire.RoomPush) bool { return len(p.Leave) == 1 && p.Leave[0].User == "b" })
			r := b.reply(b.send(&wire.Command{Method: &wire.Command_RoomWindow{RoomWindow: &wire.RoomWindow{Room: "r"}}}))
			if r.GetRoomWindow().GetCount() != 1 {
				t.Fatal(asJSON(r))
			}
			c := w.dial()
			con := c.connectAs(&wire.Connect{Token: "c", DeviceId: "d", Rooms: []*wire.RoomEnter{{Room: "r"}, {Room: "s"}}})
			if len(con.Rooms) != 2 {
				t.Fatalf("%v", con.Rooms)
			}
			inRoom(a, func(p *wire.RoomPush) bool { return len(p.Enter) == 1 && p.Enter[0].User == "c" })
		}, func(c *edge.Config) { c.Hubs = hubs })
	}
}

// The application ends sessions and tokens through the core.
func TestKickAndRevoke(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b, a := user(w, "b", "a"), user(w, "a")
		b.sees("a", online)
		call := func(a *link.Act) {
			t.Helper()
			a.App = app
			up := &link.Up{Shard: link.ShardOf(app, link.KindUser, a.User), Body: &link.Up_Act{Act: a}}
			if d, err := w.edge.Call(context.Background(), up); err != nil || d.GetActed().GetCode() != link.Code_OK {
				t.Fatalf("%v, %v", d, err)
			}
		}
		call(&link.Act{User: "a", What: &link.Act_Kick{Kick: &link.Kick{Close: uint32(wire.CloseRevoked), Reason: "gone"}}})
		a.push(func(p *wire.Push) bool { return p.SessionRevoked != nil })
		if got := a.closed(); got != websocket.StatusCode(wire.CloseRevoked) {
			t.Fatalf("closed %v", got)
		}
		b.sees("a", offline)

		// A token that a refresh has brought can be revoked.
		a = user(w, "a|jti=one")
		a.reply(a.send(&wire.Command{Method: &wire.Command_Refresh{Refresh: &wire.Refresh{Token: "a|jti=two"}}}))
		call(&link.Act{User: "a", What: &link.Act_Revoke{Revoke: &link.Revoke{Jti: "two", Until: time.Now().Add(time.Hour).Unix()}}})
		if got := a.closed(); got != websocket.StatusCode(wire.CloseRevoked) {
			t.Fatalf("closed %v", got)
		}
	})
}

func TestCallWithoutLink(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.pipe.Cut()
		synctest.Wait()
		ask := func() (*link.Down, error) {
			return w.edge.Call(context.Background(), &link.Up{Shard: 3, Body: &link.Up_Ask{Ask: &link.Ask{App: app, What: &link.Ask_Counts{Counts: true}}}})
		}
		if _, err := ask(); !errors.Is(err, edge.ErrTimeout) && !errors.Is(err, edge.ErrUnreachable) {
			t.Fatalf("%v", err)
		}
		w.pipe.Dial()
		if d, err := ask(); err != nil || d.GetAnswer() == nil {
			t.Fatalf("%v, %v", d, err)
		}
	})
}

// A process that has just begun sends callers elsewhere, at once.
func TestCallBeforeTheFirstLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := edge.New(edge.Config{Node: "n1", Auth: tokens{}, NoPoller: true})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		begin := time.Now()
		_, err = e.Call(t.Context(), &link.Up{Shard: 3, Body: &link.Up_Ask{Ask: &link.Ask{App: app, What: &link.Ask_Counts{Counts: true}}}})
		if took := time.Since(begin); !errors.Is(err, edge.ErrUnreachable) || took > 0 {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// Snapshots larger than a frame come in chunks; only the last is done.
func TestChunks(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var names []string
		for i := range 900 {
			names = append(names, fmt.Sprintf("user-with-a-rather-long-name-%060d", i))
		}
		for _, n := range names[:300] {
			user(w, n)
		}
		b := w.dial()
		id := b.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "b", DeviceId: "d"}}})
		b.reply(id)
		seen, chunks := 0, 0
		id = b.send(&wire.Command{Method: &wire.Command_Query{Query: &wire.Query{Users: names[:500]}}})
		for {
			r := b.reply(id)
			if n := len(asJSON(r)); n > wire.MaxFrame {
				t.Fatalf("a frame of %d bytes", n)
			}
			chunks++
			seen += len(r.GetQuery().GetPresences())
			if r.GetQuery().GetDone() {
				break
			}
		}
		if seen != 300 || chunks < 2 {
			t.Fatalf("%d presences in %d chunks", seen, chunks)
		}
	}, func(c *edge.Config) { c.ConnectRate = edge.Rate{PerSecond: 1e5, Burst: 1e5} })
}
