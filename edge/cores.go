package edge

import (
	"sync"

	"muster/actors/link"
)

// Times of a shard whose core is not heard, from the last beat that named it.
const (
	quietAfter   = 3000    // ms until its commands are answered as moving
	staleAfter   = 5000    // ms until its views are marked stale
	cutOffAfter  = 10_000  // ms until the clients whose shard it is are sent elsewhere
	cutOffSpread = 5000    // ms over which they are
	unknownAfter = 120_000 // ms until its views are not shown any more
)

// links is what the edge knows of its cores, and which of them leads each shard.
type links struct {
	mu     sync.Mutex
	cores  map[string]*core
	routes [shards]route
	turn   int64 // clock ms of the last turn
}

// route is where a shard is led, by the highest term that a core has told.
type route struct {
	term   uint64
	core   *core // nil: nobody who is heard
	told   int64 // clock ms at which a beat last named it; 0: never
	stale  bool  // the hub was told
	forgot bool  // the hub was told that the views are too old
}

// core is the edge's end of a link with a core.
type core struct {
	edge *Edge
	name string

	// Guarded by links.mu.
	up    link.Uplink
	epoch uint64 // 0: down
	heard bool   // its first beat of the epoch is in
}

// known counts the shards whose leader is known, and sums up their terms.
func (l *links) known() (n int64, terms uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.routes {
		if r := &l.routes[i]; r.core != nil {
			n, terms = n+1, terms+r.term
		}
	}
	return n, terms
}

// Core is the edge's end of its link with a core, for link.NewPipe and link.NewFar: one link at a time for each node.
func (e *Edge) Core(node string) link.Edge {
	l := &e.links
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cores[node]
	if c == nil {
		c = &core{edge: e, name: node}
		if l.cores == nil {
			l.cores = make(map[string]*core)
		}
		l.cores[node] = c
	}
	return c
}

// LinkUp begins an epoch.
func (c *core) LinkUp(up link.Uplink, epoch uint64) {
	l := &c.edge.links
	l.mu.Lock()
	defer l.mu.Unlock()
	c.lose()
	c.up, c.epoch = up, epoch
}

// LinkDown ends an epoch. Sockets, watches and views stay; commands are answered as moving.
func (c *core) LinkDown(epoch uint64) {
	l := &c.edge.links
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.epoch == epoch {
		c.lose()
	}
}

// lose takes the core's shards from it.
func (c *core) lose() {
	c.up, c.epoch, c.heard = nil, 0, false
	for n := range c.edge.links.routes {
		if r := &c.edge.links.routes[n]; r.core == c {
			c.edge.unroute(uint32(n), r)
		}
	}
}

func (e *Edge) unroute(n uint32, r *route) {
	r.core = nil
	e.hubOf(n).tell(&unlinked{n})
}

// Beat takes a core's beat: which shards it leads, and with which terms. Those that this core did not lead on this
// epoch, or not with this term, are announced. Of two cores that claim a shard the higher term counts.
func (c *core) Beat(b *link.Beat) {
	e := c.edge
	l := &e.links
	now := e.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Epoch != c.epoch || c.epoch == 0 {
		return
	}
	c.heard = true
	for i, n := range b.Shards {
		if i >= len(b.Terms) || n >= shards {
			continue
		}
		r, term := &l.routes[n], b.Terms[i]
		switch {
		case term < r.term, term == r.term && r.core != nil && r.core != c:
		case term == r.term && r.core == c:
			r.told = now
		default:
			*r = route{term: term, core: c, told: now}
			e.hubOf(n).tell(&linked{shard: n, term: term, up: c.up})
		}
	}
}

// Down takes one message of a core.
func (c *core) Down(m *link.Down) {
	if m.Shard < shards {
		c.edge.hubOf(m.Shard).tell(m)
	}
}

// second runs once a second.
func (e *Edge) second(n int64) {
	l := &e.links
	var ups []link.Uplink
	l.mu.Lock()
	for _, c := range l.cores {
		if c.heard {
			ups = append(ups, c.up)
		}
	}
	lost, any := e.watchRoutes(e.clock())
	l.mu.Unlock()
	for _, up := range ups { // each link numbers its own
		up.Beat(&link.Beat{Sessions: uint64(max(e.count.sessions.Load(), 0)), Draining: e.draining.Load()})
	}
	if any {
		e.cutOff(&lost)
	}
	if n%60 == 0 {
		for _, h := range e.hubs {
			h.tell(minute{})
		}
	}
}

// watchRoutes looks after shards that nobody names. It returns for how many ms those have been beyond the bound at which
// their clients are sent elsewhere. A turn that comes late decides nothing: the beats that it missed may be waiting.
func (e *Edge) watchRoutes(now int64) (lost [shards]int64, any bool) {
	l := &e.links
	late := now-l.turn > 1500 && l.turn != 0
	if l.turn = now; late {
		return lost, false
	}
	var stale, unknown [maxHubs]*lapsed
	mark := func(list *[maxHubs]*lapsed, n uint32, r *route, unknown bool) {
		h := int(n) & (len(e.hubs) - 1)
		if list[h] == nil {
			list[h] = &lapsed{unknown: unknown}
		}
		list[h].shards = append(list[h].shards, n)
		list[h].asOf = append(list[h].asOf, e.unix(r.told))
	}
	for i := range l.routes {
		n, r := uint32(i), &l.routes[i]
		age := now - r.told
		if r.told == 0 || age < quietAfter {
			continue
		}
		if r.core != nil {
			e.unroute(n, r)
		}
		if age >= staleAfter && !r.stale {
			r.stale = true
			mark(&stale, n, r, false)
		}
		if age >= unknownAfter && !r.forgot {
			r.forgot = true
			mark(&unknown, n, r, true)
		}
		if age >= cutOffAfter {
			lost[n], any = age-cutOffAfter+1, true
		}
	}
	for i, h := range e.hubs {
		if stale[i] != nil {
			h.tell(stale[i])
		}
		if unknown[i] != nil {
			h.tell(unknown[i])
		}
	}
	return lost, any
}

// cutOff closes in each second a part of the sockets whose own shard has been lost for too long.
func (e *Edge) cutOff(lost *[shards]int64) {
	e.sockets.each(func(s *socket) {
		if s.phase() != live {
			return
		}
		if over := lost[s.who.shard]; over > 0 && over > int64(s.conn>>22*0x9e3779b97f4a7c15>>40)%cutOffSpread {
			s.close(closeCutOff)
		}
	})
}

// Linked reports whether any core has been heard on its present link.
func (e *Edge) Linked() bool {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	for _, c := range e.links.cores {
		if c.heard {
			return true
		}
	}
	return false
}
