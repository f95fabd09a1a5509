package presence

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"
)

// world wires users, a gateway, edges and clients together without goroutines: queues
// stand for links and mailboxes, and a pick decides which of them moves next.
type world struct {
	cfg     *Config
	now     time.Time
	term    uint64
	names   *Names
	gw      *Gateway
	actors  map[string]*actor
	edges   map[string]*vedge
	clients map[string]*client               // by user/device
	records map[string][]Record              // of users, durable
	lazy    map[string][]Record              // not yet
	letters []*letter                        // transfers
	outside                                  // what publishers and devices know
	log     func(format string, args ...any) // what happens, for stories and traces
	fail    func(format string, args ...any)
	pick    func(n int) int
	bug     bug
	checked bool // hold the model against the users, and the checkers
	opened  time.Time
	silent  map[string]time.Time // user → last activation dropped
	told    map[string]*Shown    // what the gateway has heard from an activation
	met     map[string]bool      // the activation has met a session without presuming one
	marked  map[string]bool      // at the last loss, what was stored said online and visible
	floods  int
	twice   bool // transfers may come twice
}

type actor struct {
	key    Key
	u      *User
	m      *model
	inbox  []Input
	outbox []GatewayInput

	blurred bool // not all reasons of gaps are kept
}

// client is a device as its owner knows it.
type client struct {
	user, device string
	class        Class
	session      string
	attempt      uint64
	edge         string
	conn         uint64
	state        string    // off, connecting, on
	safe         time.Time // no offline may be said before, while not on
	inactive     bool
	grace        time.Duration
	box          *inbox // nil: does not read the outbox
}

// bug breaks one rule at the border of the core.
type bug struct {
	name   string
	cfg    func(*Config)
	input  func(w *world, a *actor, in Input) Input // nil: swallowed
	gin    func(w *world, in GatewayInput) GatewayInput
	edge   func(w *world, m ToEdge) (ToEdge, bool)
	open   func(*Open)
	noTick bool
	hasty  bool // stops idle activations without asking
	output func(w *world, a *actor, in Input, out *Output)
	keep   func(r Record) bool // false: the record is lost
}

const testApp = "app"

