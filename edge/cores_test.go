package edge_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"muster/actors"
	"muster/actors/actorstest"
	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
	"muster/clients/wire"
	"muster/edge"
)

// rows are what all cores share: the store of a shard is wherever the shard is led.
type rows struct{ shards [link.Shards]actorstest.Rows }

// store is a core's part in it: it takes proposals of the shards that are open there.
type store struct {
	rows *rows
	node *actors.Node

	mu    sync.Mutex
	terms [link.Shards]uint64
	index uint64

	deposed [link.Shards]uint64 // terms in which nothing is committed any more
}

func (s *store) Propose(shard uint32, term, seq uint64, _ int64, writes []row.Write) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terms[shard] != term {
		return actors.ErrNotLeader
	}
	if s.deposed[shard] == term {
		return nil
	}
	s.rows.shards[shard].Write(writes...)
	s.index++
	s.node.Committed(shard, term, seq, s.index)
	return nil
}
func (s *store) Get(shard uint32, key []byte) ([]byte, bool, error) {
	return s.rows.shards[shard].Get(key)
}
func (s *store) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	return s.rows.shards[shard].Scan(from, to, visit)
}

func (s *store) Confirm(_ uint32, done func(error)) { done(nil) }

// member is one core of a cluster, with its link to the edge.
type member struct {
	*store
	name string
	link interface {
		Dial()
		Cut()
		Close(dead bool)
	}
}

// cluster is several cores and one edge in one process. Its embedded world has no core of its own.
type cluster struct {
	world
	cores []*member
	term  uint64
	home  [link.Shards]*member
}

// faults stand between the edge and each core.
type faults struct {
	edge func(link.Edge) link.Edge
	core func(link.Core) link.Core
}

func newCluster(t *testing.T, n int, far bool, f faults, change ...func(*edge.Config)) *cluster {
	t.Helper()
	cfg := edge.Config{Node: "e1", Auth: tokens{}, NoPoller: true, Hubs: 4}
	for _, f := range change {
		f(&cfg)
	}
	c := &cluster{world: world{t: t}, term: 100}
	var err error
	if c.edge, err = edge.New(cfg); err != nil {
		t.Fatal(err)
	}
	all := &rows{}
	for i := range n {
		m := &member{store: &store{rows: all}, name: fmt.Sprint("n", i)}
		if m.node, err = actors.New(actors.Config{Name: m.name, Store: m.store}); err != nil {
			t.Fatal(err)
		}
		if err := m.node.Start(); err != nil {
			t.Fatal(err)
		}
		var e link.Edge = c.edge.Core(m.name)
		var k link.Core = m.node
		if f.edge != nil {
			e = f.edge(e)
		}
		if f.core != nil {
			k = f.core(k)
		}
		if far {
			m.link = newStream(m.name, e, k)
		} else {
			m.link = link.NewPipe("e1", 1, e, k)
		}
		m.link.Dial()
		c.cores = append(c.cores, m)
	}
	synctest.Wait()
	for shard := range uint32(link.Shards) {
		c.open(shard, c.cores[int(shard)%n])
	}
	c.ln = &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	c.pipes = &http.Server{Handler: c.edge.Handler()}
	go c.pipes.Serve(c.ln)
	c.client = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c.ln.dial() },
	}}
	synctest.Wait()
	return c
}

func (c *cluster) close() {
	c.edge.Close()
	c.pipes.Close()
	c.client.CloseIdleConnections()
	for _, m := range c.cores {
		m.link.Close(true)
		m.node.Stop()
	}
	http.DefaultClient.CloseIdleConnections()
}

// open makes a core lead a shard under the next term; the one that led it goes on until it learns better.
func (c *cluster) open(shard uint32, m *member) {
	c.term++
	m.lead(shard, c.term)
	c.home[shard] = m
	m.node.Opened(shard, c.term, 1, time.Now().UnixMilli())
}

func (m *member) lead(shard uint32, term uint64) (was uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, m.terms[shard] = m.terms[shard], term
	return was
}

// shut makes a core lose a shard.
func (c *cluster) shut(shard uint32, m *member) {
	if was := m.lead(shard, 0); was != 0 {
		m.node.Closed(shard, was)
	}
}

// move takes a shard from its core to another, as a leader that steps down does.
func (c *cluster) move(shard uint32, to *member) {
	c.shut(shard, c.home[shard])
	c.open(shard, to)
}

