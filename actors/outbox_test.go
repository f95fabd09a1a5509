package actors

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// clientID is a UUIDv7 of now.
func clientID(n int) []byte {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|0x7000)
	id[8] = 0x80
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id[:]
}

func (e *testEdge) publish(user string, id []byte, body string, more ...func(*link.Publish)) uint64 {
	p := &link.Publish{Id: id, ClientId: fmt.Sprintf("%x", id), Body: body}
	for _, f := range more {
		f(p)
	}
	return e.act(user, &link.Act{What: &link.Act_Publish{Publish: p}})
}

// offset of what a publish stored.
func (e *testEdge) offset(call uint64) uint64 {
	e.t.Helper()
	if code := e.code(call); code != link.Code_OK {
		e.t.Fatalf("publish: %v %s", code, e.answer(call).GetActed().GetMessage())
	}
	return e.answer(call).GetActed().GetPublished().GetOffset()
}

// reads attaches a device that reads the outbox from a position on.
func (e *testEdge) reads(user, session string, conn, epoch, offset uint64) uint64 {
	call := e.call()
	at := &link.Attach{App: app, User: user, Device: "d-" + session, Class: uint32(presence.Web), Session: session,
		Resume: true, Conn: conn, Attempt: conn, GraceMs: -1, Outbox: &link.OutboxPosition{Epoch: epoch, Offset: offset}}
	held := proto.Clone(at).(*link.Attach)
	at.Call = call
	e.mu.Lock()
	e.sessions[session] = held
	e.mu.Unlock()
	e.send(&link.Up{Shard: shardOf(user), Body: &link.Up_Attach{Attach: at}})
	return call
}

func (e *testEdge) ack(user, session string, conn, epoch, offset uint64) {
	e.send(&link.Up{Shard: shardOf(user), Body: &link.Up_Ack{Ack: &link.OutboxAck{App: app, User: user, Session: session, Conn: conn, Epoch: epoch, Offset: offset}}})
}

// got takes what conns were delivered since the last time.
func (e *testEdge) got(want ...string) {
	e.t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.boxes, want) {
		e.t.Fatalf("%s got\n  %q, want\n  %q", e.name, e.boxes, want)
	}
	e.boxes = nil
}

func (e *testEdge) outbox(user string) OutboxState {
	e.t.Helper()
	call := e.ask(shardOf(user), &link.Ask{What: &link.Ask_Outbox{Outbox: user}})
	synctest.Wait()
	return decode[OutboxState](e.t, e.answer(call).GetAnswer().GetJson())
}

// An entry is stored before it is acknowledged and delivered after that; the same id is
// the same entry, before and after the commit, passivation, and a new term.
func TestPublish(t *testing.T) {
	var audits []string
	cfg := Config{Audit: func(shard uint32, term, index uint64, id string) {
		audits = append(audits, fmt.Sprint(term, " ", index, " ", id[len(id)-1:]))
	}}
	onDisk(t, 2, cfg, func(c *cluster, d *disk) {
		e := c.edges[0]
		e.reads("ann", "a1", 1, 0, 0)
		e.got()
		d.hold(true)
		id := clientID(1)
		first := e.publish("ann", id, `"one"`)
		again := e.publish("ann", id, `"one"`)
		other := e.publish("ann", id, `"two"`)
		pass(time.Second)
		if !e.open(first) || !e.open(again) || !e.open(other) || len(audits) != 0 {
			t.Fatal("acknowledged before the commit")
		}
		e.got()
		d.hold(false)
		if o := e.offset(first); o != 1 || e.offset(again) != 1 || !e.answer(again).GetActed().Published.Duplicate || e.code(other) != link.Code_ID_REUSED {
			t.Fatalf("offset %d; %v; %v", o, e.answer(again), e.answer(other))
		}
		e.got(`1: 1 "one"`)
		epoch := e.answer(first).GetActed().Published.Epoch
		if len(audits) != 1 || audits[0] != "1 2 1" { // the device was registered at index 1
			t.Errorf("audit %q", audits)
		}
		e.detach("ann", "a1", 1, link.Cause_BYE)
		for range 3 {
			pass(5 * time.Minute)
			if n := c.node.Stats().Users.Load(); n != 0 {
				t.Fatalf("%d resident", n)
			}
			if o := e.offset(e.publish("ann", id, `"one"`)); o != 1 {
				t.Fatalf("again: offset %d", o)
			}
			d.lose(shardOf("ann"), true)
			pass(time.Second)
		}
		if o := e.offset(e.publish("ann", clientID(2), `"two"`)); o != 2 {
			t.Fatalf("offset %d", o)
		}
		call := e.reads("ann", "a1", 2, epoch, 0)
		e.got(`2: 1 "one"`, `2: 2 "two"`)
		if e.answer(call).GetAttached().Outbox.GetHead() != 2 {
			t.Errorf("%v", e.answer(call))
		}
		e.ack("ann", "a1", 2, epoch, 2)
		pass(3 * time.Second)
		if n := d.count(row.Entries(presence.Key{App: app, User: "ann"}, 0, 9)); n != 0 {
			t.Errorf("%d entries are stored that all have acked", n)
		}
		e.reads("ann", "a1", 3, epoch, 2)
		e.got()
		if n := c.node.Stats().ResumeAhead.Load(); n != 0 {
			t.Errorf("resume ahead: %d", n)
		}
		e.reads("ann", "a1", 4, epoch, 77)
		e.got("4: reset")
		if n := c.node.Stats().ResumeAhead.Load(); n != 1 {
			t.Errorf("resume ahead is not counted: %d", n)
		}
	})
}

