package room

import (
	"maps"
	"slices"
)

// Leaving is what the room's next activation, on another node, is to be given, as no edge will announce it: the places
// in grace, by session.
func (r *Room) Leaving() (all []Handed) {
	if r.lost == 0 {
		return nil
	}
	for _, session := range slices.Sorted(maps.Keys(r.places)) {
		p := r.places[session]
		if !p.lost {
			continue
		}
		m := r.members[p.user]
		all = append(all, Handed{EnteredAt: m.now.EnteredAt, Reason: p.reason, Until: p.until, Enter: Enter{User: p.user, Session: p.session,
			Conn: p.conn, Attempt: p.attempt, Occupy: true, Info: m.now.Info, State: m.now.State, Version: m.now.Version, Hidden: m.hidden}})
	}
	return all
}

// handed takes over a place in grace. It was within the bounds, so it is not held against them again.
func (r *Room) handed(in Handed) {
	e := in.Enter
	if e.User == "" || e.Session == "" || r.places[e.Session] != nil || !in.Until.After(r.now) {
		return
	}
	m := r.members[e.User]
	first := m == nil || m.places == 0
	e.Occupy, e.Subscribe = true, false
	r.admit(e)
	if first && in.EnteredAt > 0 {
		r.members[e.User].now.EnteredAt = min(in.EnteredAt, r.now.UnixMilli())
	}
	p := r.places[e.Session]
	p.lost, p.until, p.reason = true, in.Until, in.Reason
	r.lost++
}
