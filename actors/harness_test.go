package actors

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster/actors/actorstest"
	"muster/actors/link"
	"muster/actors/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testEdge is an edge without sockets: it holds sessions and watches, announces them as
// the rules say, and writes down what its watchers and its conns are told.
type testEdge struct {
	t    testing.TB
	name string

	mu        sync.Mutex
	ports     []*port
	leads     map[uint32]*port  // by shard, of the highest term told
	terms     map[uint32]uint64 // by shard, the highest told
	old       int               // messages of lower terms that came after
	announces int
	sessions  map[string]*link.Attach        // by session
	watches   map[string][]string            // watcher → users
	rooms     map[string][]*link.RoomCommand // room → enters
	masks     map[string]uint32              // watcher>user → mask
	vers      map[string][2]uint64
	shown     map[string]string // watcher>user → what it shows
	log       []string          // "watcher>user: state"
	told      []string          // closes, replies, room changes …
	answers   map[uint64]*link.Down
	calls     uint64
	silent    bool                             // never announces
	slow      time.Duration                    // until it announces
	dull      bool                             // keeps silent after its first announcement on a new link, too
	closed    func(*link.CloseConn)            // nil: closes are written down
	alter     func(*link.Up)                   // nil: what is sent is not changed
	changed   func(watcher, user, what string) // nil: nobody hears of what watchers are shown
	boxes     []string                         // what conns were delivered
	batches   int
}

func newTestEdge(t testing.TB, name string) *testEdge {
	return &testEdge{t: t, name: name, leads: map[uint32]*port{}, terms: map[uint32]uint64{}, sessions: map[string]*link.Attach{}, watches: map[string][]string{},
		rooms: map[string][]*link.RoomCommand{}, masks: map[string]uint32{}, vers: map[string][2]uint64{},
		shown: map[string]string{}, answers: map[uint64]*link.Down{}}
}

// port is the edge's end of its link with one core.
type port struct {
	edge      *testEdge
	up        link.Uplink
	announced map[uint32]uint64
}

func (e *testEdge) port() *port {
	p := &port{edge: e}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ports = append(e.ports, p)
	return p
}

func (p *port) LinkUp(up link.Uplink, _ uint64) {
	p.edge.mu.Lock()
	defer p.edge.mu.Unlock()
	if p.up = up; p.announced == nil || !p.edge.dull {
		p.announced = map[uint32]uint64{}
	}
}

func (p *port) LinkDown(uint64) {}

func (p *port) Beat(b *link.Beat) {
	e := p.edge
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, shard := range b.Shards {
		if b.Terms[i] < e.terms[shard] {
			continue
		}
		e.leads[shard], e.terms[shard] = p, b.Terms[i]
		if p.announced[shard] != b.Terms[i] && !e.silent {
			p.announced[shard] = b.Terms[i]
			p.announce(shard, b.Terms[i])
		}
	}
}

// announce announces a shard, some time later if the edge is a slow one. The edge's lock is held.
func (p *port) announce(shard uint32, term uint64) {
	e, up := p.edge, p.up
	if e.slow == 0 {
		e.announce(p, shard, term, "")
		return
	}
	time.AfterFunc(e.slow, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if p.up == up && p.announced[shard] == term {
			e.announce(p, shard, term, "")
		}
	})
}

func (p *port) Down(d *link.Down) {
	e := p.edge
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.Term < e.terms[d.Shard] {
		e.old++
		return
	}
	e.take(p, d)
}

func (e *testEdge) beat(draining bool) {
	e.mu.Lock()
	ports := slices.Clone(e.ports)
	e.mu.Unlock()
	for _, p := range ports {
		e.mu.Lock()
		up := p.up
		e.mu.Unlock()
		if up != nil {
			up.Beat(&link.Beat{Draining: draining})
		}
	}
}

// out sends on a link, whose port the caller read under the edge's lock: a reset replaces
// it at any time.
func (e *testEdge) out(up link.Uplink, m *link.Up) {
	if e.alter != nil {
		e.alter(m)
	}
	_ = up.Up(m)
}

