package actors

import (
	"strings"
	"testing"
	"time"

	"testing/synctest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
)

// Two devices, the graces of each cause, and what a watcher on another edge sees.
func TestLifeOfAUser(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		w.saw()
		call := e.attach("ann", "s1", 1)
		w.saw("wendy>ann: online")
		if a := e.answer(call).GetAttached(); a.GetCode() != link.Code_OK || a.GetSession() != "s1" || a.GetSelf() == nil {
			t.Fatalf("attached: %v", a)
		}
		e.attach("ann", "s2", 2)
		e.detach("ann", "s1", 1, link.Cause_BYE)
		w.saw()

		e.status("ann", "s2", 2, presence.DND, "busy")
		w.saw("wendy>ann: dnd busy")
		e.status("ann", "s2", 2, presence.Online, "")
		w.saw("wendy>ann: online")

		e.detach("ann", "s2", 2, link.Cause_SILENCE)
		pass(15*time.Second - time.Millisecond)
		w.saw()
		pass(time.Millisecond)
		w.saw("wendy>ann: offline")

		e.attach("ann", "s2", 3)
		w.saw("wendy>ann: online")
		e.detach("ann", "s2", 3, link.Cause_GONE)
		pass(5 * time.Second)
		w.saw("wendy>ann: offline")

		e.attach("ann", "s2", 4)
		e.detach("ann", "s2", 4, link.Cause_DRAIN)
		w.saw("wendy>ann: online")
		pass(59 * time.Second)
		c.edges[1].attach("ann", "s2", 5)
		pass(time.Minute)
		w.saw()
		c.edges[1].detach("ann", "s2", 5, link.Cause_BYE)
		w.saw("wendy>ann: offline")
	})
}

// The replaced conn is told to close, and can do no more harm.
func TestTakeover(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, f := c.edges[0], c.edges[1]
		f.watch("wendy", "ann")
		e.attach("ann", "s1", 1)
		f.saw("wendy>ann: online")
		f.attach("ann", "s1", 2)
		e.heard("close ann/1 4510")
		e.detach("ann", "s1", 1, link.Cause_BYE)
		f.saw()
	})
}

func TestInvisible(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "s1", 1)
		w.saw("wendy>ann: online")
		call := e.act("ann", &link.Act{Session: "s1", Conn: 1, What: &link.Act_Invisible{Invisible: true}})
		w.saw("wendy>ann: offline")
		if a := e.answer(call).GetActed(); a.GetCode() != link.Code_OK {
			t.Fatalf("acted: %v", a)
		}
		e.detach("ann", "s1", 1, link.Cause_BYE)
		pass(time.Minute)
		w.saw()
	})
}

// A cut link repairs itself by announcements; watchers see nothing, and what changed
// meanwhile arrives.
func TestCutAndRedial(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann", "bob", "cid")
		e.attach("ann", "a1", 1)
		e.attach("bob", "b1", 2)
		w.saw("wendy>ann: online", "wendy>bob: online")

		c.pipes[0].Cut()
		pass(100 * time.Second)
		w.saw()
		e.detach("bob", "b1", 2, link.Cause_BYE) // unheard
		c.pipes[0].Redial()
		pass(14 * time.Second)
		w.saw()
		pass(time.Minute)
		w.saw("wendy>bob: offline")

		c.pipes[1].Cut()
		e.attach("cid", "c1", 3)
		e.status("ann", "a1", 1, presence.DND, "")
		w.saw()
		c.pipes[1].Redial()
		w.saw("wendy>ann: dnd", "wendy>cid: online")
		if n := w.announces; n != 2*link.Shards {
			t.Fatalf("%d announcements", n)
		}
	})
}

// Messages lost in either direction are found at the next beat.
func TestLostMessages(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		c.pipes[0].DropUp(1)
		e.attach("ann", "s1", 1)
		w.saw()
		pass(time.Second)
		w.saw("wendy>ann: online")

		c.pipes[1].DropDown(1)
		e.status("ann", "s1", 1, presence.DND, "")
		w.saw()
		pass(time.Second)
		w.saw("wendy>ann: dnd")
	})
}

// A dead edge: its users have their grace; who comes back elsewhere was never gone.
func TestEdgeDies(t *testing.T) {
	inBubble(t, 3, Config{}, func(c *cluster) {
		e, f, w := c.edges[0], c.edges[1], c.edges[2]
		w.watch("wendy", "ann", "bob")
		e.attach("ann", "a1", 1)
		e.attach("bob", "b1", 2)
		w.saw("wendy>ann: online", "wendy>bob: online")
		c.pipes[0].Close(true)
		f.attach("ann", "a1", 3)
		pass(14 * time.Second)
		w.saw()
		pass(2 * time.Second)
		w.saw("wendy>bob: offline")
	})
}

