package actors

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/actorstest"
	"muster/actors/link"
	"muster/actors/presence"
)

// commons are the rows of all shards, which all nodes share, and who leads. What a leader proposes is
// committed at once.
type commons struct {
	rows [link.Shards]actorstest.Rows

	mu    sync.Mutex
	leads [link.Shards]leading
	term  [link.Shards]uint64
	truth *truth // nil: nobody checks yet
}

type leading struct {
	core  *core // nil: nobody
	index uint64
}

// core is one node of a party, with its part of the store.
type core struct {
	*commons
	name string
	node atomic.Pointer[Node] // nil: it is dead
}

func (c *core) Propose(shard uint32, term, seq uint64, _ int64, writes []Write) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.leads[shard]
	if l.core != c || c.term[shard] != term {
		return ErrNotLeader
	}
	c.rows[shard].Write(writes...)
	l.index++
	if node := c.node.Load(); node != nil {
		node.Committed(shard, term, seq, l.index)
	}
	return nil
}

func (c *core) Get(shard uint32, key []byte) ([]byte, bool, error) { return c.rows[shard].Get(key) }

func (c *core) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	return c.rows[shard].Scan(from, to, visit)
}

// Confirm knows at once who leads.
func (c *core) Confirm(shard uint32, done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leads[shard].core != c {
		done(ErrNotLeader)
		return
	}
	done(nil)
}

// lead opens a shard on a node under the next term. Whoever led it goes on as if it did until it is told.
func (c *core) lead(shard uint32) {
	if c.truth != nil {
		c.truth.failover(shard)
	}
	c.open(shard)
}

func (c *core) open(shard uint32) {
	c.mu.Lock()
	c.leads[shard].core = c
	c.term[shard]++
	term := c.term[shard]
	c.mu.Unlock()
	c.node.Load().Opened(shard, term, 1, 0)
}

// process is an edge process: what it holds, and its links to all cores.
type process struct {
	*testEdge
	id    presence.Edge
	pipes map[*core]*link.Pipe
	quit  chan struct{}
	mute  bool
	off   map[*core]bool // links in trouble
	drain bool
}

// party is several cores and edges, and gossip.
type party struct {
	t     *testing.T
	cfg   Config
	cores []*core
	edges []*process // that live
	*commons
	wg    sync.WaitGroup
	lives uint64

	mu    sync.Mutex
	alive []presence.Edge // as gossip holds

	post  func(to *core, m *link.Up) // what shards tell each other; nil: it comes at once
	alter func(*link.Up)
	dull  bool // edges do not announce again on a new link
}

// inParty runs f in virtual time with cores n0, n1 … that share the shards, and edges e0, e1 …
func inParty(t *testing.T, cores, edges int, cfg Config, f func(*party)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &party{t: t, cfg: cfg, commons: &commons{}}
		for i := range cores {
			c := &core{commons: p.commons, name: fmt.Sprint("n", i)}
			p.cores = append(p.cores, c)
			p.start(c)
		}
		for shard := range uint32(link.Shards) {
			p.term[shard] = 100
			p.cores[int(shard)%cores].lead(shard)
		}
		p.truth = &truth{users: map[string]*there{}}
		t.Cleanup(p.close)
		for i := range edges {
			p.edge(fmt.Sprint("e", i))
		}
		pass(4 * time.Second) // all have settled
		f(p)
	})
}

func (p *party) start(c *core) {
	cfg := p.cfg
	cfg.Name, cfg.Store, cfg.Logger = c.name, c, slog.New(slog.DiscardHandler)
	cfg.Route = func(shard uint32, m *link.Up) error {
		p.commons.mu.Lock()
		to := p.leads[shard].core
		p.commons.mu.Unlock()
		if to == nil {
			return ErrNotLeader
		}
		node := to.node.Load()
		if node == nil {
			return ErrNotLeader
		}
		p.mu.Lock()
		post := p.post
		p.mu.Unlock()
		if post == nil {
			node.Routed(m)
		} else {
			post(to, m)
		}
		return nil
	}
	cfg.Alive = func() []presence.Edge {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Clone(p.alive)
	}
	cfg.Others = func() (sessions, lost uint64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, other := range p.cores {
			if node := other.node.Load(); node != nil && other != c {
				s, l := node.Counts()
				sessions, lost = sessions+s, lost+l
			}
		}
		return sessions, lost
	}
	node, err := New(cfg)
	if err == nil {
		err = node.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	c.node.Store(node)
	for _, e := range p.edges {
		p.dial(e, c)
	}
}

// edge starts an edge process.
func (p *party) edge(name string) *process {
	p.lives++
	e := &process{testEdge: newTestEdge(p.t, name), id: presence.Edge{Name: name, Incarnation: p.lives}, pipes: map[*core]*link.Pipe{},
		quit: make(chan struct{}), off: map[*core]bool{}}
	e.alter, e.dull = p.alter, p.dull
	e.closed = func(c *link.CloseConn) { p.truth.closed(name, c) }
	e.changed = func(_, user, what string) { p.truth.shown(name, user, what) }
	p.edges = append(p.edges, e)
	p.gossip(e.id, true)
	for _, c := range p.cores {
		if c.node.Load() != nil {
			p.dial(e, c)
		}
	}
	p.wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-e.quit:
				return
			case <-tick.C:
				e.beat(e.drain)
			}
		}
	})
	return e
}

