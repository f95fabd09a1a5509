package actors

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

func (e *testEdge) code(call uint64) link.Code {
	e.t.Helper()
	synctest.Wait()
	d := e.answer(call)
	if d == nil {
		e.t.Fatalf("call %d has no answer", call)
	}
	switch b := d.Body.(type) {
	case *link.Down_Attached:
		return b.Attached.Code
	case *link.Down_Acted:
		return b.Acted.Code
	case *link.Down_Answer:
		return b.Answer.Code
	}
	e.t.Fatalf("call %d: %v", call, d)
	return 0
}

func (e *testEdge) open(call uint64) bool {
	synctest.Wait()
	return e.answer(call) == nil
}

// setClaim sets a claim that belongs to the user.
func (e *testEdge) setClaim(user, id, text string, ttl time.Duration) uint64 {
	return e.act(user, &link.Act{What: &link.Act_Claim{Claim: &link.Claim{Id: id, Source: "api", Text: text, Priority: -1,
		State: uint32(presence.DND), TtlMs: ttl.Milliseconds(), Durable: true}}})
}

// What was acknowledged is there after a restart: nothing else is known then.
func TestRestart(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann", "bob")
		e.attach("ann", "a1", 1)
		for i, text := range []string{"first", "second"} {
			if code := e.code(e.setClaim("ann", fmt.Sprint("c", i), text, 0)); code != link.Code_OK {
				t.Fatal(code)
			}
		}
		e.code(e.act("bob", &link.Act{What: &link.Act_Invisible{Invisible: true}}))
		w.saw("wendy>ann: online", "wendy>ann: dnd first", "wendy>ann: dnd second")
		e.detach("ann", "a1", 1, link.Cause_BYE)
		w.saw("wendy>ann: offline second")
		pass(10 * time.Minute)
		if n := c.node.Stats().Users.Load(); n != 0 {
			t.Fatalf("%d resident", n)
		}
		before := c.node.Stats().Loads.Load()
		for shard := range uint32(link.Shards) {
			d.lose(shard, true)
		}
		pass(5 * time.Second)
		w.saw()
		if c.node.Stats().Loads.Load() == before {
			t.Fatal("nobody was loaded")
		}
		e.attach("bob", "b1", 2)
		e.attach("ann", "a2", 3)
		w.saw("wendy>ann: dnd second")
	})
}

// Nothing of a step leaves before its records are committed, nothing of the steps after it
// overtakes it, and nobody else waits.
func TestGate(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann", "bob")
		e.attach("ann", "a1", 1)
		e.attach("bob", "b1", 2)
		w.saw("wendy>ann: online", "wendy>bob: online")
		d.hold(true)
		claim := e.setClaim("ann", "c", "kept", 0)
		soft := e.status("ann", "a1", 1, presence.Away, "soft")
		explain := e.ask(shardOf("ann"), &link.Ask{What: &link.Ask_Explain{Explain: &link.Explain{User: "ann"}}})
		kick := e.act("ann", &link.Act{What: &link.Act_Kick{Kick: &link.Kick{Session: "a1"}}})
		pass(10 * time.Second)
		for what, call := range map[string]uint64{"claim": claim, "soft": soft, "explain": explain, "kick": kick} {
			if !e.open(call) {
				t.Errorf("%s was answered before the commit", what)
			}
		}
		e.heard()
		e.status("bob", "b1", 2, presence.Away, "free")
		w.saw("wendy>bob: away free")
		if n := c.node.Stats().Gated.Load(); n != 4 {
			t.Errorf("%d steps wait", n)
		}
		d.hold(false)
		if code := e.code(claim); code != link.Code_OK {
			t.Error(code)
		}
		w.saw("wendy>ann: dnd kept", "wendy>ann: away soft", "wendy>ann: offline kept")
		e.heard("close ann/1 4505")
		if e.open(soft) || e.open(explain) || e.open(kick) || c.node.Stats().Gated.Load() != 0 {
			t.Error("something waits still")
		}
		pass(3 * time.Second)
		for _, g := range c.node.gateways {
			if len(g.gates)+len(g.flights)+len(g.fresh)+len(g.lazy) != 0 {
				t.Errorf("shard %d keeps %d gates, %d flights", g.shard, len(g.gates), len(g.flights))
			}
		}
	})
}

