package edge_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"muster/actors"
	"muster/actors/actorstest"
	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge"
	"muster/edge/auth"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const app = "default"

// tokens takes "user" or "user|claim=…" as a token, so that tests of other things need no keys.
type tokens struct{}

func (tokens) Verify(_ context.Context, token string) (auth.Claims, error) {
	user, rest, _ := strings.Cut(token, "|")
	c := auth.Claims{App: app, User: user}
	switch {
	case user == "":
		return c, &auth.Error{Reason: auth.Malformed, Message: "token: missing"}
	case rest == "expired":
		return c, &auth.Error{Reason: auth.Expired, Message: "token: expired"}
	case strings.HasPrefix(rest, "exp="):
		d, _ := time.ParseDuration(rest[4:])
		c.Expires = time.Now().Add(d)
	case strings.HasPrefix(rest, "caps="):
		c.Caps = strings.Split(rest[5:], ",")
	case strings.HasPrefix(rest, "dev="):
		c.Device = rest[4:]
	case strings.HasPrefix(rest, "jti="):
		c.ID = rest[4:]
	}
	return c, nil
}

// world is a core and an edge in one process, with a server in front.
type world struct {
	t    testing.TB
	node *actors.Node
	edge *edge.Edge
	pipe *link.Pipe
	srv  *httptest.Server // over loopback; nil in a bubble

	ln     *pipes // in memory
	pipes  *http.Server
	client *http.Client
}

func newWorld(t testing.TB, change ...func(*edge.Config)) *world {
	t.Helper()
	return newWorldOn(t, actors.Config{}, change...)
}

// newWorldOn is a world with a core of its own kind.
func newWorldOn(t testing.TB, core actors.Config, change ...func(*edge.Config)) *world {
	t.Helper()
	rows := &actorstest.Memory{}
	core.Name, core.Store = "n1", rows
	cfg := edge.Config{Node: "n1", Auth: tokens{}}
	for _, f := range change {
		f(&cfg)
	}
	w := &world{t: t}
	var err error
	if w.node, err = actors.New(core); err != nil {
		t.Fatal(err)
	}
	if err = w.node.Start(); err != nil {
		t.Fatal(err)
	}
	rows.Open(w.node, uint64(time.Now().Unix()))
	if w.edge, err = edge.New(cfg); err != nil {
		t.Fatal(err)
	}
	w.pipe = link.NewPipe("n1", 1, w.edge.Core("n1"), w.node)
	w.pipe.Dial()
	w.ln = &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	w.pipes = &http.Server{Handler: w.edge.Handler()}
	go w.pipes.Serve(w.ln)
	w.client = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return w.ln.dial() },
	}}
	if !cfg.NoPoller {
		w.srv = httptest.NewServer(w.edge.Handler())
	}
	t.Cleanup(w.close)
	edge.Eventually(t, "linked with every shard", func() bool { return w.edge.Stats().Announced >= link.Shards })
	return w
}

// bubble is a world without sockets, for virtual time. It must be closed in the bubble.
func bubble(t *testing.T, change ...func(*edge.Config)) *world {
	return newWorld(t, append([]func(*edge.Config){func(c *edge.Config) { c.NoPoller = true }}, change...)...)
}

// pipes is a listener of in-memory conns.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) dial() (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (w *world) close() {
	w.edge.Close()
	w.pipes.Close()
	w.client.CloseIdleConnections()
	if w.srv != nil {
		w.srv.Close()
	}
	w.pipe.Close(true)
	w.node.Stop()
	http.DefaultClient.CloseIdleConnections()
}

// client is one socket; it answers pings and keeps all else in the order it came.
type client struct {
	t    testing.TB
	ws   *websocket.Conn
	in   chan *wire.Reply
	end  chan error
	id   uint64
	quit context.CancelFunc

	virtual bool
	deaf    atomic.Bool // does not answer pings
}

var attempts atomic.Uint64

// dial opens a socket: over loopback, or in memory in a bubble.
func (w *world) dial() *client {
	w.t.Helper()
	if w.srv == nil {
		return w.dialPipe()
	}
	return w.dialAt("ws"+strings.TrimPrefix(w.srv.URL, "http"), nil)
}

func (w *world) dialPipe() *client {
	w.t.Helper()
	return w.dialAt("ws://pipe/v1/ws", w.client)
}

func (w *world) dialAt(url string, via *http.Client) *client {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{wire.Subprotocol}, HTTPClient: via})
	if err != nil {
		w.t.Fatal(err)
	}
	c := newClient(w.t, ws, cancel)
	c.virtual = w.srv == nil
	return c
}

