package presence

import (
	"slices"
	"strings"
	"time"
)

// Gateway is the presence part of one open shard. It is not safe for concurrent use.
type Gateway struct {
	cfg      *Config
	names    *Names
	term     uint64
	version  uint64 // of the last visible change
	opened   int64  // Unix ms
	entries  map[Key]*entry
	apps     map[string]*app
	edges    []*edge // by slot; nil: free
	slots    map[Edge]uint16
	barrier  map[Edge]bool // edges still expected to announce
	expected map[Key]bool  // users known to have been online
	awaited  map[Key]bool  // users announced while settling who have not been heard
	handed   map[Key]bool  // users whose last sessions the leader before handed over
	settling bool
	draining int64 // when an edge was last known to drain, Unix ms
	storm    bool
	lost     [6]struct{ second, n int64 } // sessions lost, by second
	wakes    wakes
	loaded   []Key // for an answer that is to follow
	live     int
	detached int
	rows     int
}

// app is one application's part.
type app struct {
	name   string
	online index
	states [Online + 1]uint64
}

// entry is one user: watched, active, or offline with something to show.
type entry struct {
	key      Key
	view     *View // nil: offline with nothing to show
	audience *Audience
	version  uint64
	lostAt   int64 // when the last session in grace was lost, Unix ms
	until    int64 // when view or audience end by themselves, Unix ms; 0: never
	place    int32 // in wakes, from 1; 0: not there
	rows     rowTable
	tallies  []tally
	holds    []hold
	routed   uint32 // inputs sent to the activation
	seen     uint32 // of which it has handled these
	live     uint16
	detached uint16
	active   bool // an activation exists
	known    bool // one existed, or the stored state was loaded
	presumed bool // it has nothing but a presumed session
	guess    bool // view is made up from a presumed session
	coming   bool // sessions of it were announced, and the activation has not said what it shows
	owed     bool // watchers were answered pending, or an offline was held back
}

// hold says that an edge may hold sessions of the user: its place in edge.users.
type hold struct {
	edge  uint16
	place uint32
}

// NewGateway opens a shard.
func NewGateway(cfg *Config, names *Names, open Open) *Gateway {
	g := &Gateway{
		cfg: cfg, names: names, term: open.Term, version: max(open.Version, 1), opened: open.At.UnixMilli(),
		entries: map[Key]*entry{}, apps: map[string]*app{}, slots: map[Edge]uint16{},
		barrier: map[Edge]bool{}, expected: map[Key]bool{}, handed: map[Key]bool{}, awaited: map[Key]bool{},
	}
	for _, e := range open.Barrier {
		g.barrier[e] = true
	}
	for _, k := range open.Online {
		g.expected[k] = true
	}
	if open.Draining {
		g.draining = g.opened
	}
	g.settling = len(g.barrier) > 0 || len(g.expected) > 0
	return g
}

// Step applies one input at time now and returns what its caller must do. It never
// blocks, and equal inputs give equal effects.
func (g *Gateway) Step(now time.Time, in GatewayInput) (out Effects) {
	t := now.UnixMilli()
	switch in := in.(type) {
	case Deliver:
		g.deliver(in, &out)
	case Stepped:
		g.stepped(t, in, &out)
	case Dropped:
		g.dropped(t, in.Key, &out)
	case Passivate:
		g.passivate(in, &out)
	case Loaded:
		g.load(t, in, &out)
	case Interest:
		g.interest(t, &in, &out)
	case Query:
		g.query(t, &in, &out)
	case Typing:
		g.typing(&in, &out)
	case Announce:
		g.announce(t, &in, &out)
	case EdgeUp:
		g.edgeUp(t, in.Edge, &out)
	case EdgeDown:
		g.edgeDown(t, in.Edge)
	case EdgeDead:
		g.edgeDead(t, in.Edge, &out)
	case EdgeDraining:
		g.edgeDraining(t, in)
	case Cluster:
		g.cluster(t, in, &out)
	case Tick:
		g.tick(t, &out)
	}
	switch in.(type) {
	case Interest, Query, Cluster:
		g.unload()
	}
	return out
}

// Deadline is the earliest time at which Step must be called with Tick.
func (g *Gateway) Deadline() (at time.Time, ok bool) {
	var first int64
	if g.settling {
		first = g.opened + g.cfg.Settle.Milliseconds()
		if g.all() {
			first = g.opened
		}
	}
	for _, e := range g.edges {
		if e != nil && !e.up {
			if t := e.downAt + g.cfg.Unreachable.Milliseconds(); first == 0 || t < first {
				first = t
			}
		}
	}
	if len(g.wakes) > 0 && (first == 0 || g.wakes[0].until < first) {
		first = g.wakes[0].until
	}
	return instant(first), first != 0
}

func (g *Gateway) tick(now int64, out *Effects) {
	g.wake(now, out)

	if g.settling && (g.all() || now >= g.opened+g.cfg.Settle.Milliseconds()) {
		g.settle(now, out)
	}
	for _, e := range g.edges {
		if e != nil && !e.up && now >= e.downAt+g.cfg.Unreachable.Milliseconds() {
			g.edgeDead(now, e.edge, out)
		}
	}
}

// Close gives back the interned names; the Gateway must not be used afterwards.
func (g *Gateway) Close() {
	for _, e := range g.entries {
		e.rows.each(func(r *row) { g.names.Release(r.watcher) })
	}
	g.entries = nil
}

