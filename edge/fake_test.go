package edge

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/auth"
)

type anyToken struct{}

func (anyToken) Verify(_ context.Context, token string) (auth.Claims, error) {
	return auth.Claims{App: "default", User: token}, nil
}

// fakeCore attaches whoever comes, shows everyone as offline with all fields, and says
// what a test tells it to. It answers from a goroutine of its own, in order.
type fakeCore struct {
	mu   sync.Mutex
	down link.Downlink
	ups  []*link.Up // all but attach, interest and query
	// answer, if set, is asked first; mine: the message is its own, and d, if any, what is said to it. It runs in turn.
	answer func(m *link.Up) (d *link.Down, mine bool)
	work   chan func()
	done   chan struct{}
	term   uint64
}

func newFakeCore() *fakeCore {
	c := &fakeCore{work: make(chan func(), 1<<16), done: make(chan struct{}), term: 7}
	go func() {
		defer close(c.done)
		for f := range c.work {
			f()
		}
	}()
	return c
}

func (c *fakeCore) EdgeUp(_ string, _, _ uint64, down link.Downlink) {
	c.mu.Lock()
	c.down = down
	c.mu.Unlock()
	down.Beat(c.beat())
}

func (c *fakeCore) beat() *link.Beat {
	b := &link.Beat{}
	for i := range uint32(shards) {
		b.Shards, b.Terms = append(b.Shards, i), append(b.Terms, c.term)
	}
	return b
}

// Beat is answered in kind.
func (c *fakeCore) Beat(string, uint64, *link.Beat) {
	c.work <- func() {
		c.mu.Lock()
		down := c.down
		c.mu.Unlock()
		down.Beat(c.beat())
	}
}

func (c *fakeCore) EdgeDown(string, uint64, uint64, bool) {}
func (c *fakeCore) say(shard uint32, d *link.Down)        { c.work <- func() { c.send(shard, d) } }

func (c *fakeCore) show(user string, version uint64, mask, state uint32) {
	c.say(userShard(presence.Key{App: "default", User: user}), &link.Down{Body: &link.Down_Change{Change: &link.Change{
		App: "default", User: user, Version: version,
		Views: []*link.View{{Mask: mask, State: state, Since: time.Now().UnixMilli()}},
	}}})
}

func (c *fakeCore) send(shard uint32, d *link.Down) {
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	d.Shard, d.Term = shard, c.term
	down.Down(d)
}

func (c *fakeCore) Up(m *link.Up) {
	d, mine := c.asked(m)
	if d != nil {
		c.say(m.Shard, d)
	}
	if mine {
		return
	}
	switch b := m.Body.(type) {
	case *link.Up_Attach:
		if b.Attach.Call != 0 {
			c.say(m.Shard, &link.Down{Body: &link.Down_Attached{Attached: &link.Attached{
				Call: b.Attach.Call, App: b.Attach.App, User: b.Attach.User, Conn: b.Attach.Conn, Session: b.Attach.Session,
			}}})
		}
	case *link.Up_Interest:
		if b.Interest.Call != 0 {
			c.say(m.Shard, &link.Down{Body: &link.Down_Views{Views: &link.Views{
				Call: b.Interest.Call, App: b.Interest.App, Watcher: b.Interest.Watcher, Rows: blankRows(b.Interest.Add),
			}}})
		}
	case *link.Up_Query:
		c.say(m.Shard, &link.Down{Body: &link.Down_Views{Views: &link.Views{Call: b.Query.Call, App: b.Query.App, Rows: blankRows(b.Query.Users)}}})
	default:
		c.mu.Lock()
		c.ups = append(c.ups, m)
		c.mu.Unlock()
	}
}

func (c *fakeCore) asked(m *link.Up) (d *link.Down, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == nil {
		return nil, false
	}
	return c.answer(m)
}

func blankRows(users []string) (rows []*link.Row) {
	for _, u := range users {
		rows = append(rows, &link.Row{User: u, Mask: uint32(presence.AllFields)})
	}
	return rows
}

// rig is an edge with a fake core behind a loopback server.
type rig struct {
	t    testing.TB
	core *fakeCore
	edge *Edge
	pipe *link.Pipe
	srv  *httptest.Server

	narrow bool // peers have the smallest receive buffer
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	huge := Rate{1e6, 1e6}
	cfg := Config{Node: "n", Auth: anyToken{}, Hubs: 1, ConnectRate: huge, ResumeRate: huge, CommandRate: huge, UserRate: huge}
	for _, f := range change {
		f(&cfg)
	}
	r := &rig{t: t, core: newFakeCore()}
	var err error
	if r.edge, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.pipe = link.NewPipe("n", 1, r.edge.Core("n"), r.core)
	r.pipe.Dial()
	r.srv = httptest.NewServer(r.edge.Handler())
	t.Cleanup(func() {
		r.edge.Close()
		r.srv.Close()
		r.pipe.Close(true)
		close(r.core.work)
		<-r.core.done
	})
	return r
}

// peer is a bare client: a conn after the handshake and connect.
type peer struct {
	net.Conn
	ws *websocket.Conn
}

func (r *rig) peer(user string, watch ...string) *peer {
	r.t.Helper()
	return r.peerAs(&wire.Connect{Watch: watch}, user)
}

func (r *rig) peerAs(con *wire.Connect, user string) *peer {
	r.t.Helper()
	p := &peer{}
	dialer := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		if !r.narrow {
			return nil
		}
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048) })
	}}
	ctx := context.Background()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.srv.URL, "http"), &websocket.DialOptions{
		Subprotocols: []string{wire.Subprotocol},
		HTTPClient: clientOver(func() (net.Conn, error) {
			c, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(r.srv.URL, "http://"))
			p.Conn = c
			return c, err
		}),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	p.ws = ws
	ws.SetReadLimit(1 << 20)
	con.Token, con.DeviceId = user, "d"
	c := &wire.Command{Id: 1, Method: &wire.Command_Connect{Connect: con}}
	if err := ws.Write(ctx, websocket.MessageText, c.AppendJSON(nil)); err != nil {
		r.t.Fatal(err)
	}
	if _, b, err := ws.Read(ctx); err != nil || !strings.Contains(string(b), `"done":true`) {
		r.t.Fatalf("connect: %s, %v", b, err)
	}
	r.t.Cleanup(func() { ws.CloseNow() })
	return p
}

// Eventually waits for a condition.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not %s in 10 s", what)
		}
		<-tick.C
	}
}
