package edge_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"muster/clients/wire"
	"muster/edge"
)

// inBubble runs a story in virtual time.
func inBubble(t *testing.T, f func(t *testing.T, w *world), change ...func(*edge.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, bubble(t, change...)) })
}

// frames counts what a client was sent until now, and forgets it.
func (c *client) frames() (list []*wire.Reply) {
	synctest.Wait()
	for {
		select {
		case r, ok := <-c.in:
			if !ok {
				return list
			}
			list = append(list, r)
		default:
			return list
		}
	}
}

func TestNoConnect(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		began := time.Now()
		c := w.dial()
		if got := c.closed(); got != websocket.StatusCode(wire.CloseNoConnect) {
			t.Fatalf("closed %v", got)
		}
		if d := time.Since(began); d < 5*time.Second || d > 6*time.Second {
			t.Fatalf("after %v", d)
		}
	})
}

// A client that falls silent is offline for its watchers within 46 s, and not before its grace.
func TestSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := user(w, "b", "a")
		a := user(w, "a")
		b.sees("a", online)
		time.Sleep(3 * time.Minute)
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("heartbeats alone made frames: %v", l)
		}
		a.deaf.Store(true)
		began := time.Now()
		p := b.sees("a", offline)
		if d := time.Since(began); d < 25*time.Second || d > 46*time.Second {
			t.Fatalf("offline after %v", d)
		}
		if p.Reason != wire.LeaveReason_LEAVE_REASON_TIMEOUT {
			t.Fatalf("reason %v", p.Reason)
		}
		if got := a.closed(); got != websocket.StatusCode(wire.CloseNoPong) {
			t.Fatalf("closed %v", got)
		}
	})
}

// The ways to leave and how long they take to show.
func TestCausesOfLeaving(t *testing.T) {
	for _, c := range []struct {
		name   string
		leave  func(*client)
		from   time.Duration
		to     time.Duration
		reason wire.LeaveReason
	}{
		{"bye", func(c *client) { c.raw(`{"bye":{}}`) }, 0, 110 * time.Millisecond, wire.LeaveReason_LEAVE_REASON_EXPLICIT},
		{"close 1000", func(c *client) { go c.ws.Close(1000, "") }, 0, 110 * time.Millisecond, wire.LeaveReason_LEAVE_REASON_EXPLICIT},
		{"close 1001", func(c *client) { go c.ws.Close(1001, "") }, 5 * time.Second, 6 * time.Second, 0},
		{"tcp close", func(c *client) { c.ws.CloseNow() }, 5 * time.Second, 6 * time.Second, 0},
		{"bad frame", func(c *client) { c.raw(`{`) }, 15 * time.Second, 16 * time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				b := user(w, "b", "a")
				a := user(w, "a")
				b.sees("a", online)
				began := time.Now()
				c.leave(a)
				p := b.sees("a", offline)
				if d := time.Since(began); d < c.from || d > c.to {
					t.Errorf("offline after %v, want %v to %v", d, c.from, c.to)
				}
				if c.reason != 0 && p.Reason != c.reason {
					t.Errorf("reason %v", p.Reason)
				}
			})
		})
	}
}

// Five minutes without activity is away; any activity is back at once; a reconnect is no activity.
func TestAwayByInactivity(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := user(w, "b", "a")
		a := w.dial()
		con := a.connectAs(&wire.Connect{Token: "a", DeviceId: "d1"})
		b.sees("a", online)
		began := time.Now()
		time.Sleep(4 * time.Minute)
		a.raw(`{"id":50,"activity":{}}`)
		b.sees("a", away)
		if d := time.Since(began); d < 9*time.Minute || d > 9*time.Minute+2*time.Second {
			t.Fatalf("away after %v", d)
		}
		a.ws.CloseNow()
		a = w.dial()
		a.connectAs(&wire.Connect{Token: "a", DeviceId: "d1", SessionId: con.SessionId, IdleMs: 5 * 60 * 1000})
		time.Sleep(10 * time.Second)
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("a reconnect was seen: %v", l)
		}
		a.raw(`{"id":51,"activity":{}}`)
		began = time.Now()
		b.sees("a", online)
		if d := time.Since(began); d > 10*time.Millisecond {
			t.Fatalf("back after %v", d)
		}
		a.raw(`{"id":52,"activity":{"away":true}}`)
		b.sees("a", away)
	})
}

