package presence

import "slices"

// interest adds and removes rows and answers with what they show.
func (g *Gateway) interest(now int64, in *Interest, out *Effects) {
	slot, known := g.slots[in.Edge]
	if !known {
		return
	}
	for _, user := range in.Remove {
		g.unwatch(Key{in.App, user}, in.Watcher.User, slot)
	}
	if in.Call == 0 && len(in.Add) == 0 {
		return
	}
	v := &Views{Call: in.Call, App: in.App, Watcher: in.Watcher.User, Rows: make([]Row, 0, len(in.Add))}
	for _, user := range in.Add {
		v.Rows = append(v.Rows, g.watch(now, Key{in.App, user}, in.Watcher, slot))
	}
	g.toEdge(in.Edge, v, out)
}

// watch adds or renews a row and returns what it shows.
func (g *Gateway) watch(now int64, k Key, w Watcher, slot uint16) Row {
	if !validID(k.User) || !validID(w.User) {
		return Row{User: k.User, Version: g.version}
	}
	e := g.entry(k)
	m := g.maskOf(e, w)
	hidden := uint8(w.Hidden & AllFields)
	if g.edges[slot].marking {
		hidden |= rowMarked
	}
	id := g.names.Intern(w.User)
	if r := e.rows.find(id, slot); r != nil {
		g.names.Release(id)
		e.count(slot, r.mask, -1)
		r.mask, r.bits = m, hidden
	} else {
		e.rows.add(row{id, slot, m, hidden})
		g.edges[slot].rows++
		g.rows++
	}
	e.count(slot, m, 1)
	row := g.row(now, e, m)
	e.owed = e.owed || row.Pending
	return row
}

// row is what those with the mask see of a user.
func (g *Gateway) row(now int64, e *entry, m Mask) Row {
	r := Row{User: e.key.User, Mask: m, Version: e.version, Pending: g.pending(e)}
	if r.Pending || e.view == nil {
		return r
	}
	if v := e.view.Masked(m, instant(now)); !v.Empty() {
		r.View = &v
	}
	return r
}

func (g *Gateway) unwatch(k Key, watcher string, slot uint16) {
	e := g.entries[k]
	id := g.names.Find(watcher)
	if e == nil || id == 0 {
		return
	}
	if r := e.rows.find(id, slot); r != nil {
		g.drop(e, *r)
		g.reap(e)
	}
}

// drop removes a row that is there.
func (g *Gateway) drop(e *entry, r row) {
	e.rows.remove(r.watcher, r.edge)
	e.count(r.edge, r.mask, -1)
	g.edges[r.edge].rows--
	g.rows--
	g.names.Release(r.watcher)
}

// sweep visits the rows of an edge and drops those for which keep says no.
func (g *Gateway) sweep(slot uint16, keep func(*row) bool) {
	if g.edges[slot].rows == 0 {
		return
	}
	for _, e := range g.entries {
		if !slices.ContainsFunc(e.tallies, func(t tally) bool { return t.edge == slot }) {
			continue
		}
		var gone []row
		e.rows.each(func(r *row) {
			if r.edge == slot && !keep(r) {
				gone = append(gone, *r)
			}
		})
		for _, r := range gone {
			g.drop(e, r)
		}
		g.reap(e)
	}
}

func (g *Gateway) query(now int64, in *Query, out *Effects) {
	v := &Views{Call: in.Call, App: in.App, Watcher: in.Watcher.User, Rows: make([]Row, 0, len(in.Users))}
	for _, user := range in.Users {
		v.Rows = append(v.Rows, g.Look(instant(now), Key{in.App, user}, in.Watcher))
	}
	g.toEdge(in.Edge, v, out)
}

// typing passes on what a user types to one watcher who may see it.
func (g *Gateway) typing(in *Typing, out *Effects) {
	e := g.entries[Key{in.App, in.User}]
	id := g.names.Find(in.To)
	if e == nil || id == 0 || e.guess || e.state() == Offline {
		return
	}
	var slots []uint16
	e.rows.of(id, func(i int) bool {
		if r := e.rows.slots[i]; r.mask&FieldTyping != 0 {
			slots = append(slots, r.edge)
		}
		return true
	})
	slices.Sort(slots)
	for _, s := range slots {
		g.toEdge(g.edges[s].edge, &TypingOut{in.App, in.User, in.To, in.Kind, in.Stop}, out)
	}
}