func newWorld(cfg Config) *world {
	w := &world{
		cfg: &cfg, now: time.UnixMilli(1_800_000_000_000).UTC(), names: NewNames(&sync.Mutex{}), actors: map[string]*actor{},
		edges: map[string]*vedge{}, clients: map[string]*client{}, records: map[string][]Record{}, lazy: map[string][]Record{}, outside: newOutside(),
		log: func(string, ...any) {}, pick: func(int) int { return 0 }, silent: map[string]time.Time{},
	}
	w.fail = func(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
	return w
}

// open opens the shard in the next term; everything in memory of the old one is gone.
func (w *world) open() {
	w.term++
	w.crash()
	w.marked = map[string]bool{}
	o := Open{At: w.now, Term: w.term}
	for _, e := range w.edgeList() {
		if e.alive {
			o.Barrier = append(o.Barrier, e.id())
			o.Draining = o.Draining || e.draining
		}
	}
	for _, user := range sortedKeys(w.records) {
		online := false
		for _, r := range w.records[user] {
			if m, ok := r.(Marker); ok {
				online = m.Online
			}
		}
		w.mark(user)
		if online {
			o.Online = append(o.Online, Key{testApp, user})
		}
	}
	if w.bug.open != nil {
		w.bug.open(&o)
	}
	if w.gw != nil {
		w.gw.Close()
	}
	w.actors = map[string]*actor{}
	w.opened, w.met, w.told = w.now, map[string]bool{}, map[string]*Shown{}
	w.gw = NewGateway(w.cfg, w.names, o)
	for _, e := range w.edgeList() {
		e.newTerm(w)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (w *world) edgeList() (all []*vedge) {
	for _, n := range sortedKeys(w.edges) {
		all = append(all, w.edges[n])
	}
	return all
}

// gateway steps the gateway and carries its effects out.
func (w *world) gateway(in GatewayInput) {
	if w.bug.gin != nil {
		if in = w.bug.gin(w, in); in == nil {
			return
		}
	}
	w.learn(in)
	if p, ok := in.(Stepped); ok && p.Publish != nil {
		w.told[p.Key.User] = p.Publish
	}
	out := w.gw.Step(w.now, in)
	for _, m := range out.Edges {
		if w.bug.edge != nil {
			var ok bool
			if m, ok = w.bug.edge(w, m); !ok {
				continue
			}
		}
		if w.checked {
			w.checkMessage(m)
		}
		if e := w.edges[m.Edge.Name]; e != nil && e.id() == m.Edge && e.linked {
			e.inbox = append(e.inbox, down{w.term, m.Message})
		}
	}
	for _, m := range out.Users {
		a := w.actor(m.Key)
		a.inbox = append(a.inbox, m.In)
	}
	for _, k := range out.Stop {
		if a := w.actors[k.User]; a != nil {
			if len(a.inbox) > 0 {
				w.fail("%s stopped with %d inputs on their way", k.User, len(a.inbox))
			}
			delete(w.actors, k.User)
		}
	}
	if w.checked {
		w.checkGateway()
	}
}

func (w *world) actor(k Key) *actor {
	a := w.actors[k.User]
	if a == nil {
		seen := w.gw.LastSeen(k)
		a = &actor{key: k, u: NewUser(w.cfg, seen), m: newModel(w.cfg, seen)}
		a.u.Restore(w.stored(k.User)...)
		a.m.restore(w.stored(k.User))
		w.actors[k.User] = a
	}
	return a
}

// user steps an activation with an input of its mailbox, or Tick.
func (w *world) user(a *actor, in Input) {
	if w.taken(a, in) {
		a.outbox = append(a.outbox, Stepped{Key: a.key, Seen: a.u.Seen() + 1})
		a.u.seen++
		return
	}
	in = w.lookUp(a, in)
	given := in
	if w.bug.input != nil {
		if in = w.bug.input(w, a, in); in == nil {
			a.outbox = append(a.outbox, Stepped{Key: a.key, Seen: a.u.Seen() + 1})
			a.u.seen++
			return
		}
	}
	var slot Edge
	if at, ok := given.(Attach); ok {
		slot = at.Conn.Holder()
	}
	out := a.u.Step(w.now, in)
	if w.bug.output != nil {
		w.bug.output(w, a, given, &out)
	}
	if _, ok := given.(Erase); ok {
		w.marked[a.key.User] = false
	}
	if w.checked {
		w.checkUser(a, given, &out)
	} else {
		a.m.step(a.key.User, w.now, given)
	}
	w.keep(a.key.User, out.Records)
	if w.checked {
		w.checkRestore(a)
	}
	w.outcome(a, given, &out)
	for _, c := range out.Sends {
		w.log("order %s conn %d of %s closed: %d %s", c.Conn.Edge, c.Conn.ID, a.key.User, c.Code, c.Reason)
		w.toEdge(c.Conn.Holder(), c)
	}
	if at, ok := given.(Attach); ok {
		w.toEdge(slot, attached{at, out.Reply})
	}
	if c, ok := given.(SetClaim); ok && c.Session != "" && out.Reply.Code == OK {
		w.toEdge(c.Conn.Holder(), claimed{c})
	}
	if code := out.Reply.Code; code != OK {
		w.log("%s: refused %T: code %d %s", a.key.User, given, code, out.Reply.Message)
	}
	if _, tick := given.(Tick); !tick || out.Publish != nil {
		a.outbox = append(a.outbox, Stepped{a.key, a.u.Seen(), out.Publish})
	}
	if w.bug.hasty && a.u.Idle() && w.actors[a.key.User] == a {
		delete(w.actors, a.key.User)
	}
	if a.u.Idle() {
		a.outbox = append(a.outbox, Passivate{a.key, a.u.Seen()})
	}
}

func (w *world) toEdge(e Edge, m any) {
	if v := w.edges[e.Name]; v != nil && v.id() == e && v.linked {
		v.inbox = append(v.inbox, down{w.term, m})
	}
}

// move delivers one queued message; false when all queues are empty.
func (w *world) move() bool {
	var ready []func()
	for _, e := range w.edgeList() {
		if len(e.outbox) > 0 {
			ready = append(ready, func() {
				in := e.outbox[0]
				e.outbox = e.outbox[1:]
				w.gateway(in)
			})
		}
		if len(e.inbox) > 0 {
			ready = append(ready, func() {
				m := e.inbox[0]
				e.inbox = e.inbox[1:]
				e.receive(w, m)
			})
		}
	}
	if send := w.post(); send != nil {
		ready = append(ready, send)
	}
	for _, n := range sortedKeys(w.actors) {
		a := w.actors[n]
		if len(a.inbox) > 0 {
			ready = append(ready, func() {
				in := a.inbox[0]
				a.inbox = a.inbox[1:]
				w.user(a, in)
			})
		}
		if len(a.outbox) > 0 {
			ready = append(ready, func() {
				in := a.outbox[0]
				a.outbox = a.outbox[1:]
				w.gateway(in)
			})
		}
	}
	if len(ready) == 0 {
		return false
	}
	ready[w.pick(len(ready))]()
	return true
}

func (w *world) drain() {
	for i := 0; w.move(); i++ {
		if i > 1_000_000 {
			w.fail("the queues never empty")
			return
		}
	}
}

// advance moves the clock and fires what is due on the way. settle: empties the queues
// at each stop.
func (w *world) advance(d time.Duration, settle bool) {
	end := w.now.Add(d)
	for {
		at, fire := end.Add(1), func() {}
		if t, ok := w.gw.Deadline(); ok && t.Before(at) {
			at, fire = t, func() { w.gateway(Tick{}) }
		}
		for _, n := range sortedKeys(w.actors) {
			a := w.actors[n]
			if t, ok := a.u.Deadline(); ok && t.Before(at) && !w.bug.noTick {
				at, fire = t, func() { w.user(a, Tick{}) }
			}
		}
		if at.After(end) {
			break
		}
		if at.After(w.now) {
			w.now = at
		}
		fire()
		if settle {
			w.drain()
		}
	}
	w.now = end
}

// drop loses an activation with its mailbox, as a panic does.
func (w *world) drop(user string) {
	a := w.actors[user]
	if a == nil {
		return
	}
	for _, in := range a.outbox { // already on its way
		w.gateway(in)
	}
	delete(w.actors, user)
	w.unsent(user)
	w.mark(user)
	w.silent[user] = w.now
	delete(w.met, user)
	delete(w.told, user)
	for _, in := range a.inbox { // their senders hear nothing
		if at, ok := in.(Attach); ok {
			if e := w.edges[at.Conn.Edge]; e != nil && e.id() == at.Conn.Holder() {
				e.giveUp(w, at.Conn.ID)
			}
		}
	}
	w.gateway(Dropped{a.key})
}

func (v View) text() string {
	var b strings.Builder
	b.WriteString(v.State.String())
	if v.State == Offline && v.Reason != NoReason {
		fmt.Fprintf(&b, " (%s)", [...]string{"", "explicit", "timeout", "kicked", "node_lost", "expired"}[v.Reason])
	}
	for _, d := range v.Devices {
		fmt.Fprintf(&b, " %s=%s", d.Class, d.State)
	}
	if v.Text != "" {
		fmt.Fprintf(&b, " %q", v.Text)
	}
	if v.Emoji != "" {
		fmt.Fprintf(&b, " %s", v.Emoji)
	}
	if v.Activity != "" {
		fmt.Fprintf(&b, " %s", v.Activity)
	}
	if v.Bucket != NoBucket {
		fmt.Fprintf(&b, " seen %s", [...]string{"", "recently", "within a week", "within a month", "long ago"}[v.Bucket])
	}
	if !v.LastSeen.IsZero() {
		fmt.Fprintf(&b, " seen %s", v.LastSeen.Format("15:04:05"))
	}
	return b.String()
}

// encode is what an observer's client would receive, byte for byte.
func (v View) encode() string {
	return fmt.Sprintf("%d|%d|%d|%q|%q|%q|%v|%d|%d", v.State, v.Reason, v.Bucket, v.Text, v.Emoji, v.Activity, v.Devices,
		milli(v.LastSeen), milli(v.Since))
}
