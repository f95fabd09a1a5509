package room

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"muster/actors/presence"
)

// change runs f, which may change what m shows, and keeps count: of the visible, of
// the version, and of who differs from what subscribers were told.
func (r *Room) change(m *member, f func()) {
	was, before := m.isVisible(), m.now
	f()
	is := m.isVisible()
	if was != is || is && differs(before, m.now) {
		r.version++
	}
	switch {
	case is && !was:
		r.visible++
		m.now.Reason = 0
	case was && !is:
		r.visible--
	}
	dirty := m.told || is != m.isShown || is && differs(m.shown, m.now)
	if dirty != m.dirty {
		m.dirty = dirty
		if dirty {
			r.dirty++
		} else {
			r.dirty--
		}
	}
	r.forget(m)
}

// forget drops a member that neither occupies nor was told of.
func (r *Room) forget(m *member) {
	if m.places == 0 && !m.isShown && !m.told {
		delete(r.members, m.now.User)
	}
}

// differs ignores the version alone: what is seen decides.
func differs(a, b Occupant) bool {
	a.Version, a.Reason = b.Version, b.Reason
	return a != b
}

// publish sends what is due: the change since the last one, and everything to the
// edges in all.
func (r *Room) publish(all []presence.Edge) (sends []Send) {
	if !r.settle.IsZero() {
		if r.now.Before(r.settle) {
			return nil
		}
		r.settle = time.Time{}
		all = r.to()
	}
	if r.dirty > 0 && !r.now.Before(r.flushed.Add(r.cfg.Coalesce)) {
		sends = r.flush(all)
	}
	all = slices.DeleteFunc(all, func(e presence.Edge) bool { return !r.subscribed(e) })
	if len(all) > 0 {
		sends = append(sends, Send{To: all,
			Change: &Change{Version: r.version, Enter: r.tell(), Count: r.visible, All: true}})
	}
	return sends
}

// flush makes what is known what is shown, and tells it to all edges but those in skip.
func (r *Room) flush(skip []presence.Edge) []Send {
	c := &Change{Version: r.version, Count: r.visible}
	for _, user := range slices.Sorted(maps.Keys(r.members)) {
		m := r.members[user]
		if !m.dirty {
			continue
		}
		switch {
		case m.isVisible() && !m.isShown:
			c.Enter = append(c.Enter, m.now)
		case m.isVisible():
			c.Update = append(c.Update, m.now)
		default:
			// As it was last told: what changed while it hid stays hidden.
			gone := m.shown
			gone.Reason = m.now.Reason
			c.Leave = append(c.Leave, gone)
		}
		m.shown, m.isShown, m.told, m.dirty = m.now, m.isVisible(), false, false
		r.forget(m)
	}
	r.dirty, r.flushed = 0, r.now
	to := slices.DeleteFunc(r.to(), func(e presence.Edge) bool { return slices.Contains(skip, e) })
	if len(to) == 0 {
		return nil
	}
	return []Send{{To: to, Change: c}}
}

// tell lists the visible occupants, by user. Whom it lists before subscribers were
// told, or no longer lists, the next change must name whatever happens until then.
func (r *Room) tell() []Occupant {
	all := make([]Occupant, 0, r.visible)
	for _, user := range slices.Sorted(maps.Keys(r.members)) {
		m := r.members[user]
		if m.isVisible() {
			all = append(all, m.now)
		}
		if m.dirty {
			m.told = true
			if m.isVisible() {
				m.shown = m.now
			}
		}
	}
	return all
}

// to is every edge with subscribers, in order.
func (r *Room) to() []presence.Edge {
	to := make([]presence.Edge, len(r.edges))
	for i, s := range r.edges {
		to[i] = s.edge
	}
	return to
}

func (r *Room) unsubscribe(p *place) {
	if p.subscribe {
		p.subscribe = false
		r.count(p.conn.Holder(), -1)
	}
}

// count adds n subscribers to an edge.
func (r *Room) count(e presence.Edge, n int) {
	i, ok := slices.BinarySearchFunc(r.edges, e, func(s subscribers, e presence.Edge) int { return order(s.edge, e) })
	if !ok {
		r.edges = slices.Insert(r.edges, i, subscribers{edge: e})
	}
	if r.edges[i].n += n; r.edges[i].n == 0 {
		r.edges = slices.Delete(r.edges, i, i+1)
	}
}

func (r *Room) subscribed(e presence.Edge) bool {
	return slices.ContainsFunc(r.edges, func(s subscribers) bool { return s.edge == e })
}

func order(a, b presence.Edge) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
}