// An edge whose beats stop is unreachable: nothing is lost, and it is asked to announce
// when it is back. After two minutes it counts as dead.
func TestUnreachable(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		c.pipes[0].Mute(true)
		pass(10 * time.Second)
		if n := c.node.Stats().Unreachable.Load(); n != 1 {
			t.Fatalf("%d leases lapsed", n)
		}
		pass(100 * time.Second)
		c.pipes[0].Mute(false)
		pass(time.Minute)
		w.saw()
		c.pipes[0].Mute(true)
		pass(150 * time.Second)
		w.saw("wendy>ann: offline")
	})
}

// A user without sessions goes once it cannot be resumed any more, and its last seen is
// kept as far as the core keeps it.
func TestPassivation(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		e := c.edges[0]
		e.attach("ann", "s1", 1)
		synctest.Wait()
		if n := c.node.Stats().Users.Load(); n != 1 {
			t.Fatalf("%d users resident", n)
		}
		e.detach("ann", "s1", 1, link.Cause_BYE)
		pass(10 * time.Minute)
		s := c.node.Stats()
		if s.Users.Load() != 0 || s.Passivated.Load() != s.Spawned.Load() {
			t.Fatalf("%d users resident, %d of %d passivated", s.Users.Load(), s.Passivated.Load(), s.Spawned.Load())
		}
		call := e.attach("ann", "s2", 2)
		synctest.Wait()
		if e.answer(call).GetAttached().GetCode() != link.Code_OK {
			t.Fatal("not attached after passivation")
		}
	})
}

// Attach and bye race with passivation: every call is answered, and the last word holds.
func TestPassivationRace(t *testing.T) {
	pc := presence.DefaultConfig()
	pc.Resumable = time.Nanosecond
	inBubble(t, 1, Config{Presence: &pc}, func(c *cluster) {
		e := c.edges[0]
		var calls []uint64
		conn := uint64(0)
		for range 300 {
			for range 3 {
				conn++
				calls = append(calls, e.attach("ann", "s1", conn))
				e.detach("ann", "s1", conn, link.Cause_BYE)
			}
			switch {
			case conn%60 == 0: // a flush, in the middle of what follows
				time.Sleep(2*time.Second - time.Millisecond)
			case conn%2 == 0:
				pass(time.Millisecond)
			}
		}
		calls = append(calls, e.attach("ann", "s1", conn+1))
		pass(time.Second)
		for _, call := range calls {
			if e.answer(call).GetAttached().GetCode() != link.Code_OK {
				t.Fatalf("call %d: %v", call, e.answer(call))
			}
		}
		if n := c.counts(); n["online"] != 1 || n["sessions"] != 1 || n["activations"] != 1 {
			t.Fatalf("counts %v", n)
		}
		if c.node.Stats().Passivated.Load() == 0 {
			t.Fatal("nothing passivated: there was no race")
		}
	})
}

func TestTyping(t *testing.T) {
	inBubble(t, 2, Config{}, func(c *cluster) {
		e, w := c.edges[0], c.edges[1]
		e.attach("ann", "s1", 1)
		w.watch("wendy", "ann")
		w.saw("wendy>ann: online")
		for _, to := range []string{"wendy", "nobody"} {
			e.send(&link.Up{Shard: shardOf("ann"), Body: &link.Up_Typing{Typing: &link.Typing{App: app, User: "ann", Conn: 1, To: to, Kind: "text"}}})
		}
		w.heard("typing ann→wendy")
	})
}

