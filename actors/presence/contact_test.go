package presence

import (
	"fmt"
	"math/rand"
	"testing"
	"time"
)

// TestHandshake plays two users whose requests, answers and withdrawals cross in every
// way; once all has arrived both say the same.
func TestHandshake(t *testing.T) {
	for seed := range int64(2000) {
		r := rand.New(rand.NewSource(seed))
		cfg := DefaultConfig()
		now := time.UnixMilli(1_800_000_000_000)
		users := [2]*User{NewUser(&cfg, time.Time{}), NewUser(&cfg, time.Time{})}
		names := [2]string{"ann", "bob"}
		var queues [2][]Transferred // to each
		var stored [2][]Record
		seq, trace := uint64(0), ""
		step := func(i int, in Input) {
			trace += fmt.Sprintf("%s: %+v\n", names[i], in)
			out := users[i].Step(now, in)
			stored[i] = Fold(stored[i], out.Records...)
			for _, rec := range out.Records {
				if x, ok := rec.(TransferOut); ok {
					queues[1-i] = append(queues[1-i], x.What)
				}
			}
		}
		hear := func(i int) {
			if len(queues[i]) > 0 {
				in := Received{Source: uint32(i), Seq: seq, From: names[1-i], What: queues[i][0]}
				queues[i] = queues[i][1:]
				seq++
				for range 1 + r.Intn(2) {
					step(i, in)
				}
			}
		}
		for range 30 {
			switch i := r.Intn(2); r.Intn(4) {
			case 0, 1:
				step(i, Contact{User: names[1-i], Action: ContactAction(1 + r.Intn(5))})
			case 2:
				hear(i)
			case 3:
				now = now.Add(time.Duration(1+r.Intn(2)) * time.Millisecond)
				if r.Intn(4) == 0 {
					now = now.Add(100 * time.Millisecond) // requests came faster than one in a ms
					users[i] = NewUser(&cfg, time.Time{})
					users[i].Restore(stored[i]...)
				} else if r.Intn(4) == 0 {
					step(i, SetRelations{Block: names[1-i : 2-i], Unblock: nil})
				} else if r.Intn(3) == 0 {
					step(i, SetRelations{Unblock: names[1-i : 2-i]})
				}
			}
		}
		for len(queues[0])+len(queues[1]) > 0 {
			hear(0)
			hear(1)
		}
		a, b := users[0].relations().of("bob").bits, users[1].relations().of("ann").bits
		const one, other = RelationTo | RelationPendingOut | RelationBlocked, RelationFrom | RelationPendingIn | RelationBlockedBy
		mirror := func(r Relation) Relation {
			return r&RelationTo<<1 | r&RelationPendingOut<<1 | r&RelationBlocked<<1
		}
		if mirror(a&one) != b&other || mirror(b&one) != a&other {
			t.Fatalf("seed %d: ann says %v, bob says %v\n%s", seed, a, b, trace)
		}
	}
}

// TestContacts is each rule of the handshake alone: what the user does or hears, from what
// it was, makes what, and tells what.
func TestContacts(t *testing.T) {
	const (
		to, from, out, in, pre = RelationTo, RelationFrom, RelationPendingOut, RelationPendingIn, RelationApproved
	)
	for _, tt := range []struct {
		do   ContactAction
		hear ContactStanza
		was  Relation
		want Relation
		tell ContactStanza
	}{
		{Subscribe, 0, 0, out, StanzaSubscribe},
		{Subscribe, 0, to, to, 0},
		{Subscribe, 0, from | in, from | in | out, StanzaSubscribe},
		{Approve, 0, in, from, StanzaSubscribed},
		{Approve, 0, 0, pre, 0},
		{Approve, 0, from | to, from | to, 0},
		{Deny, 0, in, 0, StanzaUnsubscribed},
		{Deny, 0, from | to, to, StanzaUnsubscribed},
		{Deny, 0, pre | to, to, 0},
		{Deny, 0, 0, 0, 0},
		{Unsubscribe, 0, to | from, from, StanzaUnsubscribe},
		{Unsubscribe, 0, out, 0, StanzaUnsubscribe},
		{Unsubscribe, 0, from, from, 0},
		{Remove, 0, pre | in, 0, StanzaUnsubscribed},
		{0, StanzaSubscribe, 0, in, 0},
		{0, StanzaSubscribe, pre, from, StanzaSubscribed},
		{0, StanzaSubscribe, from, from, StanzaSubscribed},
		{0, StanzaSubscribe, RelationBlocked | pre, RelationBlocked | pre | in, 0},
		{0, StanzaSubscribed, out, to, 0},
		{0, StanzaSubscribed, 0, 0, 0},
		{0, StanzaUnsubscribe, from | to, to, 0},
		{0, StanzaUnsubscribe, in, 0, 0},
		{0, StanzaUnsubscribed, to | from, from, 0},
		{0, StanzaUnsubscribed, out, 0, 0},
	} {
		cfg := DefaultConfig()
		u := NewUser(&cfg, time.Time{})
		u.Restore(RelationSet{Other: "bob", Relation: tt.was, Asked: 5, Heard: 5})
		step := Input(Contact{User: "bob", Action: tt.do})
		if tt.hear != 0 {
			serial := uint64(5)
			if tt.hear == StanzaSubscribe {
				serial = 6
			}
			step = Received{From: "bob", What: Handshake{tt.hear, serial}}
		}
		o := u.Step(noon, step)
		var told ContactStanza
		for _, r := range o.Records {
			if x, ok := r.(TransferOut); ok {
				told = x.What.(Handshake).Stanza
			}
		}
		if got := u.relations().of("bob").bits; got != tt.want || told != tt.tell {
			t.Errorf("%+v: %v and tells %d", tt, got, told)
		}
		if was := tt.was.Shown(); was != tt.want.Shown() && (len(o.Contacts) != 1 || o.Publish == nil) {
			t.Errorf("%+v: the user's edges hear %v", tt, o.Contacts)
		}
	}
}

// TestRequestsAreBounded: a flood of requests keeps out others, not those before it.
func TestRequestsAreBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Relations = 3
	u := NewUser(&cfg, time.Time{})
	for i := range maxRequests + 5 {
		r := u.Step(noon, Received{Seq: uint64(i), From: fmt.Sprint("u", i), What: Handshake{StanzaSubscribe, 1}}).Reply
		if full := i >= maxRequests; full != (r.Code == Limit) {
			t.Fatalf("request %d: %+v", i, r)
		}
	}
	for i := range 4 {
		r := u.Step(noon, Contact{User: fmt.Sprint("u", i), Action: Approve}).Reply
		if full := i >= 3; full != (r.Code == Limit) {
			t.Fatalf("approval %d: %+v", i, r)
		}
	}
}