// A large outbox comes in messages of bounded size, in order, what is gone as a gap.
func TestDeliverLarge(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		body := `"` + strings.Repeat("x", 9000) + `"`
		for i := range 20 {
			ttl := int64(0)
			if i%5 == 2 {
				ttl = 20_000
			}
			e.offset(e.publish("ann", clientID(i), body, func(p *link.Publish) { p.TtlMs = ttl }))
		}
		pass(2 * time.Minute) // some expire
		e.reads("ann", "a1", 1, 0, 0)
		synctest.Wait()
		e.mu.Lock()
		var got, want []string
		for _, s := range e.boxes {
			got = append(got, strings.SplitN(s, ` "`, 2)[0])
		}
		n := e.batches
		e.mu.Unlock()
		for i := range 20 {
			if i%5 == 2 {
				want = append(want, fmt.Sprintf("1: gap %d–%d %d", i+1, i+1, presence.GapExpired))
			} else {
				want = append(want, fmt.Sprintf("1: %d", i+1))
			}
		}
		if !slices.Equal(got, want) || n < 6 {
			t.Fatalf("%d batches\n%q\n%q", n, got, want)
		}
	})
}

// Blocks, contacts and notify_when go from shard to shard, whatever is lost on the way.
func TestTransfers(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("bob", "ann")
		e.attach("ann", "a1", 1)
		w.attach("bob", "b1", 2)
		w.saw("bob>ann: online")
		block := func(on bool) uint64 {
			r := &link.Relations{Block: []string{"bob"}}
			if !on {
				r = &link.Relations{Unblock: []string{"bob"}}
			}
			return e.act("ann", &link.Act{What: &link.Act_Relations{Relations: r}})
		}
		e.code(block(true))
		w.saw("bob>ann: offline")
		e.watch("ann", "bob")
		e.saw()
		if n := c.node.Stats().Transfers.Load(); n != 0 {
			t.Fatalf("%d transfers are open", n)
		}

		// The target is closed: the transfers wait, and come in order.
		d.lose(shardOf("bob"), false)
		e.code(block(false))
		e.code(block(true))
		e.code(block(false))
		pass(30 * time.Second)
		if n := c.node.Stats().Transfers.Load(); n != 3 {
			t.Fatalf("%d transfers are open", n)
		}
		d.lose(shardOf("ann"), true) // the source begins anew: it finds them
		d.open(shardOf("bob"))
		pass(2 * time.Minute)
		if n := c.node.Stats().Transfers.Load(); n != 0 {
			t.Fatalf("%d transfers are open", n)
		}
		call := e.ask(shardOf("bob"), &link.Ask{What: &link.Ask_Contacts{Contacts: &link.ContactsPage{User: "bob", Limit: 10}}})
		synctest.Wait()
		if rows := e.answer(call).GetAnswer().GetContacts(); len(rows) != 0 {
			t.Fatalf("bob's relations: %v", rows)
		}
		if n := d.count(row.Transfers()); n != 0 {
			t.Errorf("%d transfers are stored", n)
		}
		pass(5 * time.Minute)
		e.code(block(true)) // tells how far the source is
		pass(5 * time.Minute)
		if n := d.count(row.TakenBelow(63, 1<<60, 0)); n > 1 {
			t.Errorf("%d outcomes are stored", n)
		}
	})
}

