package actors

import (
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
)

// readOf asks for a user, linearizable.
func readOf(user string) *link.Ask {
	return &link.Ask{Linearizable: true, What: &link.Ask_User{User: user}}
}

// queryOf asks for the views of users.
func (e *testEdge) query(users ...string) uint64 {
	q := &link.Query{Call: e.call(), App: app, Users: users, Linearizable: true}
	e.send(&link.Up{Shard: shardOf(users[0]), Body: &link.Up_Query{Query: q}})
	return q.Call
}

func (e *testEdge) text(call uint64) string {
	e.t.Helper()
	e.code(call)
	rows := e.answer(call).GetAnswer().GetRows()
	if len(rows) != 1 {
		e.t.Fatalf("%d rows", len(rows))
	}
	return rows[0].GetView().GetText()
}

// A linearizable read waits for the store's word that the shard is led here still. Without it there is no answer but MOVING.
func TestConfirm(t *testing.T) {
	onDisk(t, 1, Config{}, func(c *cluster, d *disk) {
		e, shard := c.edges[0], shardOf("ann")
		e.attach("ann", "a1", 1)
		e.code(e.setClaim("ann", "c", "kept", 0))
		if text := e.text(e.ask(shard, readOf("ann"))); text != "kept" {
			t.Fatalf("%q", text)
		}
		d.hush(true)
		read, many := e.ask(shard, readOf("ann")), e.query("ann")
		plain := e.ask(shard, &link.Ask{What: &link.Ask_User{User: "ann"}})
		pass(time.Minute)
		if !e.open(read) || !e.open(many) || e.text(plain) != "kept" {
			t.Fatal("an answer without confirmation, or a default read that waits for one")
		}
		asked := d.hush(true)
		if len(asked) != 2 {
			t.Fatalf("the store was asked %d times", len(asked))
		}
		asked[0](nil)
		asked[1](nil)
		synctest.Wait()
		if rows := e.answer(many).GetViews().GetRows(); e.text(read) != "kept" || len(rows) != 1 || rows[0].GetView().GetText() != "kept" {
			t.Fatalf("%v", rows)
		}

		read, many = e.ask(shard, readOf("ann")), e.query("ann")
		synctest.Wait()
		for _, done := range d.hush(true) {
			done(ErrNotLeader)
		}
		e.unconfirmed(read, many)

		for _, reopen := range []bool{false, true} { // what was asked in one term says nothing in the next
			read, many = e.ask(shard, readOf("ann")), e.query("ann")
			synctest.Wait()
			d.lose(shard, reopen)
			for _, done := range d.hush(true) {
				done(nil)
			}
			e.unconfirmed(read, many)
		}

		for range maxConfirming {
			e.ask(shard, readOf("ann"))
		}
		if code := e.code(e.ask(shard, readOf("ann"))); code != link.Code_BUSY {
			t.Fatalf("over the bound: %v", code)
		}
	})
}

func (e *testEdge) unconfirmed(read, many uint64) {
	e.t.Helper()
	if code := e.code(read); code != link.Code_MOVING {
		e.t.Errorf("%v", e.answer(read))
	}
	if rows := e.answer(many).GetViews().GetRows(); len(rows) != 1 || !rows[0].Pending {
		e.t.Errorf("%v", rows)
	}
}

// A leader that does not know yet that another one was elected answers from its memory, but no linearizable read.
func TestStaleLeader(t *testing.T) {
	inParty(t, 2, 2, Config{}, func(p *party) {
		shard := shardOf("ann")
		old, next := p.cores[0], p.cores[1]
		if p.leader(shard) != old {
			old, next = next, old
		}
		behind, ahead := p.edges[0], p.edges[1]
		p.attach(behind, "ann", "a1")
		p.attach(ahead, "ann", "a2")
		behind.code(behind.setClaim("ann", "c", "first", 0))
		behind.pipes[next].Mute(true) // it hears the old leader alone
		next.lead(shard)
		pass(5 * time.Second)
		if code := ahead.code(ahead.setClaim("ann", "c", "second", 0)); code != link.Code_OK {
			t.Fatal(code)
		}
		if text := behind.text(behind.ask(shard, &link.Ask{What: &link.Ask_User{User: "ann"}})); text != "first" {
			t.Fatalf("the old leader says %q: nothing was tested", text)
		}
		if call := behind.ask(shard, readOf("ann")); behind.code(call) != link.Code_MOVING {
			t.Errorf("the old leader answers a linearizable read: %v", behind.answer(call))
		}
		if text := ahead.text(ahead.ask(shard, readOf("ann"))); text != "second" {
			t.Errorf("the new leader says %q", text)
		}
	})
}
