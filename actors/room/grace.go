package room

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"muster/actors/presence"
)

// grace is how long a place outlives its conn.
func (r *Room) grace(c presence.Cause) time.Duration {
	switch c {
	case presence.Gone:
		return r.cfg.GraceGone
	case presence.Silence, presence.NodeLost, presence.NoCause, presence.Replaced:
		return r.cfg.GraceSilence
	case presence.Drain:
		return r.cfg.GraceDrain
	}
	return 0
}

func reasonOf(c presence.Cause) presence.Reason {
	switch c {
	case presence.Bye:
		return presence.ReasonExplicit
	case presence.Kicked, presence.Revoked:
		return presence.ReasonKicked
	case presence.NodeLost:
		return presence.ReasonNodeLost
	case presence.Expired:
		return presence.ReasonExpired
	}
	return presence.ReasonTimeout
}

// lose takes the conn from a place: its grace begins, or it ends.
func (r *Room) lose(p *place, c presence.Cause) {
	r.unsubscribe(p)
	p.reason = reasonOf(c)
	grace := r.grace(c)
	if grace <= 0 || !p.occupy {
		r.end(p)
		return
	}
	p.lost, p.until = true, r.now.Add(grace)
	r.lost++
}

// end removes a place.
func (r *Room) end(p *place) {
	if p.lost {
		r.lost--
	}
	delete(r.places, p.session)
	r.vacate(p, p.reason)
}

// expire ends the places whose grace is over, in the order in which it ran out.
func (r *Room) expire() {
	if r.lost == 0 {
		return
	}
	var over []*place
	for _, p := range r.places {
		if p.lost && !p.until.After(r.now) {
			over = append(over, p)
		}
	}
	slices.SortFunc(over, func(a, b *place) int {
		if c := a.until.Compare(b.until); c != 0 {
			return c
		}
		return cmp.Compare(a.session, b.session)
	})
	for _, p := range over {
		r.end(p)
	}
}

func (r *Room) extend(until time.Time) {
	for _, p := range r.places {
		if p.lost && p.until.Before(until) {
			p.until = until
		}
	}
}

// announce replaces what is known of an edge, which is to get everything.
func (r *Room) announce(in Announce) []presence.Edge {
	held := make(map[string]bool, len(in.Places))
	for _, e := range in.Places {
		held[e.Session] = true
	}
	r.loseEdge(in.Edge, held, presence.Silence)
	for _, e := range in.Places {
		if e.User != "" && e.Session != "" && (e.Occupy || e.Subscribe) {
			r.admit(e)
		}
	}
	return []presence.Edge{in.Edge}
}

// loseEdge takes the conns of an edge away, but for those of the sessions kept.
func (r *Room) loseEdge(e presence.Edge, kept map[string]bool, c presence.Cause) {
	for _, session := range slices.Sorted(maps.Keys(r.places)) {
		if p := r.places[session]; p.conn.Holder() == e && !p.lost && !kept[session] {
			r.lose(p, c)
		}
	}
}