// Everybody reconnects inside the grace: the watchers are sent nothing.
func TestReconnectIsNotSeen(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const n = 50
		var names []string
		for i := range n {
			names = append(names, fmt.Sprint("u", i))
		}
		b := user(w, "b", names...)
		ids := map[string]string{}
		var conns []*client
		for _, u := range names {
			c := w.dial()
			ids[u] = c.connectAs(&wire.Connect{Token: u, DeviceId: "d", Watch: names}).SessionId
			conns = append(conns, c)
		}
		time.Sleep(time.Second)
		b.frames()
		for _, c := range conns {
			c.ws.CloseNow()
		}
		time.Sleep(4 * time.Second)
		for _, u := range names {
			c := w.dial()
			r := c.connectAs(&wire.Connect{Token: u, DeviceId: "d", SessionId: ids[u], Watch: names})
			if !r.Resumed || len(r.Presences) != n {
				t.Fatalf("%s: resumed %v, %d presences", u, r.Resumed, len(r.Presences))
			}
		}
		time.Sleep(2 * time.Minute)
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("%d frames to the watcher, the first %s", len(l), asJSON(l[0]))
		}
	})
}

// A change goes at once; the same user again within 100 ms waits until they are over, and
// the latest wins.
func TestCoalescing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := user(w, "b", "a", "c")
		a, c := user(w, "a"), user(w, "c")
		b.sees("c", online)
		time.Sleep(time.Second)
		b.frames()

		began := time.Now()
		a.status("dnd")
		b.sees("a", dnd)
		if d := time.Since(began); d > 5*time.Millisecond {
			t.Fatalf("the first change took %v", d)
		}
		a.status("away")
		a.status("dnd")
		a.status("online")
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("sent within 100 ms: %v", l)
		}
		p := b.sees("a", online) // neither away nor dnd come before
		if d := time.Since(began); d < 95*time.Millisecond || d > 120*time.Millisecond {
			t.Fatalf("the last change came after %v", d)
		}
		if len(p.Ver) != 2 {
			t.Fatal("no version")
		}
		// What is pending goes along with another user's change.
		a.status("dnd")
		synctest.Wait()
		began = time.Now()
		c.status("dnd")
		push := b.push(func(p *wire.Push) bool { return len(p.Presence) > 0 })
		if len(push.Presence) != 2 || time.Since(began) > 5*time.Millisecond {
			t.Fatalf("joined: %v after %v", push.Presence, time.Since(began))
		}
	}, func(c *edge.Config) { c.Hubs = 1 }) // a hub joins what it has itself
}

// Users who are not on the screen come in batches of one second; an inactive client gets
// batches of a minute, and at once when it is active again.
func TestBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := user(w, "b", "a", "c")
		a := user(w, "a")
		b.sees("a", online)
		b.reply(b.send(&wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Visible: []string{"c"}, VisibleSet: true}}}))
		time.Sleep(time.Second)
		began := time.Now()
		a.status("dnd")
		b.sees("a", dnd)
		if d := time.Since(began); d < 990*time.Millisecond || d > 1100*time.Millisecond {
			t.Fatalf("off screen: after %v", d)
		}
		b.reply(b.send(&wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Visible: []string{"a"}, VisibleSet: true}}}))
		b.reply(b.send(&wire.Command{Method: &wire.Command_ClientState{ClientState: &wire.ClientState{Inactive: true}}}))
		time.Sleep(time.Second)
		began = time.Now()
		a.status("away")
		b.sees("a", away)
		if d := time.Since(began); d < 59*time.Second || d > 62*time.Second {
			t.Fatalf("inactive: after %v", d)
		}
		a.status("dnd")
		time.Sleep(10 * time.Second)
		if l := b.frames(); len(l) != 0 {
			t.Fatalf("inactive client was sent %v", l)
		}
		b.send(&wire.Command{Method: &wire.Command_ClientState{ClientState: &wire.ClientState{}}})
		began = time.Now()
		b.sees("a", dnd)
		if d := time.Since(began); d > 10*time.Millisecond {
			t.Fatalf("active again: after %v", d)
		}
	})
}

func TestTokenExpiry(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		c := w.dial()
		began := time.Now()
		if r := c.connect("u|exp=1m"); r.ExpAt != uint64(began.Add(time.Minute).UnixMilli()) {
			t.Fatalf("exp_at %d", r.ExpAt)
		}
		time.Sleep(50 * time.Second)
		r := c.reply(c.send(&wire.Command{Method: &wire.Command_Refresh{Refresh: &wire.Refresh{Token: "u|exp=2m"}}}))
		if r.GetRefresh().GetExpAt() != uint64(time.Now().Add(2*time.Minute).UnixMilli()) {
			t.Fatalf("refresh: %s", asJSON(r))
		}
		if got := c.closed(); got != websocket.StatusCode(wire.CloseTokenExpired) {
			t.Fatalf("closed %v", got)
		}
		if d := time.Since(began); d < 170*time.Second || d > 180*time.Second {
			t.Fatalf("after %v", d)
		}
	})
}

