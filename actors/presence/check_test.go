package presence

import (
	"reflect"
	"slices"
)

// checkUser steps the model along and compares.
func (w *world) checkUser(a *actor, in Input, out *Output) {
	from := a.m.state
	want := a.m.step(a.key.User, w.now, in)
	name := a.key.User
	if _, announced := in.(Announced); !announced && want.code != out.Reply.Code {
		w.fail("%s: %+v: code %d, the model says %d", name, in, out.Reply.Code, want.code)
	}
	if want.resumed != out.Reply.Resumed && want.code == OK {
		w.fail("%s: %+v: resumed %v", name, in, out.Reply.Resumed)
	}
	if !slices.Equal(want.closes, out.Sends) {
		w.fail("%s: %+v: closes %v, the model says %v", name, in, out.Sends, want.closes)
	}
	got, view := *a.u.view, a.m.view()
	if !got.Equal(&view) || got.Reason != view.Reason {
		w.fail("%s: after %T%+v shows %+v, the model says %+v", name, in, in, got, view)
	}
	lives, graces := a.m.counts()
	if _, presumed := a.m.sessions[""]; lives > 0 && !presumed {
		w.met[name] = true
	}
	var p Shown
	a.u.count(&p)
	if p.Live != lives || p.Detached != graces {
		w.fail("%s: %T: %d live, %d in grace, the model says %d and %d", name, in, p.Live, p.Detached, lives, graces)
	}
	if out.Publish != nil && got.State == Offline && from != Offline && w.missed(name) {
		w.fail("%s goes offline but was there: %T%+v %+v", name, in, in, a.u.Explain().Transitions)
	}
	if out.Publish != nil && (out.Publish.Live != lives || out.Publish.View != a.u.view) {
		w.fail("%s: published %+v", name, out.Publish)
	}
	w.checkOwned(a, in, out, &want)
	if a.u.Idle() != (len(a.m.sessions) == 0) {
		w.fail("%s: idle %v", name, a.u.Idle())
	}
	if at, ok := a.u.Deadline(); ok && !at.After(w.now) {
		if _, tick := in.(Tick); tick {
			w.fail("%s: due at %v after a tick at %v", name, at, w.now)
		}
	}
}

// checkMessage holds what is sent to an edge against the truth.
func (w *world) checkMessage(m ToEdge) {
	offline := func(user string, v *View) {
		told := w.told[user]
		if v.State == Offline && told != nil && told.View.State != Offline && !told.Presumed {
			w.fail("%s is said to be offline (%+v) but showed %+v", user, *v, *told.View)
		}
		if v.State == Offline && told == nil && w.missed(user) {
			w.fail("%s is said to be offline (%+v) but may be there", user, *v)
		}
	}
	switch msg := m.Message.(type) {
	case *Change:
		for _, v := range msg.Views {
			if v.Mask&FieldState == 0 {
				continue
			}
			if w.gw.settling && v.View.State == Offline {
				w.fail("%s is said to be offline while settling", msg.User)
			}
			offline(msg.User, v.View)
		}
	case *Views:
		for _, r := range msg.Rows {
			if r.Pending || r.Mask&FieldState == 0 {
				continue
			}
			v := &View{}
			if r.View != nil {
				v = r.View
			}
			if w.gw.settling && v.State == Offline {
				w.fail("%s is answered offline while settling", r.User)
			}
			offline(r.User, v)
		}
	}
}

