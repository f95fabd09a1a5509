package edge

import (
	"sync"

	"muster/actors/link"
	"muster/clients/wire"
)

// gather collects what the shards answer to one connect, watch or query, until all have or their time is over.
type gather struct {
	s       *socket
	query   bool            // answers change no rows
	replace bool            // what is added is the whole list
	visible map[string]bool // if not nil, the others come in batches
	done    func(home *hub) // runs once, on the home hub

	mu      sync.Mutex
	left    int
	rows    []found
	pending []string
	rooms   []*wire.RoomEnterReply
}

type found struct {
	term uint64
	row  *link.Row
}

// depart adds one answer to wait for.
func (g *gather) depart() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left++
}

// arrive takes one off; the last calls done.
func (g *gather) arrive(h *hub) {
	g.mu.Lock()
	g.left--
	over := g.left == 0
	g.mu.Unlock()
	if over {
		h.pass(g.s.home(), &gathered{g})
	}
}

func (g *gather) take(term uint64, v *link.Views) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range v.GetRows() {
		switch {
		case r.Pending:
			g.pending = append(g.pending, r.User)
		case r.View != nil:
			g.rows = append(g.rows, found{term, r})
		}
	}
}

func (g *gather) miss(users []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending = append(g.pending, users...)
}

// ask gives every hub its part. It holds the gathering open until all parts are out.
func (g *gather) ask(home *hub, add, remove []string) {
	g.depart()
	e := home.edge
	if len(e.hubs) == 1 {
		g.depart()
		home.take(&watching{g.s, add, remove, g})
	} else {
		parts := make([]watching, len(e.hubs))
		split := func(ids []string, to func(*watching) *[]string) {
			for _, id := range ids {
				n := link.ShardOf(g.s.who.key.App, link.KindUser, id) & uint32(len(e.hubs)-1)
				p := to(&parts[n])
				*p = append(*p, id)
			}
		}
		split(add, func(w *watching) *[]string { return &w.add })
		split(remove, func(w *watching) *[]string { return &w.remove })
		for i := range parts {
			if p := &parts[i]; len(p.add)+len(p.remove) > 0 || g.replace || g.visible != nil {
				p.s, p.gather = g.s, g
				g.depart()
				home.pass(e.hubs[i], p)
			}
		}
	}
	g.arrive(home)
}

func visibleSet(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

// chunk is the most bytes of presences in one reply frame.
const chunk = 56 << 10

// replies cuts what was gathered into frames of bounded size. reply makes the n-th reply of presences and pending ids.
func (g *gather) replies(s *socket, reply func(n int, p []*wire.Presence, pending []string, done bool) *wire.Reply) (list [][]byte) {
	presences, pending := g.presences(), g.pending
	for n := 0; ; n++ {
		size, i, j := 0, 0, 0
		for i < len(presences) && size < chunk {
			size += presenceSize(presences[i])
			i++
		}
		for j < len(pending) && size < chunk {
			size += len(pending[j]) + 3
			j++
		}
		done := i == len(presences) && j == len(pending)
		r := reply(n, presences[:i], pending[:j], done)
		b := s.codec.appendReply(newFrame(make([]byte, 0, size+512)), r)
		list = append(list, sealFrame(b, s.codec.opcode()))
		presences, pending = presences[i:], pending[j:]
		if done {
			return list
		}
	}
}

func (g *gather) presences() []*wire.Presence {
	list := make([]*wire.Presence, 0, len(g.rows))
	for _, f := range g.rows {
		if !blank(f.row.View) {
			list = append(list, presenceOf(f.row.User, f.term, f.row.Version, f.row.View))
		}
	}
	return list
}

// presenceSize is a bound for a presence's encoding.
func presenceSize(p *wire.Presence) int {
	return 256 + 2*len(p.User) + 6*len(p.Text) + 6*len(p.Emoji) + len(p.Activity)
}
