package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/edge/auth"
)

const patience = 30 * time.Second // for what should happen at once

// boot starts a server in this process; it is closed with the test.
func boot(t *testing.T, args ...string) *server {
	t.Helper()
	cfg, from, err := load(t, "", nil, append([]string{"--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--node-name", "n1", "--log-level", "error"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.check(from); err != nil {
		t.Fatal(err)
	}
	s, err := startServer(t.Context(), cfg, newLogger(cfg, t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.awaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) url() string { return "ws://" + s.listen.Addr().String() + "/v1/ws" }

// tokenFor signs a token that is a minute old.
func tokenFor(t *testing.T, user string) string {
	t.Helper()
	token, err := auth.Sign(auth.Secret(devSecret), auth.Claims{User: user, Issued: time.Now().Add(-time.Minute), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// reply is what a test reads of a server frame.
type reply struct {
	ID      int
	Error   *struct{ Code int }
	Connect *struct {
		SessionID string `json:"session_id"`
		Resumed   bool
		Presences []seen
		Done      bool
	}
	Push *struct {
		Presence   []seen
		Reconnect  *struct{ Code, RetryAfterMs int }
		Disconnect *struct {
			Code      int
			Reconnect bool
		}
	}
}

// seen is a view of a user.
type seen struct {
	User, State, Reason, Text string
	Ver                       []uint64
	Devices                   json.RawMessage
}

func (p seen) String() string {
	text := p.User + " " + p.State
	if len(p.Devices) > 0 {
		text += " " + string(p.Devices)
	}
	if p.Reason != "" {
		text += " " + p.Reason
	}
	return text
}

// device is a client that does what it is told and nothing else, but for answering
// pings.
type device struct {
	t       *testing.T
	ws      *websocket.Conn
	session string
	resumed bool
	ready   bool // connect was answered in full

	mu      sync.Mutex
	last    int // command sent by answer
	frames  int // all but pings
	views   []seen
	replies []reply
	raw     []string
	closed  error
	changed chan struct{} // holds a token after each change
	done    chan struct{}
}

// dial opens a socket without connecting.
func dial(t *testing.T, url string, header http.Header) (*device, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"muster.v1.json"}, HTTPHeader: header})
	if err != nil {
		return nil, resp, err
	}
	ws.SetReadLimit(1 << 20)
	d := &device{t: t, ws: ws, changed: make(chan struct{}, 1), done: make(chan struct{})}
	go d.read()
	t.Cleanup(func() { ws.CloseNow(); <-d.done })
	return d, resp, nil
}

// connect opens a session; more are members of connect in JSON, such as `"watch":["a"]`.
func connect(t *testing.T, s *server, user, deviceID, class string, more ...string) *device {
	t.Helper()
	return connectAt(t, s.url(), user, deviceID, class, more...)
}

func connectAt(t *testing.T, url, user, deviceID, class string, more ...string) *device {
	t.Helper()
	d, _, err := dial(t, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	members := append([]string{fmt.Sprintf(`"token":%q,"device_id":%q,"class":%q,"attempt":%d`, tokenFor(t, user), deviceID, class, time.Now().UnixNano())}, more...)
	d.send(fmt.Sprintf(`{"id":1,"connect":{%s}}`, strings.Join(members, ",")))
	d.await("the answer to connect", func() bool { return d.ready || d.closed != nil })
	if !d.ready {
		t.Fatalf("%s was not let in: %v %+v", user, d.closed, d.replies)
	}
	return d
}

func (d *device) send(line string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.ws.Write(ctx, websocket.MessageText, []byte(line)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) read() {
	defer close(d.done)
	for {
		_, frame, err := d.ws.Read(context.Background())
		if err != nil {
			d.note(func() { d.closed = err })
			return
		}
		for line := range strings.SplitSeq(string(frame), "\n") {
			if line == "{}" {
				_ = d.ws.Write(context.Background(), websocket.MessageText, []byte("{}"))
				continue
			}
			var r reply
			err := json.Unmarshal([]byte(line), &r)
			d.note(func() {
				d.frames++
				d.raw = append(d.raw, line)
				if err != nil {
					d.closed = fmt.Errorf("server sent %q: %w", line, err)
				}
				d.take(r)
			})
		}
	}
}

func (d *device) take(r reply) {
	switch {
	case r.Connect != nil:
		if r.Connect.SessionID != "" {
			d.session, d.resumed = r.Connect.SessionID, r.Connect.Resumed
		}
		d.ready = d.ready || r.Connect.Done
		d.views = append(d.views, r.Connect.Presences...)
	case r.Push != nil:
		d.views = append(d.views, r.Push.Presence...)
	}
	d.replies = append(d.replies, r)
}

func (d *device) note(change func()) {
	d.mu.Lock()
	change()
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// await waits for a condition of what was received.
func (d *device) await(what string, met func() bool) {
	d.t.Helper()
	d.within(patience, what, met)
}

func (d *device) within(limit time.Duration, what string, met func() bool) {
	d.t.Helper()
	over := time.After(limit)
	for {
		d.mu.Lock()
		ok := met()
		d.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-d.changed:
		case <-over:
			d.mu.Lock()
			defer d.mu.Unlock()
			d.t.Fatalf("no %s within %v; views %v, socket %v", what, limit, d.views, d.closed)
		}
	}
}

// next waits for the next view and removes it.
func (d *device) next() seen {
	d.t.Helper()
	var v seen
	d.await("view", func() bool {
		if len(d.views) == 0 {
			return false
		}
		v, d.views = d.views[0], d.views[1:]
		return true
	})
	return v
}

// expect compares the views that follow with lines such as "ann online {…}".
func (d *device) expect(lines ...string) {
	d.t.Helper()
	for _, want := range lines {
		if got := d.next().String(); got != want {
			d.t.Fatalf("view %q, want %q", got, want)
		}
	}
}

// code is the close code that the socket ended with.
func (d *device) code() int {
	d.t.Helper()
	d.await("close", func() bool { return d.closed != nil })
	return int(websocket.CloseStatus(d.closed))
}

// drop ends the TCP connection without a goodbye.
func (d *device) drop() { d.ws.CloseNow() }