// A transfer that comes again, whenever, is taken once.
func TestTransferTwice(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		send := func(seq, floor uint64, stanza presence.ContactStanza) {
			c.node.Routed(&link.Up{Shard: shardOf("bob"), Body: &link.Up_Transfer{Transfer: &link.Transfer{Source: 3, Seq: seq, Floor: floor, App: app, User: "bob",
				From: "ann", At: time.Now().UnixMilli(), Serial: 1, What: &link.Transfer_Contact{Contact: uint32(stanza)}}}})
			pass(3 * time.Minute)
		}
		relations := func() string {
			call := c.edges[0].ask(shardOf("bob"), &link.Ask{What: &link.Ask_Contacts{Contacts: &link.ContactsPage{User: "bob", Limit: 10}}})
			synctest.Wait()
			var all []string
			for _, r := range c.edges[0].answer(call).GetAnswer().GetContacts() {
				all = append(all, r.User+relation(r))
			}
			return strings.Join(all, " ")
		}
		send(1, 1, presence.StanzaSubscribe)
		if r := relations(); r != "ann+in" {
			t.Fatal(r)
		}
		send(2, 2, presence.StanzaUnsubscribe)
		before := c.node.Stats().Proposals.Load()
		send(1, 1, presence.StanzaSubscribe)
		if r := relations(); r != "" {
			t.Fatalf("taken again: %s", r)
		}
		send(9, 9, presence.StanzaUnsubscribe)
		d.lose(shardOf("bob"), true)
		pass(time.Minute)
		send(1, 1, presence.StanzaSubscribe)
		if r := relations(); r != "" {
			t.Fatalf("taken again below the floor: %s", r)
		}
		if c.node.Stats().Proposals.Load() == before {
			t.Error("no floor was written")
		}
	})
}

// What ends by itself ends although nobody is resident, and only then.
func TestExpiry(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		e.code(e.setClaim("ann", "c", "short", time.Minute))
		e.offset(e.publish("ann", clientID(1), `1`, func(p *link.Publish) { p.TtlMs = 600_000 }))
		pass(30 * time.Second)
		if c.node.Stats().Users.Load() != 0 {
			t.Fatal("resident")
		}
		rows := func() int { return d.count(row.User(presence.Key{App: app, User: "ann"})) }
		before := rows()
		pass(2 * time.Minute)
		if n := rows(); n != before-1 {
			t.Fatalf("%d rows after the claim, %d before", n, before)
		}
		pass(10 * time.Minute)
		if s := e.outbox("ann"); s.Entries != 0 || s.Head != 1 {
			t.Fatalf("%+v", s)
		}
		if n := d.count(row.ExpiredBy(1 << 60)); n != 0 {
			t.Fatalf("%d expiry rows", n)
		}
	})
}