func TestAsk(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		e := c.edges[0]
		e.attach("ann", "s1", 1)
		synctest.Wait()
		shard := shardOf("ann")
		online := e.ask(shard, &link.Ask{What: &link.Ask_Online{Online: &link.OnlinePage{Limit: 10}}})
		user := e.ask(shard, &link.Ask{What: &link.Ask_User{User: "ann"}})
		explain := e.ask(shard, &link.Ask{What: &link.Ask_Explain{Explain: &link.Explain{User: "ann", Watcher: "eve"}}})
		counts := e.ask(shard, &link.Ask{What: &link.Ask_Counts{Counts: true}})
		none := e.ask(shard, &link.Ask{})
		foreign := e.ask((shard+1)%link.Shards, &link.Ask{What: &link.Ask_User{User: "ann"}})
		synctest.Wait()
		if rows := e.answer(online).GetAnswer().GetRows(); len(rows) != 1 || rows[0].User != "ann" {
			t.Errorf("online: %v", rows)
		}
		u := e.answer(user).GetAnswer()
		if s := decode[[]presence.SessionExplained](t, u.GetJson()); len(s) != 1 || s[0].Session != "s1" || len(u.Rows) != 1 || u.Rows[0].View.GetState() != uint32(presence.Online) {
			t.Errorf("user: %v", u)
		}
		x := decode[Explained](t, e.answer(explain).GetAnswer().GetJson())
		if !x.Resident || x.State == nil || len(x.State.Sessions) != 1 || x.Watcher != "eve" || len(x.Sees) == 0 || x.Shard != shard {
			t.Errorf("explain: %+v", x)
		}
		if n := e.answer(counts).GetAnswer().GetCounts(); n["online"] != 1 || len(n) != 3 {
			t.Errorf("counts of the application: %v", n)
		}
		if n := c.counts(); n["sessions"] != 1 || n["activations"] != 1 || n["online"] != 1 {
			t.Errorf("counts: %v", n)
		}
		for _, call := range []uint64{none, foreign} {
			if a := e.answer(call).GetAnswer(); a.GetCode() != link.Code_BAD_REQUEST {
				t.Errorf("bad question: %v", a)
			}
		}
	})
}

// What comes to the wrong shard or says nothing is refused and counted.
func TestWrongShard(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		e := c.edges[0]
		bad := &link.Up{Shard: (shardOf("ann") + 1) % link.Shards, Body: &link.Up_Attach{Attach: &link.Attach{Call: 77, App: app, User: "ann", Session: "s", Conn: 1}}}
		e.send(bad)
		e.send(&link.Up{Shard: link.Shards, Body: bad.Body})
		e.send(&link.Up{})
		long := strings.Repeat("x", 129)
		e.send(&link.Up{Shard: link.ShardOf(app, link.KindUser, long), Body: &link.Up_Attach{Attach: &link.Attach{Call: 78, App: app, User: long}}})
		synctest.Wait()
		for _, call := range []uint64{77, 78} {
			if a := e.answer(call).GetAttached(); a.GetCode() != link.Code_BAD_REQUEST {
				t.Errorf("call %d: %v", call, a)
			}
		}
		if n := c.node.Stats().Malformed.Load(); n != 4 {
			t.Errorf("%d malformed", n)
		}
	})
}

// What a newer build adds to a message is ignored; a message that it alone knows is counted, and refused where a call waits.
func TestMessagesOfANewerBuild(t *testing.T) {
	inBubble(t, 1, Config{}, func(c *cluster) {
		e := c.edges[0]
		shard := shardOf("ann")
		// A field 3000, "of a newer build", in the message, in its body and in what the body asks.
		more := func(m proto.Message) {
			m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 3000, protowire.BytesType), "of a newer build"))
		}
		attach := &link.Attach{Call: 1, App: app, User: "ann", Session: "s", Conn: 1, Attempt: 1, Device: "d"}
		up := &link.Up{Shard: shard, Body: &link.Up_Attach{Attach: attach}}
		more(attach)
		more(up)
		e.send(overTheWire(t, up))
		body := &link.Up{Shard: shard}
		more(body)
		e.send(overTheWire(t, body)) // a body that only it knows
		act, ask := &link.Act{Call: 2, App: app, User: "ann", Session: "s", Conn: 1}, &link.Ask{Call: 3, App: app}
		more(act)
		more(ask)
		e.send(overTheWire(t, &link.Up{Shard: shard, Body: &link.Up_Act{Act: act}}))
		e.send(overTheWire(t, &link.Up{Shard: shard, Body: &link.Up_Ask{Ask: ask}}))
		synctest.Wait()
		if a := e.answer(1).GetAttached(); a == nil || a.Code != link.Code_OK {
			t.Errorf("an attach with a field more: %v", a)
		}
		if a := e.answer(2).GetActed(); a.GetCode() != link.Code_BAD_REQUEST || a.GetMessage() == "" {
			t.Errorf("a command that is not known: %v", a)
		}
		if a := e.answer(3).GetAnswer(); a.GetCode() != link.Code_BAD_REQUEST || a.GetMessage() == "" {
			t.Errorf("a question that is not known: %v", a)
		}
		if n := c.node.Stats().Malformed.Load(); n != 3 {
			t.Errorf("%d counted as not known", n)
		}
		if n := c.counts(); n["sessions"] != 1 {
			t.Errorf("counts: %v", n)
		}
	})
}

// overTheWire is the message as another process gets it.
func overTheWire(t *testing.T, m *link.Up) *link.Up {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := &link.Up{}
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	return got
}