// other is a core that does not lead the shard.
func (c *cluster) other(shard uint32) *member {
	for _, m := range c.cores {
		if m != c.home[shard] {
			return m
		}
	}
	return nil
}

// stream carries the frames of two Fars in this process.
type stream struct {
	near, away *link.Far
	mu         sync.Mutex
	closed     bool
	flight     [2][3]chan packet
	pumps      sync.WaitGroup
}

type packet struct {
	kind    byte
	payload []byte
}

func newStream(name string, e link.Edge, k link.Core) *stream {
	s := &stream{}
	for dir := range s.flight {
		for lane := range s.flight[dir] {
			c := make(chan packet, 1<<12)
			s.flight[dir][lane] = c
			s.pumps.Go(func() {
				for p := range c {
					[]*link.Far{s.away, s.near}[dir].Receive(link.Lane(lane), p.kind, p.payload)
				}
			})
		}
	}
	send := func(dir int) func(context.Context, link.Lane, byte, []byte) error {
		return func(_ context.Context, lane link.Lane, kind byte, payload []byte) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.closed {
				s.flight[dir][lane] <- packet{kind, payload}
			}
			return nil
		}
	}
	s.near = link.NewFar(link.FarConfig{Peer: name, Edge: e, Send: send(0)})
	s.away = link.NewFar(link.FarConfig{Peer: "e1", Incarnation: 1, Core: k, Send: send(1)})
	return s
}

func (s *stream) Dial() { s.away.Up(); s.near.Up() }
func (s *stream) Cut()  { s.near.Down(false); s.away.Down(false) }

func (s *stream) Close(dead bool) {
	s.near.Close()
	s.away.Down(dead)
	s.away.Close()
	s.mu.Lock()
	s.closed = true
	for _, all := range s.flight {
		for _, c := range all {
			close(c)
		}
	}
	s.mu.Unlock()
	s.pumps.Wait()
}

// inCluster runs a story over both kinds of link, in virtual time.
func inCluster(t *testing.T, n int, f faults, story func(t *testing.T, c *cluster)) {
	for _, far := range []bool{false, true} {
		t.Run(fmt.Sprintf("%d cores, far %v", n, far), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, n, far, f)
				t.Cleanup(c.close)
				time.Sleep(4 * time.Second) // until all has settled
				story(t, c)
			})
		})
	}
}

func shardOf(user string) uint32 { return link.ShardOf(app, link.KindUser, user) }

// flaps lists what was pushed of users other than what they should show.
func flaps(b *client, want wire.State, users ...string) (bad []string) {
	synctest.Wait()
	for _, f := range b.frames() {
		for _, p := range f.GetPush().GetPresence() {
			for _, u := range users {
				if p.User == u && (p.State != want || p.Stale) {
					bad = append(bad, asJSON(f))
				}
			}
		}
	}
	return bad
}

// A shard goes from core to core: nobody flaps, nobody is offline, and what changes then is seen under the new term.
func TestShardMoves(t *testing.T) {
	for _, n := range []int{2, 3} {
		inCluster(t, n, faults{}, func(t *testing.T, c *cluster) {
			a, b := user(&c.world, "a"), user(&c.world, "b", "a")
			first := b.status2(t, "a")
			shard := shardOf("a")
			for i := range 3 {
				// Planned: closed there, opened here at once.
				c.move(shard, c.other(shard))
				time.Sleep(5 * time.Second)
				if bad := flaps(b, online, "a"); len(bad) > 0 {
					t.Fatalf("move %d: %v", i, bad)
				}
				a.status("dnd")
				p := b.sees("a", dnd)
				if p.Ver[0] <= first || p.Stale {
					t.Fatalf("version %v, was under %d", p.Ver, first)
				}
				first = p.Ver[0]
				a.status("online")
				b.sees("a", online)
			}
		})
	}
}

// status2 is the term under which a user is shown.
func (c *client) status2(t *testing.T, user string) uint64 {
	t.Helper()
	r := c.reply(c.send(&wire.Command{Method: &wire.Command_Query{Query: &wire.Query{Users: []string{user}}}})).GetQuery()
	if len(r.GetPresences()) != 1 {
		t.Fatalf("%v", r)
	}
	return r.Presences[0].Ver[0]
}