// Who was erased has no row left, and is nobody's contact.
func TestErase(t *testing.T) {
	pc := presence.DefaultConfig()
	onDisk(t, 2, Config{Presence: &pc}, func(c *cluster, d *disk) {
		e := c.edges[0]
		e.reads("ann", "a1", 1, 0, 0)
		e.code(e.setClaim("ann", "c", "text", time.Hour))
		e.offset(e.publish("ann", clientID(1), `"body"`, func(p *link.Publish) { p.Sender = "" }))
		for _, who := range [][2]string{{"ann", "bob"}, {"bob", "ann"}} {
			e.code(e.act(who[0], &link.Act{What: &link.Act_Contact{Contact: &link.ContactAct{User: who[1], Action: uint32(presence.Subscribe)}}}))
		}
		pass(10 * time.Second)
		e.code(e.act("ann", &link.Act{What: &link.Act_Erase{Erase: true}}))
		e.mu.Lock()
		delete(e.sessions, "a1")
		e.mu.Unlock()
		pass(5 * time.Minute)
		for shard := range d.shards {
			_ = d.Scan(uint32(shard), []byte{0}, []byte{0xff}, func(k, v []byte) bool {
				if strings.Contains(string(k), "ann") || strings.Contains(string(v), "ann") {
					t.Errorf("left: %q: %q", k, v)
				}
				return true
			})
		}
		call := e.ask(shardOf("bob"), &link.Ask{What: &link.Ask_Contacts{Contacts: &link.ContactsPage{User: "bob", Limit: 10}}})
		synctest.Wait()
		if rows := e.answer(call).GetAnswer().GetContacts(); len(rows) != 0 {
			t.Errorf("bob's contacts: %v", rows)
		}
	})
}

// Events are written with the marker, in order, readable from any position, and pushed to
// who waits.
func TestEvents(t *testing.T) {
	pc := presence.DefaultConfig()
	pc.Events = true
	heard := 0
	onDisk(t, 1, Config{Presence: &pc, EventsKept: time.Hour, OnEvents: func(uint32) { heard++ }}, func(c *cluster, d *disk) {
		e, shard := c.edges[0], shardOf("ann")
		ask := func(after uint64, wait bool) uint64 {
			return e.ask(shard, &link.Ask{What: &link.Ask_Events{Events: &link.EventsPage{After: after, Limit: 10, Wait: wait}}})
		}
		waits, tired := ask(0, true), ask(100, true)
		e.attach("ann", "a1", 1)
		if !e.open(waits) {
			t.Fatal("an event before its commit")
		}
		pass(2 * time.Second)
		a := e.answer(waits).GetAnswer()
		if len(a.GetEvents()) != 1 || a.Events[0].Type != "user.online" || a.Events[0].User != "ann" || a.Events[0].Seq != 1 || a.First != 1 || a.Last != 1 || heard != 1 {
			t.Fatalf("%v, heard %d", a, heard)
		}
		e.detach("ann", "a1", 1, link.Cause_BYE)
		pass(2 * time.Second)
		pass(30 * time.Second)
		if e.open(tired) {
			t.Fatal("a long poll never ends")
		}
		d.lose(shard, true)
		pass(time.Second)
		events, first, err := c.node.ReadEvents(shard, 1, 10)
		if err != nil || first != 1 || len(events) != 1 || events[0].Type != "user.offline" || events[0].Seq != 2 {
			t.Fatalf("%v, %d, %v", events, first, err)
		}
		if n, err := c.node.HookCursor(shard); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if err := c.node.SetHookCursor(shard, 2, events); err != nil {
			t.Fatal(err)
		}
		if n, err := c.node.HookCursor(shard); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		letters := e.ask(shard, &link.Ask{What: &link.Ask_Letters{Letters: &link.LettersPage{Limit: 10}}})
		synctest.Wait()
		if l := e.answer(letters).GetAnswer().GetEvents(); len(l) != 1 || l[0].Seq != 2 {
			t.Fatalf("%v", l)
		}
		pass(2 * time.Hour)
		if events, first, err = c.node.ReadEvents(shard, 0, 10); len(events) != 0 || first != 0 || err != nil {
			t.Fatalf("after their time: %v, %d, %v", events, first, err)
		}
		e.attach("ann", "a1", 2)
		pass(2 * time.Second)
		if events, first, _ = c.node.ReadEvents(shard, 0, 10); len(events) != 1 || events[0].Seq != 3 || first != 3 {
			t.Fatalf("%v, %d", events, first)
		}
	})
}