// A reader that stays full for 5 s is closed; the others are not held up.
func TestSlowReader(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ws, _, err := websocket.Dial(ctx, "ws://pipe/v1/ws", &websocket.DialOptions{HTTPClient: w.client, Subprotocols: []string{wire.Subprotocol}})
		if err != nil {
			t.Fatal(err)
		}
		defer ws.CloseNow()
		write := func(s string) { ws.Write(ctx, websocket.MessageText, []byte(s)) }
		write(`{"id":1,"connect":{"token":"slow","device_id":"d","watch":["a"]}}`)
		if _, _, err := ws.Read(ctx); err != nil {
			t.Fatal(err)
		}
		b := user(w, "b", "a", "slow")
		a := user(w, "a")
		b.sees("a", online)
		// It asks and does not read.
		for i := range 1100 {
			write(fmt.Sprintf(`{"id":%d,"ping":{}}`, i+2))
		}
		time.Sleep(time.Second)
		began := time.Now()
		a.status("dnd")
		b.sees("a", dnd)
		if d := time.Since(began); d > 10*time.Millisecond {
			t.Fatalf("others were held up for %v", d)
		}
		b.sees("slow", offline)
		if d := time.Since(began); d < 18*time.Second || d > 22*time.Second {
			t.Fatalf("slow reader offline after %v, want 5 s + 15 s less 1 s", d)
		}
		if n := w.edge.Stats().Slow; n != 1 {
			t.Fatalf("%d slow closes", n)
		}
	}, func(c *edge.Config) {
		c.CommandRate, c.UserRate = edge.Rate{PerSecond: 1e5, Burst: 1e5}, edge.Rate{PerSecond: 1e5, Burst: 1e5}
	})
}

// Drain: no new sockets, reconnect pushes over the window, the old sockets stay until the new ones
// have taken over or 8 s after the window, and nobody is seen to leave.
func TestDrain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const n = 20
		var all []*client
		for i := range n {
			all = append(all, user(w, fmt.Sprint("u", i), "b"))
		}
		began := time.Now()
		over := make(chan error)
		go func() { over <- w.edge.Drain(context.Background()) }()
		synctest.Wait()
		if w.edge.Ready() == nil {
			t.Fatal("ready while draining")
		}
		if _, _, err := websocket.Dial(context.Background(), "ws://pipe/v1/ws", &websocket.DialOptions{HTTPClient: w.client}); err == nil {
			t.Fatal("a new socket was accepted")
		}
		told := func() (n int) {
			for _, c := range all {
				for _, r := range c.frames() {
					if p := r.GetPush().GetReconnect(); p != nil && p.Code == uint32(wire.CloseDrain) {
						n++
					}
				}
			}
			return n
		}
		time.Sleep(10 * time.Second)
		if early := told(); early < n/2-1 || early > n/2+1 {
			t.Fatalf("%d of %d reconnect pushes in half of the window", early, n)
		}
		time.Sleep(10*time.Second + 200*time.Millisecond)
		if late := told(); late < n/2-1 {
			t.Fatalf("%d reconnect pushes in the second half", late)
		}
		for _, c := range all {
			if got := c.closed(); got != websocket.StatusCode(wire.CloseDrain) {
				t.Fatalf("closed %v", got)
			}
		}
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d < 20*time.Second || d > 29*time.Second {
			t.Fatalf("drained in %v", d)
		}
	})
}

func TestTyping(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a, b := user(w, "a", "b"), user(w, "b", "a")
		say := func(stop bool) *wire.Reply {
			return a.reply(a.send(&wire.Command{Method: &wire.Command_Typing{Typing: &wire.Typing{User: "b", Stop: stop}}}))
		}
		heard := func() *wire.TypingPush {
			return b.push(func(p *wire.Push) bool { return len(p.Typing) > 0 }).Typing[0]
		}
		if r := say(false); r.GetError() != nil {
			t.Fatal(asJSON(r))
		}
		if p := heard(); p.User != "a" || p.Kind != "text" || p.TtlMs != 6000 || p.Stop {
			t.Fatalf("%v", p)
		}
		if e := say(false).GetError(); e.GetCode() != uint32(wire.CodeRateLimited) || e.RetryAfterMs == 0 {
			t.Fatalf("again at once: %v", e)
		}
		time.Sleep(3 * time.Second)
		say(false)
		heard()
		say(true)
		if p := heard(); !p.Stop {
			t.Fatalf("%v", p)
		}
		say(false)
		heard()
		a.ws.CloseNow()
		if p := heard(); !p.Stop {
			t.Fatalf("after detach: %v", p)
		}
	})
}