// A shard that closes answers what waits with UNKNOWN_OUTCOME and what comes with MOVING;
// nothing of what was not committed is ever seen.
func TestLostTerm(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		pass(3 * time.Second)
		d.hold(true)
		call := e.setClaim("ann", "c", "lost", 0)
		synctest.Wait()
		d.lose(shardOf("ann"), false)
		if code := e.code(call); code != link.Code_UNKNOWN_OUTCOME {
			t.Errorf("what waited: %v", code)
		}
		if code := e.code(e.setClaim("ann", "c", "lost", 0)); code != link.Code_MOVING {
			t.Errorf("what came: %v", code)
		}
		if code := e.code(e.attach("ann", "a1", 2)); code != link.Code_MOVING {
			t.Errorf("who came: %v", code)
		}
		if _, _, err := c.node.ReadEvents(shardOf("ann"), 0, 1); err != ErrNotLeader {
			t.Error(err)
		}
		if err := c.node.SetHookCursor(shardOf("ann"), 1, nil); err != ErrNotLeader {
			t.Error(err)
		}
		d.hold(false)
		w.saw()
		d.open(shardOf("ann"))
		pass(5 * time.Second)
		w.saw()
		e.code(e.setClaim("ann", "c", "kept", 0))
		w.saw("wendy>ann: dnd kept")
	})
}

// After a panic the activation is what was proposed, although it is not committed yet, and
// what it emits goes behind that.
func TestPanicInFlight(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		d.hold(true)
		call := e.setClaim("ann", "c", "kept", 0)
		synctest.Wait()
		c.crash("ann")
		e.status("ann", "a1", 1, presence.Away, "lost")
		pass(time.Second)
		if c.node.Stats().Panics.Load() != 1 {
			t.Fatal("no panic")
		}
		w.saw()
		d.hold(false)
		w.saw("wendy>ann: dnd kept")
		if code := e.code(call); code != link.Code_OK {
			t.Error(code)
		}
	})
}

// Without room durable commands are refused and say why, soft presence goes on, and lazy
// records wait. It ends by itself.
func TestNoRoom(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann", "bob")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		e.reads("carl", "c1", 10, 0, 0)
		call := e.publish("carl", clientID(1), `"one"`)
		e.offset(call)
		epoch := e.answer(call).GetActed().Published.Epoch
		e.got(`10: 1 "one"`)
		before := d.count(row.AllOnline())
		d.refuse(fmt.Errorf("disk: %w", ErrNoRoom))
		for i := range 3 {
			for _, user := range []string{"ann", "carl"} { // of different shards
				e.code(e.setClaim(user, "c", "kept", 0))
			}
			call := e.setClaim("ann", "c", "kept", 0)
			if code := e.code(call); code != link.Code_UNAVAILABLE || !strings.Contains(e.answer(call).GetActed().Message, "room") {
				t.Fatalf("%d: %v", i, e.answer(call))
			}
			pass(3 * time.Second)
		}
		e.got(`10: 1 "one"`, `10: 1 "one"`) // again with each announcement: there was no ack
		e.reads("carl", "c1", 11, epoch, 0) // is registered, and reads on
		e.got(`11: 1 "one"`)
		call = e.reads("carl", "c2", 12, 0, 0) // would have to be registered
		e.got()
		if a := e.answer(call).GetAttached(); a.GetCode() != link.Code_OK || a.GetOutbox() != nil {
			t.Fatalf("%v", a)
		}
		e.status("ann", "a1", 1, presence.Away, "soft")
		e.attach("bob", "b1", 2)
		w.saw("wendy>ann: away soft", "wendy>bob: online")
		pass(10 * time.Second)
		if n := d.count(row.AllOnline()); n != before {
			t.Fatalf("%d markers were written without room", n-before)
		}
		d.refuse(nil)
		pass(2 * time.Second)
		if n := d.count(row.AllOnline()); n != 3 {
			t.Fatalf("%d markers", n)
		}
		if code := e.code(e.setClaim("ann", "c", "kept", 0)); code != link.Code_OK {
			t.Fatal(code)
		}
		if s := c.node.Stats(); s.Panics.Load() != 0 || s.Busy.Load() == 0 || s.Refused.Load() == 0 {
			t.Errorf("%d panics, %d busy, %d refused", s.Panics.Load(), s.Busy.Load(), s.Refused.Load())
		}
	})
}