// An application's own graph decides who is a contact.
func TestGraph(t *testing.T) {
	pc := presence.DefaultConfig()
	audience, err := presence.NewAudience(presence.FieldRule{Field: presence.FieldState, Rule: presence.Contacts})
	if err != nil {
		t.Fatal(err)
	}
	pc.Audience = audience
	friends, asked := []string{"wendy"}, 0
	cfg := Config{Presence: &pc, Graph: func(a string, users []string, done func(map[string][]string, error)) {
		asked++
		answer := map[string][]string{}
		for _, u := range users {
			answer[u] = slices.Clone(friends)
		}
		go done(answer, nil)
	}}
	onDisk(t, 2, cfg, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		w.watch("wendy", "ann")
		w.watch("eve", "ann")
		e.attach("ann", "a1", 1)
		w.saw("wendy>ann: online")
		friends = []string{"eve"}
		e.status("ann", "a1", 1, presence.DND, "")
		w.saw("wendy>ann: dnd")
		e.code(e.act("ann", &link.Act{What: &link.Act_Regraph{Regraph: true}}))
		w.saw("wendy>ann: offline", "eve>ann: dnd")
		if asked < 2 || asked > 4 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// Contacts shake hands across shards; both sides' edges are told, and notify_when comes
// through the outbox of who asked.
func TestContactsAndNotify(t *testing.T) {
	onDisk(t, 2, Config{}, func(c *cluster, d *disk) {
		e, w := c.edges[0], c.edges[1]
		contact := func(user, other string, action presence.ContactAction) string {
			call := e.act(user, &link.Act{What: &link.Act_Contact{Contact: &link.ContactAct{User: other, Action: uint32(action)}}})
			if code := e.code(call); code != link.Code_OK {
				t.Fatal(code)
			}
			return relation(e.answer(call).GetActed().GetContact())
		}
		e.reads("ann", "a1", 1, 0, 0)
		w.attach("bob", "b1", 2)
		if r := contact("ann", "bob", presence.Subscribe); r != "+out" {
			t.Fatal(r)
		}
		e.heard("contact ann→bob +out")
		w.heard("contact bob→ann +in")
		if r := contact("bob", "ann", presence.Approve); r != "+from" {
			t.Fatal(r)
		}
		e.heard("contact ann→bob +to")
		w.heard("contact bob→ann +from")

		w.detach("bob", "b1", 2, link.Cause_BYE)
		e.code(e.act("ann", &link.Act{What: &link.Act_NotifyWhen{NotifyWhen: &link.NotifyWhen{User: "bob"}}}))
		pass(10 * time.Minute)
		for shard := range uint32(link.Shards) {
			d.lose(shard, true)
		}
		pass(5 * time.Second)
		e.boxes = nil
		w.attach("bob", "b2", 3)
		e.got(`1: 1 {"user":"bob","state":"online"}`)
		if code := e.code(e.act("ann", &link.Act{What: &link.Act_Contact{Contact: &link.ContactAct{User: "ann", Action: 1}}})); code != link.Code_BAD_REQUEST {
			t.Errorf("a contact with oneself: %v", code)
		}
	})
}

// Over 1,024 ids of one sender the oldest goes, and is refused from then on.
func TestOldestID(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		e.reads("ann", "a1", 1, 0, 0)
		synctest.Wait()
		var ids [][]byte
		var epoch uint64
		for i := range 1030 {
			if i == 600 {
				pass(90 * time.Minute) // the ids of two hours
			}
			pass(time.Millisecond)
			id := clientID(i)
			ids = append(ids, id)
			call := e.publish("ann", id, fmt.Sprint(i))
			if o := e.offset(call); o != uint64(i+1) {
				t.Fatalf("%d: offset %d", i, o)
			}
			epoch = e.answer(call).GetActed().Published.Epoch
			e.ack("ann", "a1", 1, epoch, uint64(i+1))
		}
		for i, want := range map[int]link.Code{0: link.Code_ID_EXPIRED, 5: link.Code_ID_EXPIRED, 6: link.Code_OK, 599: link.Code_OK, 1029: link.Code_OK} {
			call := e.publish("ann", ids[i], fmt.Sprint(i))
			if code := e.code(call); code != want || code == link.Code_OK && e.offset(call) != uint64(i+1) {
				t.Errorf("%d: %v", i, e.answer(call))
			}
		}
		shard := shardOf("ann") // opens 27 hours later
		d.jump(shard, time.Now().Add(27*time.Hour))
		d.lose(shard, true)
		pass(70 * time.Second)
		if n := d.count(row.IDsBefore(1 << 60)); n != 0 {
			t.Errorf("%d dedupe rows are stored after their time", n)
		}
		if code := e.code(e.publish("ann", ids[1029], "1029")); code != link.Code_ID_EXPIRED {
			t.Errorf("an id of yesterday: %v", code)
		}
	})
}

