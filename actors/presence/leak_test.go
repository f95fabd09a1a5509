package presence

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestInvisibleLeaksNothing compares, byte for byte, what observers receive when a user
// hides and goes on living with what they receive when it really leaves. The first
// script says goodbye, the second hides and then does all it can.
func TestInvisibleLeaksNothing(t *testing.T) {
	really := observe(t, func(w *world, a, b *client) {
		w.disconnect(b, Bye)
		w.disconnect(a, Bye)
		w.drain()
		w.advance(10*time.Minute, true)
	})
	hidden := observe(t, func(w *world, a, b *client) {
		w.disconnect(b, Bye)
		w.act("alice", "phone", func(s string, c Conn) Input { return SetInvisible{s, c, true} })
		w.drain()
		w.advance(time.Minute, true)
		w.activity(a, true)
		w.activity(a, false)
		w.connect(b, "e1")
		w.drain()
		w.gateway(Deliver{Key: Key{testApp, "bob"}, In: NotifyWhen{User: "alice"}})
		w.publish("alice", Publish{ID: w.newID(w.now), Body: `"x"`, ClientID: "m", Sender: "bob"})
		w.drain()
		w.act("alice", "phone", func(s string, c Conn) Input {
			return SetClaim{s, c, Claim{ID: Manual, State: DND, Text: "secret", Activity: "{}", Priority: -1, Durable: true}}
		})
		w.act("alice", "phone", func(s string, c Conn) Input { return EndClaim{s, c, "call"} })
		w.edges["e1"].send(Typing{App: testApp, User: "alice", To: "bob", Kind: "text"})
		w.drain()
		w.advance(time.Minute, true)
		w.disconnect(b, Gone)
		w.drop("alice")
		w.drain()
		w.advance(time.Minute, true)
		w.edges["e1"].cut(w)
		w.edges["e1"].relink(w)
		w.drain()
		w.connect(a, "e1")
		w.drain()
		w.disconnect(a, Silence)
		w.drain()
		w.advance(7*time.Minute, true)
		for _, l := range w.letters {
			if l.to == "bob" {
				t.Errorf("bob hears of alice: %+v", l.what)
			}
		}
		if n := len(w.stored("bob")); n > 0 {
			t.Errorf("bob has %d rows", n)
		}
	})
	if really != hidden {
		t.Errorf("a goodbye:\n%s\ninvisible:\n%s", really, hidden)
	}
	if !strings.Contains(really, "offline") || strings.Contains(hidden, "secret") {
		t.Errorf("the observers saw something else:\n%s", hidden)
	}
}

// observe plays a life with an end, records each frame to the observers' edge with its
// time, and asks once more after it.
func observe(t *testing.T, end func(w *world, a, b *client)) string {
	var b strings.Builder
	w := newWorld(DefaultConfig())
	w.fail = func(format string, args ...any) { t.Errorf(format, args...) }
	w.bug.edge = func(w *world, m ToEdge) (ToEdge, bool) {
		if _, inner := m.Message.(*AnnounceAgain); m.Edge.Name == "e2" && !inner { // edges only
			fmt.Fprintf(&b, "%d %s\n", w.now.UnixMilli(), encodeMessage(m.Message))
		}
		return m, true
	}
	w.open()
	w.start("e1")
	w.start("e2")
	w.gateway(Deliver{Key: Key{testApp, "alice"}, In: Import{Rows: []RelationRow{{"bob", RelationFrom}}}})
	w.watch("bob", "e2", "alice")
	w.watch("cid", "e2", "alice")
	phone, laptop := w.client("alice", "phone"), w.client("alice", "laptop")
	phone.box = &inbox{}
	w.connect(phone, "e1")
	w.connect(laptop, "e1")
	w.drain()
	for _, c := range []Claim{
		{ID: Manual, Text: "hi", Priority: -1, TTL: 5 * time.Minute, Durable: true},
		{ID: "call", Source: "call", State: DND, Text: "ringing", Priority: -1, Durable: true},
		{ID: "game", Source: "game", Activity: "{}", Priority: 99},
	} {
		w.act("alice", "phone", func(s string, conn Conn) Input { return SetClaim{s, conn, c} })
	}
	w.drain()
	w.advance(61*time.Second, true)
	w.activity(phone, false)
	w.drain()
	end(w, phone, laptop)
	w.watch("dee", "e2", "alice")
	w.edges["e2"].send(Query{Call: 7, Edge: w.edges["e2"].id(), App: testApp, Watcher: Watcher{User: "bob"}, Users: []string{"alice"}})
	w.drain()
	for _, r := range w.gw.Online(testApp, "", "", 10) {
		fmt.Fprintf(&b, "list %s\n", r.User)
	}
	c := w.gw.Counts(testApp)
	fmt.Fprintf(&b, "%d %d %d\n", c.Online, c.Away, c.DND)
	return b.String()
}

// encodeMessage is the deterministic encoding of what an edge receives.
func encodeMessage(m Message) string {
	var b strings.Builder
	views := func(vs []MaskedView) {
		for _, v := range vs {
			fmt.Fprintf(&b, " [%d %s %s]", v.Mask, v.View.encode(), v.View.State)
		}
	}
	switch m := m.(type) {
	case *Views:
		fmt.Fprintf(&b, "views %d %s", m.Call, m.Watcher)
		for _, r := range m.Rows {
			fmt.Fprintf(&b, " [%s %d %d %v", r.User, r.Mask, r.Version, r.Pending)
			if r.View != nil {
				b.WriteString(" " + r.View.encode())
			}
			b.WriteString("]")
		}
	case *Change:
		fmt.Fprintf(&b, "change %s %d", m.User, m.Version)
		views(m.Views)
	case *Remask:
		fmt.Fprintf(&b, "remask %s %d %v %v", m.User, m.Version, m.Watchers, m.Masks)
		views(m.Views)
	default:
		fmt.Fprintf(&b, "%T %+v", m, m)
	}
	return b.String()
}