// announce says all that the edge holds of a shard, or of one user.
func (e *testEdge) announce(p *port, shard uint32, term uint64, user string) {
	e.announces++
	a := &link.Announce{Id: uint64(e.announces), Term: term, SessionsDone: true, Done: user == "", User: user}
	if user != "" {
		a.App = app
	}
	for _, id := range slices.Sorted(maps.Keys(e.sessions)) {
		s := e.sessions[id]
		if shardOf(s.User) == shard && (user == "" || s.User == user) {
			a.Sessions = append(a.Sessions, s)
		}
	}
	if user != "" { // in two messages, as a shard's is when it is large
		e.out(p.up, &link.Up{Shard: shard, Body: &link.Up_Announce{Announce: a}})
		a = &link.Announce{Id: a.Id, Term: term, Done: true, App: app, User: user}
	} else {
		for _, w := range slices.Sorted(maps.Keys(e.watches)) {
			var mine []string
			for _, u := range e.watches[w] {
				if shardOf(u) == shard {
					mine = append(mine, u)
					if s := e.shown[w+">"+u]; s != "" && !strings.HasPrefix(s, "offline") {
						a.Seen = append(a.Seen, &link.Seen{App: app, Users: []string{u}})
					}
				}
			}
			if mine != nil {
				a.Watches = append(a.Watches, &link.Interest{App: app, Watcher: w, Add: mine})
			}
		}
		for _, room := range slices.Sorted(maps.Keys(e.rooms)) {
			if link.ShardOf(app, link.KindRoom, room) == shard {
				a.Rooms = append(a.Rooms, e.rooms[room]...)
			}
		}
	}
	e.out(p.up, &link.Up{Shard: shard, Body: &link.Up_Announce{Announce: a}})
}

// take takes a message that is not of an older term.
func (e *testEdge) take(p *port, d *link.Down) {
	switch b := d.Body.(type) {
	case *link.Down_Views:
		for _, r := range b.Views.Rows {
			e.masks[b.Views.Watcher+">"+r.User] = r.Mask
			if !r.Pending {
				e.see(b.Views.Watcher, r.User, [2]uint64{d.Term, r.Version}, r.View, true)
			}
		}
		e.answers[b.Views.Call] = d
	case *link.Down_Change:
		for _, w := range e.watchersOf(b.Change.User) {
			for _, v := range b.Change.Views {
				if v.Mask == e.masks[w+">"+b.Change.User] {
					e.see(w, b.Change.User, [2]uint64{d.Term, b.Change.Version}, v, false)
				}
			}
		}
	case *link.Down_Remask:
		for i, w := range b.Remask.Watchers {
			e.masks[w+">"+b.Remask.User] = b.Remask.Masks[i]
			for _, v := range b.Remask.Views {
				if v.Mask == b.Remask.Masks[i] {
					e.see(w, b.Remask.User, [2]uint64{d.Term, b.Remask.Version}, v, true)
				}
			}
		}
	case *link.Down_Attached:
		if b.Attached.Outbox != nil {
			e.box(b.Attached.Outbox)
		}
		if b.Attached.Code == link.Code_STALE_ATTEMPT {
			maps.DeleteFunc(e.sessions, func(_ string, s *link.Attach) bool { return s.Conn == b.Attached.Conn })
		}
		e.answers[b.Attached.Call] = d
	case *link.Down_Acted:
		e.answers[b.Acted.Call] = d
	case *link.Down_Answer:
		e.answers[b.Answer.Call] = d
	case *link.Down_Room:
		e.answers[b.Room.Call] = d
	case *link.Down_Outbox:
		e.box(b.Outbox)
	case *link.Down_Contacts:
		for _, r := range b.Contacts.Rows {
			e.told = append(e.told, fmt.Sprintf("contact %s→%s %s", b.Contacts.User, r.User, relation(r)))
		}
	case *link.Down_Close:
		if e.closed != nil {
			e.closed(b.Close)
			for id, s := range e.sessions {
				if s.Conn == b.Close.Conn {
					delete(e.sessions, id)
					e.out(p.up, &link.Up{Shard: d.Shard, Body: &link.Up_Detach{Detach: &link.Detach{App: app, User: s.User, Session: id,
						Conn: s.Conn, Attempt: s.Attempt, Cause: link.Cause_KICKED}}})
				}
			}
			return
		}
		e.told = append(e.told, fmt.Sprintf("close %s/%d %d", b.Close.User, b.Close.Conn, b.Close.Code))
	case *link.Down_Again:
		if b.Again.User == "" {
			e.announce(p, d.Shard, d.Term, "")
		} else {
			e.announce(p, d.Shard, d.Term, b.Again.User)
		}
	case *link.Down_Typing:
		e.told = append(e.told, fmt.Sprintf("typing %s→%s%s", b.Typing.User, b.Typing.To, b.Typing.Room))
	case *link.Down_RoomChange:
		c := b.RoomChange
		e.told = append(e.told, fmt.Sprintf("%s: +%s ~%s -%s of %d%s", c.Room, users(c.Enter), users(c.Update), users(c.Leave), c.Count, all(c)))
	}
}

