package presence

import "slices"

// stepped takes over what an activation shows now.
func (g *Gateway) stepped(now int64, in Stepped, out *Effects) {
	e := g.entries[in.Key]
	if e == nil || !e.active {
		return
	}
	if e.seen = in.Seen; e.seen == e.routed {
		e.coming = false
		defer g.answered(now, in.Key, out)
	}
	p := in.Publish
	if p == nil {
		g.resolve(now, e, out)
		return
	}
	g.tally(now, e, p, in.Seen)
	e.until = milli(p.Until)
	if g.storm && p.Detached > 0 && (p.Lost > 0 || p.Presumed && !e.presumed) {
		g.extend(e, out)
	}
	e.presumed = p.Presumed
	if p.Presumed {
		g.presume(now, e, p, out)
		return
	}
	e.guess = false
	old := e.shows()
	audience := e.audience
	g.show(e, p.View)
	e.audience = p.Audience
	switch {
	case g.settling && p.View.State == Offline:
		e.owed = true
	case e.owed:
		g.resolve(now, e, out)
	default:
		if audience != p.Audience {
			g.remask(now, e, out)
		}
		g.change(now, e, old, p.View, false, out)
	}
	if p.Self != nil {
		for _, edge := range p.Edges {
			g.toEdge(edge, &SelfView{e.key.App, e.key.User, e.version, p.Self}, out)
		}
	}
	g.reap(e)
}

// presume takes over the guess of a presumed session, unless more is known from before.
func (g *Gateway) presume(now int64, e *entry, p *Shown, out *Effects) {
	e.audience = p.Audience
	if e.guess || e.state() == Offline {
		g.show(e, p.View)
		e.guess, e.owed = true, true
		return
	}
	g.remask(now, e, out)
}

// tally keeps the counts and the index of who is held where.
func (g *Gateway) tally(now int64, e *entry, p *Shown, seen uint32) {
	g.live += p.Live - int(e.live)
	g.detached += p.Detached - int(e.detached)
	e.live, e.detached = uint16(p.Live), uint16(p.Detached)
	e.lostAt = milli(p.LostAt)
	g.noteLost(now, p.Lost)
	for i := 0; i < len(e.holds); {
		edge := g.edges[e.holds[i].edge].edge
		if seen == e.routed && !slices.Contains(p.Edges, edge) {
			g.release(e, i)
			continue
		}
		i++
	}
	for _, edge := range p.Edges {
		if slot, ok := g.slots[edge]; ok {
			g.hold(e, slot)
		}
	}
}

// show replaces the view and keeps the online list.
func (g *Gateway) show(e *entry, v *View) {
	a := g.app(e.key.App)
	if old := e.state(); old != v.State {
		a.count(old, -1)
		a.count(v.State, 1)
		switch Offline {
		case old:
			a.online.insert(e)
		case v.State:
			a.online.remove(e)
		}
	}
	e.view = v
	if v.Empty() {
		e.view = nil
	}
}

// resolve tells the watchers of a user who was pending what is known now, if it is.
func (g *Gateway) resolve(now int64, e *entry, out *Effects) {
	if !e.owed || e.guess || e.state() == Offline && (g.settling || e.seen != e.routed) {
		return
	}
	e.owed = false
	g.remask(now, e, out)
	v := e.shows()
	if v.State == Offline && v.Reason == NoReason {
		w := *v
		w.Reason = ReasonTimeout
		v = &w
	}
	g.change(now, e, nil, v, true, out)
}

// change sends one Change to each edge with rows whose view differs (all if forced), and
// takes the next version if anybody could see a difference.
func (g *Gateway) change(now int64, e *entry, old, v *View, forced bool, out *Effects) {
	at := instant(now)
	var seen []MaskedView // per distinct mask; nil View: no difference
	masked := func(m Mask) *View {
		for i := range seen {
			if seen[i].Mask == m {
				return seen[i].View
			}
		}
		w := v.Masked(m, at)
		s := MaskedView{Mask: m, View: &w}
		if !forced {
			if was := old.Masked(m, at); was.Equal(&w) {
				s.View = nil
			}
		}
		seen = append(seen, s)
		return s.View
	}
	if masked(AllFields) == nil {
		return
	}
	g.version++
	e.version = g.version
	for i := 0; i < len(e.tallies); {
		slot := e.tallies[i].edge
		var views []MaskedView
		for ; i < len(e.tallies) && e.tallies[i].edge == slot; i++ {
			if w := masked(e.tallies[i].mask); w != nil {
				views = append(views, MaskedView{e.tallies[i].mask, w})
			}
		}
		if len(views) > 0 {
			g.toEdge(g.edges[slot].edge, &Change{e.key.App, e.key.User, e.version, views}, out)
		}
	}
}

// remask evaluates the audience anew for all rows, and sends the masks that changed with
// what they show. A user who is pending keeps the masks its watchers know until told.
func (g *Gateway) remask(now int64, e *entry, out *Effects) {
	type changed struct {
		name string
		edge uint16
		mask Mask
	}
	var all []changed
	e.rows.each(func(r *row) {
		name := g.names.Name(r.watcher)
		m := g.maskOf(e, Watcher{name, r.hidden()})
		if m == r.mask {
			return
		}
		e.count(r.edge, r.mask, -1)
		e.count(r.edge, m, 1)
		r.mask = m
		all = append(all, changed{name, r.edge, m})
	})
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b changed) int {
		if a.edge != b.edge {
			return int(a.edge) - int(b.edge)
		}
		return compareKeys(Key{User: a.name}, Key{User: b.name})
	})
	g.version++
	e.version = g.version
	var msg *Remask
	for i, c := range all {
		if i == 0 || c.edge != all[i-1].edge {
			msg = &Remask{App: e.key.App, User: e.key.User, Version: e.version}
			g.toEdge(g.edges[c.edge].edge, msg, out)
		}
		msg.Watchers = append(msg.Watchers, c.name)
		msg.Masks = append(msg.Masks, c.mask)
		if !slices.ContainsFunc(msg.Views, func(v MaskedView) bool { return v.Mask == c.mask }) {
			w := e.shows().Masked(c.mask, instant(now))
			msg.Views = append(msg.Views, MaskedView{c.mask, &w})
		}
	}
}

// toEdge sends to an edge that has a link.
func (g *Gateway) toEdge(e Edge, m Message, out *Effects) {
	if slot, ok := g.slots[e]; ok && g.edges[slot].up {
		out.Edges = append(out.Edges, ToEdge{e, m})
	}
}
