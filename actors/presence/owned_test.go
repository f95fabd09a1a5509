package presence

import (
	"slices"
	"time"
)

// letter is a transfer on its way. Those of one user to another go one after the other.
type letter struct {
	seq      uint64
	from, to string
	what     Transferred
	at       time.Time
	sent     bool
	done     bool
	taker    *actor // who took it
}

// stored are the records of a user that a load finds.
func (w *world) stored(user string) []Record {
	return Fold(slices.Clone(w.records[user]), w.lazy[user]...)
}

// keep makes records durable; lazy ones wait.
func (w *world) keep(user string, records []Record) {
	if slices.ContainsFunc(records, func(r Record) bool { return !Lazy(r) }) {
		w.flush(user)
	}
	for _, r := range records {
		if w.bug.keep != nil && !w.bug.keep(r) {
			continue
		}
		switch t := r.(type) {
		case TransferOut:
			w.letters = append(w.letters, &letter{seq: uint64(len(w.letters)) + 1, from: user, to: t.To, what: t.What, at: w.now})
			continue
		case TransferTaken:
			continue
		case Event:
			w.events = append(w.events, t)
			continue
		case Erased:
			w.lazy[user] = nil
		}
		if Lazy(r) {
			w.lazy[user] = Fold(w.lazy[user], r)
		} else {
			w.records[user] = Fold(w.records[user], r)
		}
	}
	if w.pick(4) == 0 {
		w.flush(user)
	}
}

// flush writes what is lazy.
func (w *world) flush(user string) {
	w.records[user] = slices.DeleteFunc(w.stored(user), func(r Record) bool {
		_, dropped := r.(EntriesDropped)
		return dropped
	})
	w.lazy[user] = nil
}

// crash is one of the shard: of what is lazy some is lost, and what was on its way.
func (w *world) crash() {
	for _, user := range sortedKeys(w.lazy) {
		if w.pick(2) == 0 {
			w.flush(user)
		}
		w.lazy[user] = nil
	}
	for _, l := range w.letters {
		l.sent = l.done
	}
	if w.twice {
		w.now = w.now.Add(time.Millisecond)
	}
}

// unsent: what was on its way to a user is lost.
func (w *world) unsent(user string) {
	for _, l := range w.letters {
		if l.to == user {
			l.sent = l.done
		}
	}
}

// post hands the next transfer over, if there is one.
func (w *world) post() func() {
	waits := map[[2]string]bool{}
	var ready []*letter
	for _, l := range w.letters {
		pair := [2]string{l.from, l.to}
		if l.done || waits[pair] {
			continue
		}
		waits[pair] = true
		if !l.sent || w.twice && w.pick(32) == 0 { // sometimes twice
			ready = append(ready, l)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	l := ready[w.pick(len(ready))]
	return func() {
		l.sent = true
		w.gateway(Deliver{Key: Key{testApp, l.to}, In: Received{
			Source: 1, Generation: 1, Seq: l.seq, From: l.from, At: l.at, Fresh: l.seq + 1000, What: l.what,
		}})
	}
}

// taken reports that the row of a transfer is found, so that it is not given again.
func (w *world) taken(a *actor, in Input) bool {
	r, ok := in.(Received)
	if !ok {
		return false
	}
	l := w.letters[r.Seq-1]
	return l.done && (l.taker != a || w.now.Sub(l.at) > 30*time.Second)
}

// outcome notes what came of an input.
func (w *world) outcome(a *actor, in Input, out *Output) {
	switch in := in.(type) {
	case Received:
		l := w.letters[in.Seq-1]
		if !l.done {
			l.done, l.taker, l.at = true, a, w.now
			w.log("%s has %s from %s: code %d", l.to, told(l.what), l.from, out.Reply.Code)
		}
	case Publish:
		w.published(a.key.User, in, &out.Reply)
	}
	for _, c := range out.Contacts {
		w.log("%s: %s is %s", a.key.User, c.User, c.Relation)
	}
	w.outboxes(a, out)
}

func told(what Transferred) string {
	switch t := what.(type) {
	case Handshake:
		return [...]string{"", "a request", "an approval", "a withdrawal", "a denial"}[t.Stanza]
	case BlockedBy:
		return map[bool]string{true: "a block", false: "the end of a block"}[t.On]
	case NotifyWhen:
		return map[bool]string{false: "a wish to be notified", true: "the end of that wish"}[t.End]
	case Publish:
		return "a notification"
	}
	return "an erasure"
}

// String names the relation for stories.
func (r Relation) String() string {
	s := ""
	for i, n := range []string{"to", "from", "pending_out", "pending_in", "approved", "blocked", "blocked_by"} {
		if r>>i&1 != 0 {
			s += " " + n
		}
	}
	if s == "" {
		return "nobody"
	}
	return s[1:]
}

// learn gives the gateway what is stored of the users that an input asks for.
func (w *world) learn(in GatewayInput) {
	var keys []Key
	add := func(app string, users []string) {
		for _, u := range users {
			keys = append(keys, Key{app, u})
		}
	}
	switch in := in.(type) {
	case Interest:
		add(in.App, in.Add)
	case Query:
		add(in.App, in.Users)
	case Announce:
		for _, i := range in.Watches {
			add(i.App, i.Add)
		}
	}
	for _, k := range keys {
		if w.gw.Known(k) {
			continue
		}
		in := Loaded{Key: k}
		if records := w.stored(k.User); len(records) > 0 {
			u := NewUser(w.cfg, time.Time{})
			u.Restore(records...)
			in.Publish = u.Step(w.now, Tick{}).Publish
		}
		w.gateway(in)
	}
}

// symmetric demands that both sides of every relation say the same, once nothing is on
// its way.
func (w *world) symmetric() {
	rel := func(user, other string) Relation {
		for _, r := range w.stored(user) {
			if r, ok := r.(RelationSet); ok && r.Other == other {
				return r.Relation
			}
		}
		return 0
	}
	for _, a := range simUsers {
		for _, b := range simUsers {
			x, y := rel(a, b), rel(b, a)
			for _, p := range [][2]Relation{{RelationTo, RelationFrom}, {RelationPendingOut, RelationPendingIn}, {RelationBlocked, RelationBlockedBy}} {
				if a != b && (x&p[0] != 0) != (y&p[1] != 0) {
					w.fail("%s says of %s: %v; %s of %s: %v", a, b, x, b, a, y)
				}
			}
		}
	}
}

// mark notes whether a user is to be presumed online after a loss.
func (w *world) mark(user string) {
	marked, hidden := false, false
	for _, r := range w.stored(user) {
		switch r := r.(type) {
		case InvisibleSet:
			hidden = r.On
		case Marker:
			marked = r.Online
		}
	}
	w.marked[user] = marked && !hidden
}