// box writes down what a conn is delivered.
func (e *testEdge) box(b *link.OutboxBatch) {
	e.batches++
	what := func(format string, args ...any) {
		e.boxes = append(e.boxes, fmt.Sprintf("%d: ", b.Conn)+fmt.Sprintf(format, args...))
	}
	if b.Reset_ {
		what("reset")
	}
	if b.Gap != nil {
		what("gap %d–%d %d", b.Gap.From, b.Gap.To, b.Gap.Reason)
	}
	for _, n := range b.Entries {
		what("%d %s", n.Offset, n.Body)
	}
}

func relation(r *link.ContactRow) string {
	s := ""
	for _, f := range []struct {
		on   bool
		name string
	}{{r.To, "to"}, {r.From, "from"}, {r.PendingOut, "out"}, {r.PendingIn, "in"}, {r.Approved, "approved"}, {r.Blocked, "blocked"}} {
		if f.on {
			s += "+" + f.name
		}
	}
	return s
}

func all(c *link.RoomChange) string {
	if c.All {
		return " all"
	}
	return ""
}

func users(all []*link.Occupant) string {
	var names []string
	for _, o := range all {
		names = append(names, o.User)
	}
	return strings.Join(names, ",")
}

func (e *testEdge) watchersOf(user string) (all []string) {
	for w, us := range e.watches {
		if slices.Contains(us, user) {
			all = append(all, w)
		}
	}
	slices.Sort(all)
	return all
}

// see is what a hub does: older versions are dropped, and what looks the same is not
// shown again. exact: answers replace whatever the version.
func (e *testEdge) see(w, user string, ver [2]uint64, v *link.View, exact bool) {
	key := w + ">" + user
	if last := e.vers[key]; !exact && cmp.Or(cmp.Compare(ver[0], last[0]), cmp.Compare(ver[1], last[1])) <= 0 {
		return
	}
	e.vers[key] = ver
	s := states[v.GetState()]
	if v.GetText() != "" {
		s += " " + v.Text
	}
	was, known := e.shown[key]
	if e.shown[key] = s; was != s && (known || s != "offline") {
		e.log = append(e.log, key+": "+s)
		if e.changed != nil {
			e.changed(w, user, s)
		}
	}
}

var states = map[uint32]string{uint32(presence.Offline): "offline", uint32(presence.Away): "away",
	uint32(presence.DND): "dnd", uint32(presence.Online): "online"}

const app = "acme"

func shardOf(user string) uint32 { return link.ShardOf(app, link.KindUser, user) }

func (e *testEdge) call() uint64 { e.calls++; return e.calls }

func (e *testEdge) send(m *link.Up) {
	e.mu.Lock()
	p := e.leads[m.Shard]
	if p == nil {
		p = e.ports[0]
	}
	up := p.up
	e.mu.Unlock()
	e.out(up, m)
}

// attach connects a session; the newest conn of it counts.
func (e *testEdge) attach(user, session string, conn uint64) uint64 {
	call := e.call()
	a := &link.Attach{Call: call, App: app, User: user, Device: "d-" + session, Class: uint32(presence.Web), Session: session,
		Resume: true, Conn: conn, Attempt: conn, GraceMs: -1}
	held := &link.Attach{App: app, User: user, Device: a.Device, Class: a.Class, Session: session, Resume: true, Conn: conn, Attempt: conn, GraceMs: -1}
	e.mu.Lock()
	e.sessions[session] = held
	e.mu.Unlock()
	e.send(&link.Up{Shard: shardOf(user), Body: &link.Up_Attach{Attach: a}})
	return call
}

func (e *testEdge) detach(user, session string, conn uint64, c link.Cause) {
	e.mu.Lock()
	delete(e.sessions, session)
	e.mu.Unlock()
	e.send(&link.Up{Shard: shardOf(user), Body: &link.Up_Detach{Detach: &link.Detach{App: app, User: user, Session: session, Conn: conn, Attempt: conn, Cause: c}}})
}

func (e *testEdge) watch(w string, who ...string) {
	e.mu.Lock()
	e.watches[w] = append(e.watches[w], who...)
	e.mu.Unlock()
	for _, u := range who {
		e.send(&link.Up{Shard: shardOf(u), Body: &link.Up_Interest{Interest: &link.Interest{Call: e.call(), App: app, Watcher: w, Add: []string{u}}}})
	}
}

func (e *testEdge) act(user string, a *link.Act) uint64 {
	a.Call, a.App, a.User = e.call(), app, user
	e.send(&link.Up{Shard: shardOf(user), Body: &link.Up_Act{Act: a}})
	return a.Call
}

func (e *testEdge) status(user, session string, conn uint64, s presence.State, text string) uint64 {
	return e.act(user, &link.Act{Session: session, Conn: conn,
		What: &link.Act_Claim{Claim: &link.Claim{Id: "manual", Source: "manual", State: uint32(s), Text: text, Priority: -1}}})
}