// A leader that was deposed and has not noticed goes on for a while. Nothing of it is seen, however high its versions.
func TestDeposedLeader(t *testing.T) {
	inClusterOnce(t, faults{}, func(t *testing.T, c *cluster) {
		a, b := user(&c.world, "a"), user(&c.world, "b", "a")
		a.status("dnd")
		a.status("online")
		shard := shardOf("a")
		old := c.home[shard]
		c.open(shard, c.other(shard))
		time.Sleep(5 * time.Second)
		b.frames()
		// Its gateway still holds the rows of this edge.
		for i := range 20 {
			old.node.Up(&link.Up{Edge: "e1", Incarnation: 1, Epoch: 1, Shard: shard, Body: &link.Up_Act{Act: &link.Act{
				App: app, User: "a", What: &link.Act_Claim{Claim: &link.Claim{
					Id: "api", Source: "api", State: uint32(presence.DND), Text: fmt.Sprint(i), Priority: 100, Durable: true,
				}},
			}}})
			time.Sleep(100 * time.Millisecond)
		}
		if bad := flaps(b, online, "a"); len(bad) > 0 {
			t.Errorf("seen: %s", bad[0])
		}
	})
}

func inClusterOnce(t *testing.T, f faults, story func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, false, f)
		t.Cleanup(c.close)
		time.Sleep(4 * time.Second)
		story(t, c)
	})
}

// A link that was lost is mended by announcements: who has left meanwhile is seen to leave, and what happens then is
// seen.
func TestLinkToOneOfSeveralCores(t *testing.T) {
	inClusterOnce(t, faults{}, func(t *testing.T, c *cluster) {
		home := c.home[shardOf("a")]
		names := []string{"a"}
		for i := 0; len(names) < 3; i++ {
			if n := fmt.Sprint("x", i); c.home[shardOf(n)] == home {
				names = append(names, n)
			}
		}
		user(&c.world, names[0])
		gone := user(&c.world, names[1])
		user(&c.world, names[2])
		b := user(&c.world, "b", names[0], names[1])
		time.Sleep(time.Second)
		b.frames()
		home.link.Cut()
		gone.raw(`{"bye":{}}`)
		b.send(&wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Add: names[2:]}}})
		time.Sleep(time.Second)
		home.link.Dial()
		time.Sleep(25 * time.Second)
		last := map[string]wire.State{}
		for _, f := range b.frames() {
			for _, p := range f.GetPush().GetPresence() {
				last[p.User] = p.State
			}
		}
		if s, ok := last["a"]; ok && s != online || last[names[1]] != offline || last[names[2]] != online {
			t.Errorf("seen: %v", last)
		}
	})
}

// A shard without a leader that is heard: what is shown of its users is stale, but never offline; only its own clients
// are sent elsewhere, after 10 s and not at once.
func TestShardUnreachable(t *testing.T) {
	inCluster(t, 2, faults{}, func(t *testing.T, c *cluster) {
		dark := c.cores[0]
		var inside, outside []string
		for i := 0; len(inside) < 20 || len(outside) < 4; i++ {
			if n := fmt.Sprint("u", i); c.home[shardOf(n)] == dark {
				inside = append(inside, n)
			} else {
				outside = append(outside, n)
			}
		}
		inside, outside = inside[:20], outside[:4]
		var mine []*client
		for _, n := range inside {
			mine = append(mine, user(&c.world, n))
		}
		w := user(&c.world, outside[0], append(inside[:2:2], outside[1], inside[19])...)
		user(&c.world, outside[1])
		w.sees(outside[1], online)
		w.frames()
		mine[19].ws.CloseNow() // in its grace when the core goes dark
		time.Sleep(time.Second)
		dark.link.Cut()
		began := time.Now()
		id := w.send(&wire.Command{Method: &wire.Command_Query{Query: &wire.Query{Users: []string{inside[0], inside[19], outside[1]}}}})
		if r := w.reply(id).GetQuery(); len(r.GetPending()) != 2 || len(r.GetPresences()) != 1 {
			t.Fatalf("%v", r)
		}
		time.Sleep(9 * time.Second)
		stale := map[string]bool{}
		for _, f := range w.frames() {
			for _, p := range f.GetPush().GetPresence() {
				if p.Stale && p.AsOfAt != 0 && p.State == wire.State_STATE_UNKNOWN {
					stale[p.User] = true
				} else {
					t.Fatalf("%s", asJSON(f))
				}
			}
		}
		if len(stale) != 3 || stale[outside[1]] {
			t.Fatalf("stale: %v", stale)
		}
		if n := c.edge.Stats().Closes[wire.CloseCutOff]; n != 0 {
			t.Fatalf("%d closed after %v", n, time.Since(began))
		}
		first := time.Duration(0)
		for c.edge.Stats().Closes[wire.CloseCutOff] < 19 && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
			if first == 0 && c.edge.Stats().Closes[wire.CloseCutOff] > 0 {
				first = time.Since(began)
			}
		}
		if all := time.Since(began); all > 17*time.Second || all-first < 2*time.Second {
			t.Fatalf("closed from %v to %v", first, all)
		}
		if got := mine[3].closed(); got != websocket.StatusCode(wire.CloseCutOff) {
			t.Fatalf("closed %v", got)
		}
		time.Sleep(2 * time.Minute)
		for _, f := range w.frames() {
			for _, p := range f.GetPush().GetPresence() {
				if p.State != wire.State_STATE_UNKNOWN || p.Stale {
					t.Fatalf("%s", asJSON(f))
				}
				delete(stale, p.User)
			}
		}
		if len(stale) != 0 {
			t.Fatalf("never unknown: %v", stale)
		}
		// The light comes on again.
		back := user(&c.world, outside[2])
		_ = back
		dark.link.Dial()
		w.sees(inside[0], offline)
		if n := c.edge.Stats().Closes[wire.CloseCutOff]; n != 19 {
			t.Fatalf("%d closed", n)
		}
	})
}

