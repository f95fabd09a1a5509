package room

import (
	"fmt"
	"time"

	"muster/actors/presence"
)

// Room is one room. It is not safe for concurrent use.
type Room struct {
	cfg     Config
	now     time.Time
	version uint64
	places  map[string]*place  // by session
	members map[string]*member // by user: who occupies, or was last shown
	visible int
	lost    int // places without a conn
	edges   []subscribers

	dirty   int // members that the next change names
	flushed time.Time
	settle  time.Time // nothing is published before; zero: settled
}

// place is one session's place.
type place struct {
	user, session string
	conn          presence.Conn
	attempt       uint64
	occupy        bool
	subscribe     bool
	lost          bool
	until         time.Time // with lost
	reason        presence.Reason
}

// member is one user: its occupancy, and what subscribers were last told.
type member struct {
	now    Occupant
	places int // that occupy
	hidden bool
	shown  Occupant // as it was last told; of use with isShown or told

	isShown bool // subscribers were told that it is here
	told    bool // a list went out that was ahead of what subscribers were told
	dirty   bool // the next change names it
}

func (m *member) isVisible() bool { return m.places > 0 && !m.hidden }

// subscribers is how many live places of an edge subscribe.
type subscribers struct {
	edge presence.Edge
	n    int
}

// New makes an empty room whose version continues after version. While it settles,
// at most until settle, it publishes nothing; zero: it does not settle.
func New(cfg Config, version uint64, settle time.Time) *Room {
	return &Room{cfg: cfg.withDefaults(), version: version, settle: settle,
		places: map[string]*place{}, members: map[string]*member{}}
}

// Version is the number of the last visible change.
func (r *Room) Version() uint64 { return r.version }

// Empty reports whether nothing would be lost with the room.
func (r *Room) Empty() bool { return len(r.places) == 0 && r.dirty == 0 && r.settle.IsZero() }

// Step applies one input at time now and returns what its caller must do. It never
// blocks, and equal inputs give equal outputs.
func (r *Room) Step(now time.Time, in Input) (out Output) {
	if now.Before(r.now) {
		now = r.now
	}
	r.now = now
	var all []presence.Edge // edges that get everything
	switch in := in.(type) {
	case Enter:
		out.Reply = r.enter(in)
	case Leave:
		if p := r.places[in.Session]; p != nil && p.user == in.User && p.conn == in.Conn && !p.lost {
			r.lose(p, in.Cause)
		}
		out.Reply = &Reply{Version: r.version, Count: r.visible}
	case List:
		out.Reply = r.list()
	case Update:
		r.update(in)
	case Typing:
		out.Sends = r.typing(in)
	case Announce:
		all = r.announce(in)
	case EdgeLost:
		r.loseEdge(in.Edge, nil, presence.NodeLost)
	case Handed:
		r.handed(in)
	case ExtendGrace:
		r.extend(in.Until)
	case Settled:
		if !r.settle.IsZero() {
			r.settle = r.now
		}
	case Tick:
		r.expire()
	}
	out.Sends = append(out.Sends, r.publish(all)...)
	return out
}

// Deadline is the earliest time at which Step must be called even if no other input
// arrives; false when nothing is pending.
func (r *Room) Deadline() (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if !r.settle.IsZero() {
		earliest(r.settle)
	} else if r.dirty > 0 {
		earliest(r.flushed.Add(r.cfg.Coalesce))
	}
	if r.lost > 0 {
		for _, p := range r.places {
			if p.lost {
				earliest(p.until)
			}
		}
	}
	return at, ok
}

func (r *Room) enter(in Enter) *Reply {
	if refused := r.refuse(in); refused != nil {
		refused.Version = r.version
		return refused
	}
	r.admit(in)
	return r.list()
}