func (e *testEdge) ask(shard uint32, a *link.Ask) uint64 {
	a.Call, a.App = e.call(), app
	e.send(&link.Up{Shard: shard, Body: &link.Up_Ask{Ask: a}})
	return a.Call
}

func (e *testEdge) room(user, session, room string, conn uint64, c *link.RoomCommand) uint64 {
	c.Call, c.App, c.Room, c.User, c.Session, c.Conn = e.call(), app, room, user, session, conn
	e.send(&link.Up{Shard: link.ShardOf(app, link.KindRoom, room), Body: &link.Up_Room{Room: c}})
	return c.Call
}

func (e *testEdge) enter(user, room string, conn uint64) uint64 {
	c := &link.RoomCommand{App: app, Room: room, User: user, Session: "s-" + user, Conn: conn, What: &link.RoomCommand_Enter{Enter: &link.RoomEnter{
		Occupy: true, Subscribe: true, Occupant: &link.Occupant{State: uint32(presence.Online), Term: 1, Version: 1}}}}
	e.mu.Lock()
	e.rooms[room] = append(e.rooms[room], &link.RoomCommand{App: app, Room: room, User: user, Session: c.Session, Conn: conn, What: c.What})
	e.mu.Unlock()
	return e.room(user, c.Session, room, conn, &link.RoomCommand{What: c.What})
}

func (e *testEdge) answer(call uint64) *link.Down {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.answers[call]
}

// saw takes what watchers were shown since the last time, and compares: in order for
// each watched user.
func (e *testEdge) saw(want ...string) {
	e.t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	by := func(a, b string) int { return strings.Compare(a[:strings.Index(a, ":")], b[:strings.Index(b, ":")]) }
	slices.SortStableFunc(e.log, by)
	slices.SortStableFunc(want, by)
	if !slices.Equal(e.log, want) {
		e.t.Fatalf("%s saw\n  %q, want\n  %q", e.name, e.log, want)
	}
	e.log = nil
}

func (e *testEdge) heard(want ...string) {
	e.t.Helper()
	synctest.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Equal(e.told, want) {
		e.t.Fatalf("%s heard\n  %q, want\n  %q", e.name, e.told, want)
	}
	e.told = nil
}

// cluster is a node and its edges.
type cluster struct {
	t     *testing.T
	node  *Node
	edges []*testEdge
	pipes []*link.Pipe
	beats chan struct{}
	wg    sync.WaitGroup
}

// inBubble runs f in virtual time with a node and edges e0, e1 … that send beats.
func inBubble(t *testing.T, edges int, cfg Config, f func(*cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, beats: make(chan struct{})}
		if cfg.Name == "" {
			cfg.Name = "n1"
		}
		cfg.Logger = slog.New(slog.DiscardHandler)
		var soft *actorstest.Memory
		if cfg.Store == nil {
			soft = &actorstest.Memory{}
			cfg.Store = soft
		}
		node, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Start(); err != nil {
			t.Fatal(err)
		}
		if soft != nil {
			soft.Open(node, uint64(time.Now().Unix()))
		}
		c.node = node
		for i := range edges {
			e := newTestEdge(t, fmt.Sprintf("e%d", i))
			c.edges = append(c.edges, e)
			p := link.NewPipe(e.name, 1, e.port(), node)
			c.pipes = append(c.pipes, p)
			p.Dial()
			c.wg.Go(func() { c.beat(e) })
		}
		t.Cleanup(c.close)
		synctest.Wait()
		f(c)
	})
}

func (c *cluster) close() {
	close(c.beats)
	c.wg.Wait()
	for _, p := range c.pipes {
		p.Close(false)
	}
	c.node.Stop()
}

func (c *cluster) beat(e *testEdge) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-c.beats:
			return
		case <-tick.C:
			e.beat(false)
		}
	}
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// counts sums what the shards answer to an edge.
func (c *cluster) counts() map[string]uint64 { return c.countsBy(c.edges[0]) }

func (c *cluster) countsBy(e *testEdge) map[string]uint64 {
	sum, calls := map[string]uint64{}, make([]uint64, link.Shards)
	for shard := range calls {
		calls[shard] = e.call()
		e.send(&link.Up{Shard: uint32(shard), Body: &link.Up_Ask{Ask: &link.Ask{Call: calls[shard], What: &link.Ask_Counts{Counts: true}}}})
	}
	synctest.Wait()
	for _, call := range calls {
		for k, v := range e.answer(call).GetAnswer().GetCounts() {
			sum[k] += v
		}
	}
	return sum
}

func decode[T any](t testing.TB, doc string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	return v
}