func newClient(t testing.TB, ws *websocket.Conn, cancel context.CancelFunc) *client {
	ws.SetReadLimit(1 << 20)
	c := &client{t: t, ws: ws, in: make(chan *wire.Reply, 10000), end: make(chan error, 1), quit: cancel}
	go c.read()
	t.Cleanup(func() { c.quit(); ws.CloseNow(); <-c.end })
	return c
}

func (c *client) read() {
	defer close(c.in)
	for {
		_, b, err := c.ws.Read(context.Background())
		if err != nil {
			c.end <- err
			close(c.end)
			return
		}
		if wire.IsPing(b) {
			if c.deaf.Load() {
				continue
			}
			c.ws.Write(context.Background(), websocket.MessageText, []byte("{}"))
			continue
		}
		lines, err := wire.Lines(b)
		if err != nil {
			panic(err)
		}
		for line := range lines {
			r := new(wire.Reply)
			if err := wire.Decode(line, r); err != nil {
				panic(fmt.Sprintf("%v in %s", err, line))
			}
			c.in <- r
		}
	}
}

// patience ends when a test has waited too long: 10 s, or 20 min in virtual time.
func (c *client) patience() <-chan time.Time {
	if c.virtual {
		return time.After(20 * time.Minute)
	}
	return time.After(10 * time.Second)
}

func (c *client) raw(s string) {
	c.t.Helper()
	if err := c.ws.Write(context.Background(), websocket.MessageText, []byte(s)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) send(cmd *wire.Command) uint64 {
	c.t.Helper()
	c.id++
	cmd.Id = c.id
	c.raw(string(cmd.AppendJSON(nil)))
	return c.id
}

// next is the next thing the server says.
func (c *client) next() *wire.Reply {
	c.t.Helper()
	select {
	case r, ok := <-c.in:
		if !ok {
			c.t.Fatalf("socket ended: %v", <-c.end)
		}
		return r
	case <-c.patience():
		c.t.Fatal("the server says nothing")
	}
	return nil
}

// reply skips pushes until the reply to a command.
func (c *client) reply(id uint64) *wire.Reply {
	c.t.Helper()
	for {
		if r := c.next(); r.Id == id {
			return r
		}
	}
}

// push skips to the next push that match takes.
func (c *client) push(match func(*wire.Push) bool) *wire.Push {
	c.t.Helper()
	for {
		if p := c.next().GetPush(); p != nil && match(p) {
			return p
		}
	}
}

// sees waits until the user is shown in a state.
func (c *client) sees(user string, state wire.State) *wire.Presence {
	c.t.Helper()
	for {
		for _, p := range c.next().GetPush().GetPresence() {
			if p.User == user && p.State == state {
				return p
			}
		}
	}
}

// seesAll waits until each of the users is shown in a state, in whatever order.
func (c *client) seesAll(state wire.State, users ...string) {
	c.t.Helper()
	left := map[string]bool{}
	for _, u := range users {
		left[u] = true
	}
	for len(left) > 0 {
		for _, p := range c.next().GetPush().GetPresence() {
			if p.State == state {
				delete(left, p.User)
			}
		}
	}
}

// closed waits for the close and returns its code.
func (c *client) closed() websocket.StatusCode {
	c.t.Helper()
	for {
		select {
		case r, ok := <-c.in:
			if !ok {
				return websocket.CloseStatus(<-c.end)
			}
			_ = r
		case <-c.patience():
			c.t.Fatal("not closed")
		}
	}
}

func (c *client) connect(user string, watch ...string) *wire.ConnectReply {
	c.t.Helper()
	return c.connectAs(&wire.Connect{Token: user, DeviceId: "d1", Class: wire.DeviceClass_DEVICE_CLASS_WEB, Watch: watch})
}

func (c *client) connectAs(con *wire.Connect) *wire.ConnectReply {
	c.t.Helper()
	if con.Attempt == 0 {
		con.Attempt = attempts.Add(1)
	}
	r := c.reply(c.send(&wire.Command{Method: &wire.Command_Connect{Connect: con}}))
	if r.GetError() != nil {
		c.t.Fatalf("connect: %s", asJSON(r))
	}
	return r.GetConnect()
}

func (c *client) status(state string) {
	c.t.Helper()
	if r := c.reply(c.send(&wire.Command{Method: &wire.Command_Status{Status: &wire.Status{State: state}}})); r.GetError() != nil {
		c.t.Fatalf("status: %s", asJSON(r))
	}
}

func asJSON(r *wire.Reply) string { return string(r.AppendJSON(nil)) }

func user(w *world, token string, watch ...string) *client {
	w.t.Helper()
	c := w.dial()
	c.connect(token, watch...)
	return c
}