// A flush that the disk had no room for must not make the next one forget that the user has more rows than a profile.
func TestNoRoomKeepsRows(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		if code := e.code(e.setClaim("ann", "c", "kept", 0)); code != link.Code_OK {
			t.Fatal(code)
		}
		w.saw("wendy>ann: dnd kept")
		pass(5 * time.Second)
		d.refuse(ErrNoRoom)
		e.detach("ann", "a1", 1, link.Cause_BYE) // leaves a marker to be written
		w.saw("wendy>ann: offline kept")
		pass(5 * time.Second)
		d.refuse(nil)
		pass(5 * time.Second)
		d.lose(shardOf("ann"), true)
		pass(5 * time.Second)
		e.attach("ann", "a2", 2)
		w.saw("wendy>ann: dnd kept")
	})
}

// What is acknowledged is shown, also when the change after it, for which there was no room, has ended the activation; and
// nothing is shown before it is acknowledged.
func TestNoRoomInFlight(t *testing.T) {
	for _, there := range []bool{true, false} {
		onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
			e, w, was := c.edges[0], c.edges[1], "offline"
			read := func() string { return e.text(e.ask(shardOf("ann"), &link.Ask{What: &link.Ask_User{User: "ann"}})) }
			if there {
				e.attach("ann", "a1", 1)
				was = "dnd"
			}
			e.code(e.setClaim("ann", "c", "zero", 0))
			pass(time.Minute)
			w.watch("wendy", "ann")
			w.saw("wendy>ann: " + was + " zero")
			d.hold(true)
			call := e.setClaim("ann", "c", "one", 0)
			synctest.Wait()
			d.refuse(ErrNoRoom)
			if code := e.code(e.setClaim("ann", "c", "two", 0)); code != link.Code_UNAVAILABLE {
				t.Fatal(code)
			}
			plain := e.ask(shardOf("ann"), &link.Ask{What: &link.Ask_User{User: "ann"}})
			if !e.open(call) || !e.open(plain) {
				t.Fatalf("answers before the commit: %v, %v", e.answer(call), e.answer(plain))
			}
			w.saw()
			d.refuse(nil)
			d.hold(false)
			if code := e.code(call); code != link.Code_OK || read() != "one" {
				t.Fatalf("there %v: %v, then %q is read", there, code, read())
			}
			w.saw("wendy>ann: " + was + " one")
		})
	}
}

// What ends by itself while there is no room keeps no shard busy, and ends when there is room again.
func TestNoRoomToEnd(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		e.attach("ann", "a1", 1)
		if code := e.code(e.setClaim("ann", "c", "kept", 10*time.Minute)); code != link.Code_OK {
			t.Fatal(code)
		}
		w.saw("wendy>ann: online", "wendy>ann: dnd kept")
		d.refuse(ErrNoRoom)
		pass(20 * time.Minute)
		if n := c.node.Stats().Spawned.Load(); n > 200 {
			t.Errorf("%d activations", n)
		}
		d.refuse(nil)
		pass(time.Minute)
		w.saw("wendy>ann: online")
	})
}

// A store that is busy keeps the order: what it did not take goes first when it does.
func TestBusy(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		d.refuse(ErrBusy)
		var calls []uint64
		for i := range maxFlights + 5 {
			calls = append(calls, e.setClaim("ann", fmt.Sprint("c", i%8), fmt.Sprint(i), 0))
		}
		synctest.Wait()
		for i, call := range calls {
			if over := i >= maxFlights; over && e.code(call) != link.Code_BUSY || !over && !e.open(call) {
				t.Fatalf("%d: %v", i, e.answer(call))
			}
		}
		d.refuse(nil)
		pass(2 * time.Second)
		for i, call := range calls[:maxFlights] {
			if code := e.code(call); code != link.Code_OK {
				t.Fatalf("%d: %v", i, code)
			}
		}
	})
}

// The lazy records of all shards go in the same instant, and nobody passivates before.
func TestLazy(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		for i := range 50 {
			e.attach(fmt.Sprint("u", i), fmt.Sprint("s", i), uint64(i+1))
		}
		synctest.Wait()
		if n := d.count(row.AllOnline()); n != 0 || c.node.Stats().Proposals.Load() != 0 {
			t.Fatalf("%d markers at once", n)
		}
		pass(2 * time.Second)
		if n := d.count(row.AllOnline()); n != 50 {
			t.Fatalf("%d markers after 2 s", n)
		}
		for i := range 50 {
			e.detach(fmt.Sprint("u", i), fmt.Sprint("s", i), uint64(i+1), link.Cause_BYE)
		}
		d.hold(true)
		pass(10 * time.Minute)
		if n := c.node.Stats().Users.Load(); n != 50 {
			t.Fatalf("%d are resident although their markers are not durable", n)
		}
		d.hold(false)
		pass(time.Second)
		if n, m := c.node.Stats().Users.Load(), d.count(row.AllOnline()); n != 0 || m != 0 {
			t.Fatalf("%d are resident, %d markers", n, m)
		}
	})
}