func (r *Room) refuse(in Enter) *Reply {
	p, m := r.places[in.Session], r.members[in.User]
	switch {
	case in.User == "" || in.Session == "" || !in.Occupy && !in.Subscribe:
		return &Reply{Code: BadRequest, Message: "enter needs a user, a session, and occupy or subscribe"}
	case p != nil && p.user != in.User:
		return &Reply{Code: BadRequest, Message: "the session belongs to another user"}
	case len(in.Info) > r.cfg.Info:
		return &Reply{Code: Limit, Message: fmt.Sprintf("info is at most %d bytes", r.cfg.Info)}
	case p == nil && len(r.places) >= r.cfg.Places:
		return &Reply{Code: Limit, Message: fmt.Sprintf("a room holds at most %d sessions", r.cfg.Places)}
	case in.Occupy && (m == nil || m.places == 0) && r.visible >= r.cfg.Occupants:
		return &Reply{Code: Limit, Message: fmt.Sprintf("a room holds at most %d occupants", r.cfg.Occupants)}
	}
	return nil
}

// admit gives the session its place. An older attempt than the one that holds a live
// place changes nothing.
func (r *Room) admit(in Enter) {
	p := r.places[in.Session]
	switch {
	case p == nil:
		p = &place{user: in.User, session: in.Session}
		r.places[in.Session] = p
	case p.user != in.User || !p.lost && in.Attempt < p.attempt:
		return
	}
	r.unsubscribe(p)
	if p.lost {
		p.lost = false
		r.lost--
	}
	p.conn, p.attempt, p.reason = in.Conn, in.Attempt, presence.NoReason
	p.subscribe = in.Subscribe
	if p.subscribe {
		r.count(p.conn.Holder(), 1)
	}
	r.occupy(p, in)
}

// occupy makes the user an occupant by place p, or no longer one.
func (r *Room) occupy(p *place, in Enter) {
	if !in.Occupy {
		r.vacate(p, presence.ReasonExplicit)
		return
	}
	m := r.members[in.User]
	if m == nil {
		m = &member{}
		r.members[in.User] = m
	}
	r.change(m, func() {
		if m.places == 0 {
			m.now = Occupant{User: in.User, EnteredAt: r.now.UnixMilli()}
		}
		if m.places == 0 || m.now.Version.Less(in.Version) {
			r.show(m, in.State, in.Version, in.Hidden)
		}
		m.now.Info = in.Info
		if !p.occupy {
			p.occupy = true
			m.places++
		}
	})
}

// vacate ends the occupancy of place p; the user leaves with its last one.
func (r *Room) vacate(p *place, why presence.Reason) {
	if !p.occupy {
		return
	}
	p.occupy = false
	m := r.members[p.user]
	r.change(m, func() {
		m.places--
		if m.places == 0 && !m.hidden {
			m.now.Reason = why
		}
	})
}

func (r *Room) update(in Update) {
	m := r.members[in.User]
	if m == nil || m.places == 0 || !m.now.Version.Less(in.Version) {
		return
	}
	r.change(m, func() { r.show(m, in.State, in.Version, in.Hidden) })
}

// show sets a state. Hiding looks like leaving on purpose, and its end like entering.
func (r *Room) show(m *member, s presence.State, v presence.Version, hidden bool) {
	if hidden {
		m.now.Reason = presence.ReasonExplicit
	} else if m.hidden && !m.isShown {
		m.now.EnteredAt = r.now.UnixMilli()
	}
	m.now.State, m.now.Version, m.hidden = s, v, hidden
}

func (r *Room) typing(in Typing) []Send {
	m := r.members[in.User]
	to := r.to()
	if m == nil || !m.isVisible() || len(to) == 0 {
		return nil
	}
	for _, p := range r.places {
		if p.user == in.User && p.conn == in.Conn && p.occupy && !p.lost {
			return []Send{{To: to, Typing: &in}}
		}
	}
	return nil
}

func (r *Room) list() *Reply {
	return &Reply{Version: r.version, Occupants: r.tell(), Count: r.visible}
}