func (p *party) dial(e *process, c *core) {
	e.pipes[c] = link.NewPipe(e.id.Name, e.id.Incarnation, e.port(), c.node.Load())
	e.pipes[c].Mute(e.mute)
	e.pipes[c].Dial()
}

// gossip is what gossip tells all.
func (p *party) gossip(e presence.Edge, alive bool) {
	p.mu.Lock()
	p.alive = slices.DeleteFunc(p.alive, func(old presence.Edge) bool { return old == e })
	if alive {
		p.alive = append(p.alive, e)
	}
	p.mu.Unlock()
	for _, c := range p.cores {
		if node := c.node.Load(); node != nil {
			node.EdgeAlive(e, alive)
		}
	}
}

// kill ends an edge's process: its connections are reset and refused. Gossip hears of it 3 s later.
func (p *party) kill(e *process) {
	p.forget(e)
	for _, c := range p.cores {
		if pipe := e.pipes[c]; pipe != nil {
			pipe.Close(true)
		}
	}
	p.later(3*time.Second, func() { p.gossip(e.id, false) })
}

// unplug takes an edge's machine away: nobody is told but by gossip, 3 s later.
func (p *party) unplug(e *process) {
	p.forget(e)
	p.hang(e, true)
	p.later(3*time.Second, func() { p.gossip(e.id, false) })
}

func (p *party) forget(e *process) {
	close(e.quit)
	p.edges = slices.DeleteFunc(p.edges, func(other *process) bool { return other == e })
	e.testEdge.mu.Lock()
	e.changed = nil
	for _, s := range e.sessions {
		p.truth.lostConn(s.User, s.Session, s.Conn, 15*time.Second, e.slow)
	}
	e.testEdge.mu.Unlock()
}

// hang loses all that an edge and the cores say to each other.
func (p *party) hang(e *process, on bool) {
	e.mute = on
	for _, pipe := range e.pipes {
		pipe.Mute(on)
	}
}

// attach connects a session to an edge. An edge that held it before goes on doing so if stale, until it is
// told to close that conn.
func (p *party) attach(e *process, user, session string, stale ...bool) {
	p.lives++
	p.truth.holds(user, session, p.lives)
	for _, other := range p.edges {
		if other != e && len(stale) == 0 {
			other.drop(session)
		}
	}
	e.testEdge.attach(user, session, p.lives)
}

func (e *testEdge) drop(session string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions, session)
}

var graces = map[link.Cause]time.Duration{link.Cause_GONE: 5 * time.Second, link.Cause_SILENCE: 15 * time.Second, link.Cause_DRAIN: time.Minute}

// leave ends the conn of a session.
func (p *party) leave(e *process, user, session string, why link.Cause) {
	p.truth.lost(user, session, graces[why], e.slow)
	e.detach(user, session, e.connOf(session), why)
}

func (p *party) later(d time.Duration, f func()) {
	p.wg.Go(func() {
		time.Sleep(d)
		f()
	})
}

// die ends a core as kill -9 does. Its shards are led by others, in turn, some time later.
func (p *party) die(c *core, failover time.Duration) {
	node := c.node.Load()
	for i := range node.outlets {
		if out := node.outlets[i].Load(); out != nil {
			out.cut()
		}
	}
	var lost []uint32
	p.commons.mu.Lock()
	for shard := range p.leads {
		if p.leads[shard].core == c {
			lost = append(lost, uint32(shard))
			p.leads[shard].core = nil
		}
	}
	p.commons.mu.Unlock()
	c.node.Store(nil)
	for _, e := range p.edges {
		e.pipes[c].Close(false)
		delete(e.pipes, c)
	}
	node.Stop()
	time.Sleep(failover)
	for i, shard := range lost {
		p.next(i).lead(shard)
	}
	synctest.Wait()
}