// checkGateway recomputes everything that the gateway keeps incrementally.
func (w *world) checkGateway() {
	g := w.gw
	rows, lives, online := 0, 0, 0
	perEdge := map[uint16]int{}
	for k, e := range g.entries {
		want := map[[2]int]uint32{}
		n := 0
		e.rows.each(func(r *row) {
			n++
			want[[2]int{int(r.edge), int(r.mask)}]++
			perEdge[r.edge]++
			if m := g.maskOf(e, Watcher{g.names.Name(r.watcher), r.hidden()}); m != r.mask && !e.owed {
				w.fail("%v: row of %s has mask %v, not %v", k, g.names.Name(r.watcher), r.mask, m)
			}
			if e.rows.find(r.watcher, r.edge) != r {
				w.fail("%v: a row cannot be found", k)
			}
		})
		got := map[[2]int]uint32{}
		for _, t := range e.tallies {
			got[[2]int{int(t.edge), int(t.mask)}] = t.n
		}
		if n != e.rows.n || !reflect.DeepEqual(want, got) {
			w.fail("%v: tallies %v of rows %v", k, got, want)
		}
		rows += n
		lives += int(e.live)
		if e.state() != Offline {
			online++
		}
		for _, h := range e.holds {
			if g.edges[h.edge].users[h.place] != e {
				w.fail("%v: hold %v points to another", k, h)
			}
		}
	}
	for slot, e := range g.edges {
		if e != nil && e.rows != perEdge[uint16(slot)] {
			w.fail("edge %v counts %d rows of %d", e.edge, e.rows, perEdge[uint16(slot)])
		}
	}
	c := g.Counts(testApp)
	if rows != g.rows || lives != g.live || int(c.Online+c.Away+c.DND) != online || len(g.Online(testApp, "", "", 1000)) != online {
		w.fail("counts %+v: %d rows, %d live, %d online", c, rows, lives, online)
	}
}

// checkTruth demands that all is told: each watcher sees what the users show.
func (w *world) checkTruth() {
	for _, n := range sortedKeys(w.clients) {
		c := w.clients[n]
		if e, v := w.vconn(c); v != nil && e.linked {
			if a := w.actors[c.user]; a == nil || a.m.current(v.attach.Session, v.attach.Conn) == nil {
				w.fail("%s is on but the core does not know", n)
			}
		}
	}
	for _, e := range w.edgeList() {
		if !e.linked {
			continue
		}
		rows := 0
		for _, users := range e.hub {
			rows += len(users)
		}
		if slot, ok := w.gw.slots[e.id()]; !ok || w.gw.edges[slot].rows != rows {
			w.fail("%s has %d watches, the core has others", e.name, rows)
		}
		for _, watcher := range sortedKeys(e.hub) {
			for _, user := range sortedKeys(e.hub[watcher]) {
				w.checkSeen(e, watcher, user, e.hub[watcher][user])
			}
		}
	}
}

func (w *world) checkSeen(e *vedge, watcher, user string, s *seen) {
	a := w.actors[user]
	who := Watcher{watcher, e.hidden[watcher]}
	if a == nil { // nobody there: what is left is last seen
		if s.view.State != Offline || s.pending {
			w.fail("%s@%s still sees %s %s (pending %v)", watcher, e.name, user, s.view.text(), s.pending)
		}
		return
	}
	_, only := a.m.sessions[""]
	if _, graces := a.m.counts(); only && graces == 1 && a.m.cover == nil {
		if lives, _ := a.m.counts(); lives == 0 && s.known {
			return // a guess; the last known view or pending stands
		}
	}
	mask := a.m.mask(user, who)
	best := a.m.view()
	want := best.Masked(mask, w.now)
	if s.pending || !s.known || s.mask != mask || !s.view.Equal(&want) {
		w.fail("%s@%s sees %s %+v mask %v known %v pending %v, but the truth is %+v mask %v", watcher, e.name, user,
			s.view, s.mask, s.known, s.pending, want, mask)
	}
}

// quiet links all edges, lets the shard settle and everything arrive.
func (w *world) quiet() {
	for _, e := range w.edgeList() {
		if e.alive {
			if e.holdBack {
				e.holdBack = false
				e.announce(w)
			}
			e.relink(w)
		} else {
			w.gateway(EdgeDead{e.id()})
		}
	}
	w.drain()
	if w.gw.Settling() {
		w.advance(w.cfg.Settle, true)
	}
	w.drain()
}