// entry returns the user's entry, made if need be.
func (g *Gateway) entry(k Key) *entry {
	e := g.entries[k]
	if e == nil {
		k.App = g.app(k.App).name
		e = &entry{key: k, version: g.version}
		g.entries[k] = e
	}
	return e
}

func (g *Gateway) app(name string) *app {
	a := g.apps[name]
	if a == nil {
		a = &app{name: name}
		g.apps[name] = a
	}
	return a
}

// reap forgets an entry that nobody asks for: what the user shows offline is stored.
func (g *Gateway) reap(e *entry) {
	if e.rows.n == 0 && len(e.holds) == 0 && !e.active && e.state() == Offline && !e.owed && !e.presumed {
		g.unarm(e)
		delete(g.entries, e.key)
	}
}

// send routes an input to the user's activation.
func (g *Gateway) send(e *entry, in Input, out *Effects) {
	g.unarm(e)
	e.active = true
	e.routed++
	out.Users = append(out.Users, ToUser{e.key, in})
}

func (g *Gateway) deliver(in Deliver, out *Effects) {
	if !validID(in.Key.User) {
		return
	}
	slot, known := g.slots[in.Edge]
	if in.Edge != (Edge{}) && !known {
		return // of an edge that is dead
	}
	e := g.entry(in.Key)
	if _, ok := in.In.(Attach); ok && known {
		g.hold(e, slot)
	}
	if h, ok := in.In.(Handed); ok && g.settling && !h.Live {
		g.handed[in.Key] = true
	}
	g.send(e, in.In, out)
}

// load takes over what is stored of a user without activation. It is forgotten with the
// answer, unless that made a row.
func (g *Gateway) load(now int64, in Loaded, out *Effects) {
	e := g.entry(in.Key)
	if e.active || e.known {
		return
	}
	e.known = true
	g.loaded = append(g.loaded, in.Key)
	if p := in.Publish; p != nil && p.View.State == Offline {
		old, audience := e.shows(), e.audience
		g.show(e, p.View)
		e.audience = p.Audience
		g.sleep(e, milli(p.Until))
		if audience != e.audience {
			g.remask(now, e, out)
		}
		if !g.pending(e) {
			g.change(now, e, old, p.View, false, out)
		}
	}
}

// unload forgets what was loaded for answers that have been given.
func (g *Gateway) unload() {
	for _, k := range g.loaded {
		if e := g.entries[k]; e != nil {
			g.reap(e)
		}
	}
	g.loaded = nil
}

// Known reports that the Gateway can answer for a user: it has an activation or has been
// loaded. Else the caller first gives Loaded, and the answer's input next.
func (g *Gateway) Known(k Key) bool {
	e := g.entries[k]
	return e != nil && (e.active || e.known)
}

func (g *Gateway) passivate(in Passivate, out *Effects) {
	e := g.entries[in.Key]
	if e == nil || !e.active || e.routed != in.Seen {
		return
	}
	e.active, e.routed, e.seen, e.known = false, 0, 0, true
	g.releaseAll(e)
	g.sleep(e, e.until)
	out.Stop = append(out.Stop, e.key)
	g.reap(e)
}

// dropped: the activation is gone with all that was on its way to it. Who was there is
// presumed to be, until the edges have told.
func (g *Gateway) dropped(now int64, k Key, out *Effects) {
	e := g.entries[k]
	if e == nil {
		return
	}
	until := now + g.cfg.Presume.Milliseconds()
	for _, h := range e.holds {
		if ed := g.edges[h.edge]; !ed.up { // it cannot tell before its link is back
			until = max(until, ed.downAt+g.cfg.Unreachable.Milliseconds())
		}
	}
	g.releaseAll(e)
	e.active, e.routed, e.seen, e.coming = false, 0, 0, false
	if e.live > 0 || e.detached > 0 || e.state() != Offline || e.owed {
		g.send(e, Presume{instant(until)}, out)
	}
	g.live -= int(e.live)
	g.detached -= int(e.detached)
	e.live, e.detached = 0, 0
	for _, ed := range g.edges {
		if ed != nil && ed.up {
			out.Edges = append(out.Edges, ToEdge{ed.edge, &AnnounceAgain{k}})
		}
	}
	g.resolve(now, e, out)
	g.sleep(e, e.until)
	g.reap(e)
	g.answered(now, k, out)
}

func (e *entry) state() State {
	if e.view == nil {
		return Offline
	}
	return e.view.State
}

// shows is the entry's view, never nil.
func (e *entry) shows() *View {
	if e.view == nil {
		return &View{}
	}
	return e.view
}

// pending reports that nobody can answer for the user yet.
func (g *Gateway) pending(e *entry) bool {
	return e.guess || e.owed || (g.settling || e.coming) && e.state() == Offline
}

// maskOf decides what a watcher may see.
func (g *Gateway) maskOf(e *entry, w Watcher) Mask {
	if w.User == e.key.User {
		return AllFields
	}
	a := e.audience
	if a == nil {
		a = g.cfg.audience()
	}
	m := a.Mask(w, g.cfg.Reciprocal)
	if g.cfg.Buckets && m&FieldState != 0 && m&FieldLastSeen == 0 {
		m |= FieldBucket
	}
	return m
}

// sorted brings keys into one order.
func sorted(keys []Key) []Key {
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.App, b.App); c != 0 {
		return c
	}
	return strings.Compare(a.User, b.User)
}