// next is the i-th core that lives, modulo.
func (p *party) next(i int) *core {
	var living []*core
	for _, c := range p.cores {
		if c.node.Load() != nil {
			living = append(living, c)
		}
	}
	return living[i%len(living)]
}

func (p *party) leader(shard uint32) *core {
	p.commons.mu.Lock()
	defer p.commons.mu.Unlock()
	return p.leads[shard].core
}

// hand gives a shard to another core in good order.
func (p *party) hand(shard uint32, to *core) {
	p.t.Helper()
	from := p.leader(shard)
	if from == to {
		return
	}
	if err := from.node.Load().Leaving(context.Background(), shard, func(m *link.Up) error { to.node.Load().Routed(m); return nil }); err != nil {
		p.t.Fatalf("shard %d: %v", shard, err)
	}
	term := p.term[shard]
	from.node.Load().Closed(shard, term)
	time.Sleep(20 * time.Millisecond)
	to.open(shard)
	synctest.Wait()
}

func (p *party) close() {
	for _, e := range p.edges {
		close(e.quit)
		for _, pipe := range e.pipes {
			pipe.Close(false)
		}
	}
	p.wg.Wait()
	for _, c := range p.cores {
		if node := c.node.Load(); node != nil {
			node.Stop()
		}
	}
}

// truth knows who is there, and until when nobody may be shown somebody offline.
type truth struct {
	mu    sync.Mutex
	users map[string]*there
	wrong []string
}

type there struct {
	held map[string]uint64 // session → its newest conn
	lost map[string]grace  // by session
}

// grace of a lost session. guessed: its shard may only presume that there is one, and the next session of the
// user takes its place.
type grace struct {
	until   time.Time
	guessed bool
}

func (tr *truth) of(user string) *there {
	u := tr.users[user]
	if u == nil {
		u = &there{held: map[string]uint64{}, lost: map[string]grace{}}
		tr.users[user] = u
	}
	return u
}

// holds notes that an edge holds a session.
func (tr *truth) holds(user, session string, conn uint64) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	u := tr.of(user)
	u.held[session] = conn
	delete(u.lost, session)
	maps.DeleteFunc(u.lost, func(_ string, g grace) bool { return g.guessed })
}

// lost notes that none does any more, and the grace it has.
func (tr *truth) lost(user, session string, stay, slow time.Duration) {
	tr.mu.Lock()
	conn := tr.of(user).held[session]
	tr.mu.Unlock()
	tr.lostConn(user, session, conn, stay, slow)
}

// lostConn is lost, unless a newer conn of the session is there. Of one that a slow edge has not announced the
// shard knows nothing: it presumes the user from its opening, if it has no other.
func (tr *truth) lostConn(user, session string, conn uint64, stay, slow time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	u := tr.of(user)
	if u.held[session] != conn {
		return
	}
	delete(u.held, session)
	if slow == 0 || len(u.held) == 0 {
		u.lost[session] = grace{time.Now().Add(max(stay-slow, 0)), slow > 0}
	}
}

// shown checks what a watcher is shown.
func (tr *truth) shown(edge, user, what string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	u := tr.of(user)
	if what != "offline" {
		return
	}
	early := len(u.held) > 0
	for _, g := range u.lost {
		early = early || time.Now().Before(g.until)
	}
	if early {
		tr.wrong = append(tr.wrong, fmt.Sprintf("%s: %s is offline at %v: held %v, lost until %v", edge, user, time.Now().Format("04:05.000"), u.held, u.lost))
	}
}

// failover: of a session without a conn nobody knows any more if its user has another one with a conn.
func (tr *truth) failover(shard uint32) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for user, u := range tr.users {
		if shardOf(user) != shard {
			continue
		}
		for session, g := range u.lost {
			g.guessed = true
			u.lost[session] = g
		}
		if len(u.held) > 0 {
			clear(u.lost)
		}
	}
}

// closed checks an order to close a conn.
func (tr *truth) closed(edge string, c *link.CloseConn) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for session, conn := range tr.of(c.User).held {
		if conn == c.Conn {
			tr.wrong = append(tr.wrong, fmt.Sprintf("%s is to close the newest conn of %s", edge, session))
		}
	}
}

func (tr *truth) isThere(user string) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.of(user).held) > 0
}

func (tr *truth) falseOfflines() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.wrong
}