// The shard's time is never before what was committed, and makes up for that slowly.
func TestShardTime(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		shard := shardOf("ann")
		ahead := time.Now().Add(time.Minute)
		d.jump(shard, ahead)
		d.lose(shard, true)
		pass(time.Second)
		e.attach("ann", "a1", 1)
		e.code(e.setClaim("ann", "c", "kept", 0))
		g := c.node.gateways[shard]
		if now := g.now(); now.Before(ahead) {
			t.Fatalf("%v, committed was %v", now, ahead)
		}
		pass(100 * time.Minute)
		if off := g.now().Sub(c.node.clock.Now()); off != 0 {
			t.Fatalf("still %v ahead", off)
		}
	})
}

// A row of a newer program, or a damaged one, keeps its user out, and nobody else; it is neither
// dropped nor overwritten.
func TestUnreadableRow(t *testing.T) {
	for what, value := range map[string][]byte{"newer": {200, 1}, "damaged": {1}} {
		t.Run(what, func(t *testing.T) {
			onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
				e, w := c.edges[0], c.edges[1]
				key := row.ProfileKey(presence.Key{App: app, User: "ann"})
				d.put(shardOf("ann"), Write{Key: key, Value: value})
				w.watch("wendy", "ann", "bob")
				if code := e.code(e.attach("ann", "a1", 1)); code != link.Code_BUSY {
					t.Fatal(code)
				}
				e.attach("bob", "b1", 2)
				w.saw("wendy>bob: online")
				pass(2 * time.Minute)
				if v, ok, _ := d.Get(shardOf("ann"), key); !ok || string(v) != string(value) {
					t.Fatalf("the row is %q now", v)
				}
				if s := c.node.Stats(); s.Panics.Load() != 0 || s.Parked.Load() < 2 {
					t.Errorf("%d panics, parked %d times", s.Panics.Load(), s.Parked.Load())
				}
				d.put(shardOf("ann"), Write{Key: key})
				pass(2 * time.Minute)
				w.saw("wendy>ann: online")
			})
		})
	}
}

// A shard whose own rows cannot be read does not open, and says MOVING, until it is opened
// again.
func TestUnreadableShard(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e, shard := c.edges[0], shardOf("ann")
		d.put(shard, Write{Key: row.CountersKey(), Value: []byte{200}})
		d.lose(shard, true)
		if code := e.code(e.setClaim("ann", "c", "no", 0)); code != link.Code_MOVING || c.node.terms[shard].Load() != 0 {
			t.Fatal(code)
		}
		d.put(shard, Write{Key: row.CountersKey()})
		d.lose(shard, true)
		if code := e.code(e.setClaim("ann", "c", "yes", 0)); code != link.Code_OK {
			t.Fatal(code)
		}
	})
}

// The cursor of the webhook is durable when SetHookCursor returns, and not before.
func TestHookCursorWaits(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		d.hold(true)
		done := make(chan error, 2)
		go func() { done <- c.node.SetHookCursor(5, 77, nil) }()
		pass(time.Second)
		if n, err := c.node.HookCursor(5); len(done) != 0 || n != 0 || err != nil {
			t.Fatal("it returned before the commit", n, err)
		}
		d.hold(false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		d.hold(true)
		go func() { done <- c.node.SetHookCursor(5, 78, nil) }()
		synctest.Wait()
		d.lose(5, true)
		if err := <-done; err != ErrNotLeader {
			t.Fatal(err)
		}
		d.hold(false)
		synctest.Wait() // open again
		if n, err := c.node.HookCursor(5); n != 77 || err != nil {
			t.Fatal(n, err)
		}
	})
}

// A planned stop stores what is lazy.
func TestFlush(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		e.reads("ann", "a1", 1, 0, 0)
		synctest.Wait()
		if n := d.count(row.AllOnline()); n != 0 {
			t.Fatalf("%d markers are stored already", n)
		}
		if err := c.node.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := d.count(row.AllOnline()); n != 1 {
			t.Fatalf("%d markers are stored", n)
		}
		d.refuse(ErrNoRoom)
		e.detach("ann", "a1", 1, link.Cause_BYE)
		synctest.Wait()
		if err := c.node.Flush(context.Background()); !errors.Is(err, ErrNoRoom) {
			t.Fatalf("without room: %v", err)
		}
	})
}