// While shards go from core to core, every publish that is acknowledged is stored once; those under way go again with
// the same client id.
func TestPublishWhileShardsMove(t *testing.T) {
	inCluster(t, 3, faults{}, func(t *testing.T, c *cluster) {
		rng := rand.New(rand.NewPCG(3, 4))
		s := user(&c.world, "s|caps=publish")
		dev := c.world.dial()
		dev.connectAs(&wire.Connect{Token: "a", DeviceId: "d", Outbox: &wire.OutboxPosition{}})
		shard := shardOf("a")
		want := map[string]bool{}
		got := map[string]int{}
		for i := range 40 {
			id := clientID(t)
			body := fmt.Sprintf(`"%d"`, i)
			n := s.send(&wire.Command{Method: &wire.Command_Publish{Publish: &wire.Publish{User: "a", ClientId: id, Body: body}}})
			if i%4 == 1 {
				from := c.home[shard]
				c.shut(shard, from)
				time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
				c.open(shard, c.other(shard))
			}
			if r := s.reply(n); r.GetPublish() == nil {
				t.Fatalf("publish %d: %s", i, asJSON(r))
			}
			want[body] = true
		}
		for len(got) < len(want) {
			o := dev.outbox()
			for _, e := range o.Entries {
				got[e.Body]++
			}
			if len(o.Entries) > 0 {
				dev.send(&wire.Command{Method: &wire.Command_Ack{Ack: &wire.Ack{Outbox: o.Entries[len(o.Entries)-1].Offset}}})
			}
		}
		for b := range got {
			if !want[b] {
				t.Fatalf("%s was never published", b)
			}
		}
	})
}

// What was asked of a core that then goes is put to the next one if it may be asked twice, and ends at once if not.
func TestCallsInFlight(t *testing.T) {
	inCluster(t, 2, faults{core: func(k link.Core) link.Core { return &deaf{Core: k} }}, func(t *testing.T, c *cluster) {
		a := user(&c.world, "a")
		shard := shardOf("a")
		hush.Store(true)
		began := time.Now()
		id := a.send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: "dnd"}}})
		late := c.world.dial()
		con := late.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "a", DeviceId: "d2"}}})
		synctest.Wait()
		hush.Store(false)
		c.move(shard, c.other(shard))
		if e := a.reply(id).GetError(); e.GetCode() != uint32(wire.CodeMoving) || time.Since(began) > time.Second {
			t.Fatalf("%v after %v", e, time.Since(began))
		}
		if r := late.reply(con); r.GetConnect() == nil || time.Since(began) > time.Second {
			t.Fatalf("%s after %v", asJSON(r), time.Since(began))
		}
	})
}

// hush makes every core deaf to commands and attaches.
var hush atomic.Bool

type deaf struct{ link.Core }

func (k *deaf) Up(m *link.Up) {
	if !hush.Load() {
		k.Core.Up(m)
	}
}