// A purge begins a new epoch: who reads is reset, and what was there is gone.
func TestPurge(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		for i := range 3 {
			e.offset(e.publish("ann", clientID(i), fmt.Sprint(i)))
		}
		e.code(e.act("ann", &link.Act{What: &link.Act_Purge{Purge: 7}}))
		pass(5 * time.Second)
		if s := e.outbox("ann"); s.Entries != 0 || s.Epoch != "0000000000000007" {
			t.Fatalf("%+v", s)
		}
		if n := d.count(row.Entries(presence.Key{App: app, User: "ann"}, 0, 99)); n != 0 {
			t.Errorf("%d entries are stored", n)
		}
		call := e.publish("ann", clientID(9), "9")
		if o := e.offset(call); e.answer(call).GetActed().Published.Epoch != 7 {
			t.Errorf("offset %d, %v", o, e.answer(call))
		}
	})
}

// A shard that has lost history gives its streams other epochs: devices begin anew, the
// ids that it still knows are still the same entries.
func TestLostHistory(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		e.reads("ann", "a1", 1, 0, 0)
		id := clientID(1)
		call := e.publish("ann", id, `"one"`)
		e.offset(call)
		epoch := e.answer(call).GetActed().Published.Epoch
		e.got(`1: 1 "one"`)
		e.detach("ann", "a1", 1, link.Cause_BYE)
		pass(3 * time.Second)
		for lost := range uint64(3) {
			d.lost = lost
			d.lose(shardOf("ann"), true)
			pass(5 * time.Second)
			call = e.publish("ann", id, `"one"`)
			if o := e.offset(call); o != 1 || !e.answer(call).GetActed().Published.Duplicate {
				t.Fatalf("lost %d times: %v", lost, e.answer(call))
			}
			now := e.answer(call).GetActed().Published.Epoch
			if (now != epoch) != (lost > 0) || e.outbox("ann").Epoch != fmt.Sprintf("%016x", now) {
				t.Errorf("lost %d times: epoch %x, was %x, and %s", lost, now, epoch, e.outbox("ann").Epoch)
			}
			e.reads("ann", "a1", 2+lost, epoch, 1)
			if epoch = now; lost > 0 {
				e.got(fmt.Sprintf("%d: reset", 2+lost))
			}
			e.detach("ann", "a1", 2+lost, link.Cause_BYE)
			pass(3 * time.Second)
		}
	})
}

// Who was sent a message stays for ten seconds, the next message begins them anew.
func TestLinger(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e := c.edges[0]
		resident := func(want int64) {
			t.Helper()
			synctest.Wait()
			if n := c.node.Stats().Users.Load(); n != want {
				t.Fatalf("%d resident, want %d", n, want)
			}
		}
		e.offset(e.publish("ann", clientID(1), "1"))
		resident(1)
		pass(8 * time.Second)
		e.offset(e.publish("ann", clientID(2), "2"))
		pass(8 * time.Second)
		resident(1)
		pass(4 * time.Second)
		resident(0)
		e.reads("bob", "b1", 1, 0, 0)
		pass(3 * time.Second)
		e.detach("bob", "b1", 1, link.Cause_BYE)
		pass(11 * time.Second)
		resident(0)
	})
	onDisk(t, 1, Config{Linger: -1}, func(c *cluster, d *disk) {
		c.edges[0].offset(c.edges[0].publish("ann", clientID(1), "1"))
		synctest.Wait()
		if n := c.node.Stats().Users.Load(); n != 0 {
			t.Fatalf("%d resident", n)
		}
	})
}
