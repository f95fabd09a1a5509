package presence

import "slices"

// edge is what the shard knows of one edge process.
type edge struct {
	edge     Edge
	slot     uint16
	users    []*entry // that it may hold sessions of, in no useful order
	rows     int
	up       bool
	downAt   int64 // Unix ms
	draining bool
	marking  bool // rows that an announcement confirms are marked
	hearing  *announcement
}

// announcement is one under way.
type announcement struct {
	id       uint64
	sessions map[Key][]Attach
	told     bool // sessions are complete
}

func (g *Gateway) edgeUp(now int64, e Edge, out *Effects) {
	for _, old := range g.edges {
		switch {
		case old == nil || old.edge.Name != e.Name:
		case old.edge.Incarnation > e.Incarnation:
			return // it was succeeded
		case old.edge.Incarnation < e.Incarnation:
			g.bury(now, old.edge, out)
		}
	}
	if slot, ok := g.slots[e]; ok {
		g.edges[slot].up = true
		return
	}
	slot := slices.Index(g.edges, nil)
	if slot < 0 {
		slot = len(g.edges)
		g.edges = append(g.edges, nil)
	}
	g.edges[slot] = &edge{edge: e, slot: uint16(slot), up: true}
	g.slots[e] = uint16(slot)
}

func (g *Gateway) edgeDown(now int64, e Edge) {
	if slot, ok := g.slots[e]; ok && g.edges[slot].up {
		g.edges[slot].up, g.edges[slot].downAt = false, now
	}
}

func (g *Gateway) edgeDraining(now int64, in EdgeDraining) {
	slot, ok := g.slots[in.Edge]
	if !ok {
		return
	}
	if e := g.edges[slot]; e.draining || in.On {
		g.draining = now
		e.draining = in.On
	}
}

// edgeDead buries the edge and its older incarnations.
func (g *Gateway) edgeDead(now int64, dead Edge, out *Effects) {
	for _, old := range g.edges {
		if old != nil && old.edge.Name == dead.Name && old.edge.Incarnation < dead.Incarnation {
			g.bury(now, old.edge, out)
		}
	}
	g.bury(now, dead, out)
}

// bury detaches every session of the edge and forgets its rows.
func (g *Gateway) bury(now int64, dead Edge, out *Effects) {
	g.strike(now, dead, out)
	slot, ok := g.slots[dead]
	if !ok {
		return
	}
	e := g.edges[slot]
	if e.draining {
		g.draining = now
	}
	g.sweep(slot, func(*row) bool { return false })
	for _, k := range e.keys() {
		u := g.entries[k]
		g.release(u, slices.IndexFunc(u.holds, func(h hold) bool { return h.edge == slot }))
		g.send(u, EdgeLost{dead}, out)
	}
	g.edges[slot] = nil
	delete(g.slots, dead)
}

// keys of the users that the edge may hold, in order.
func (e *edge) keys() []Key {
	keys := make([]Key, len(e.users))
	for i, u := range e.users {
		keys[i] = u.key
	}
	return sorted(keys)
}

// hold notes that the edge may hold sessions of the user.
func (g *Gateway) hold(e *entry, slot uint16) {
	if slices.ContainsFunc(e.holds, func(h hold) bool { return h.edge == slot }) {
		return
	}
	ed := g.edges[slot]
	e.holds = append(slices.Grow(e.holds, 1), hold{slot, uint32(len(ed.users))})
	ed.users = append(ed.users, e)
}

// release undoes the hold at i; the edge's last user takes its place.
func (g *Gateway) release(e *entry, i int) {
	h := e.holds[i]
	ed := g.edges[h.edge]
	last := len(ed.users) - 1
	moved := ed.users[last]
	ed.users[h.place] = moved
	for j := range moved.holds {
		if moved.holds[j].edge == h.edge {
			moved.holds[j].place = h.place
		}
	}
	ed.users[last] = nil
	ed.users = ed.users[:last]
	e.holds = slices.Delete(e.holds, i, i+1)
}

func (g *Gateway) releaseAll(e *entry) {
	for len(e.holds) > 0 {
		g.release(e, 0)
	}
}

// announce takes a chunk of what an edge holds. Sessions count when all have come; rows
// at once, and those that were not confirmed go with the last chunk.
func (g *Gateway) announce(now int64, in *Announce, out *Effects) {
	slot, ok := g.slots[in.Edge]
	if !ok || in.Term != g.term {
		return
	}
	e := g.edges[slot]
	if in.Only != (Key{}) {
		g.announceOne(now, e, in, out)
		return
	}
	if e.hearing == nil || e.hearing.id != in.ID {
		if e.marking {
			g.sweep(slot, func(r *row) bool { r.bits &^= rowMarked; return true })
		}
		e.hearing = &announcement{id: in.ID, sessions: map[Key][]Attach{}}
		e.marking = e.rows > 0
	}
	for _, s := range in.Sessions {
		if validID(s.Key.User) {
			e.hearing.sessions[s.Key] = append(e.hearing.sessions[s.Key], s.Attach)
		}
	}
	for _, k := range in.Seen {
		if g.settling {
			g.expected[k] = true
		}
	}
	if in.SessionsDone && !e.hearing.told {
		e.hearing.told = true
		g.replaceSessions(e, out)
		g.strike(now, e.edge, out)
	}
	g.announceWatches(now, e, in.Watches, out)
	if in.Done {
		if e.marking {
			e.marking = false
			g.sweep(slot, func(r *row) bool {
				marked := r.bits&rowMarked != 0
				r.bits &^= rowMarked
				return marked
			})
		}
		e.hearing = nil
	}
}

func (g *Gateway) announceWatches(now int64, e *edge, watches []Interest, out *Effects) {
	for _, w := range watches {
		g.interest(now, &Interest{Edge: e.edge, App: w.App, Watcher: w.Watcher, Add: w.Add}, out)
	}
}

// announceOne takes the sessions of one user, and no others.
func (g *Gateway) announceOne(now int64, e *edge, in *Announce, out *Effects) {
	var sessions []Attach
	for _, s := range in.Sessions {
		if s.Key == in.Only {
			sessions = append(sessions, s.Attach)
		}
	}
	if u := g.entries[in.Only]; len(sessions) > 0 || u != nil && u.active {
		u = g.entry(in.Only)
		if len(sessions) > 0 {
			g.hold(u, e.slot)
		}
		g.send(u, Announced{e.edge, sessions}, out)
	}
	g.announceWatches(now, e, in.Watches, out)
}

// replaceSessions tells each user what the edge holds of it, also those it held before
// and does no longer.
func (g *Gateway) replaceSessions(e *edge, out *Effects) {
	keys := e.keys()
	for k := range e.hearing.sessions {
		keys = append(keys, k)
	}
	for _, k := range slices.Compact(sorted(keys)) {
		u := g.entry(k)
		sessions := e.hearing.sessions[k]
		if len(sessions) > 0 {
			g.hold(u, e.slot)
			if g.settling {
				g.awaited[k] = true
			}
			u.coming = u.coming || u.live == 0
		}
		g.send(u, Announced{e.edge, sessions}, out)
	}
	e.hearing.sessions = nil
}
