package edge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/clients/wire"
	"muster/edge"
)

const hello = `{"id":1,"connect":{"token":"u","device_id":"d","attempt":1}}`

// Whatever one client sends, it gets the documented code, and two others go on as if
// nothing were.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	a := user(w, "alice")
	b := user(w, "bob", "alice")
	states := []string{"dnd", "online"}
	for i, c := range []struct {
		name   string
		frames []string
		code   wire.Code      // of an error reply, 0: none
		close  wire.CloseCode // 0: stays open
	}{
		{"ping before connect", []string{`{"id":1,"ping":{}}`}, 0, wire.CloseBeforeConnect},
		{"empty object before connect", []string{`{}`}, 0, wire.CloseBeforeConnect},
		{"unknown before connect", []string{`{"id":1,"fly":{}}`}, 0, wire.CloseBeforeConnect},
		{"not JSON", []string{`hello`}, 0, wire.CloseDecode},
		{"truncated", []string{hello[:40]}, 0, wire.CloseDecode},
		{"not UTF-8", []string{"{\"id\":1,\"connect\":{\"token\":\"\xff\xfe\"}}"}, 0, wire.CloseDecode},
		{"too deep", []string{strings.Repeat(`{"a":`, 5000)}, 0, wire.CloseDecode},
		{"empty frame", []string{` `}, 0, wire.CloseDecode},
		{"too large", []string{`{"id":1,"connect":{"token":"` + strings.Repeat("x", wire.MaxFrame) + `"}}`}, 0, wire.CloseDecode},
		{"too many lines", []string{strings.Repeat("{}\n", 65)}, 0, wire.CloseDecode},
		{"wrong type in connect", []string{`{"id":1,"connect":{"token":"u","watch":7}}`}, wire.CodeBadRequest, wire.CloseDecode},
		{"no device", []string{`{"id":1,"connect":{"token":"u"}}`}, wire.CodeBadRequest, wire.CloseDecode},
		{"bad session id", []string{`{"id":1,"connect":{"token":"u","device_id":"d","session_id":"x"}}`}, wire.CodeBadRequest, wire.CloseDecode},
		{"bad watch id", []string{`{"id":1,"connect":{"token":"u","device_id":"d","watch":["a b"]}}`}, wire.CodeBadRequest, wire.CloseDecode},
		{"no token", []string{`{"id":1,"connect":{"device_id":"d"}}`}, wire.CodeUnauthorized, wire.CloseUnauthorized},
		{"expired token", []string{`{"id":1,"connect":{"token":"u|expired","device_id":"d"}}`}, wire.CodeTokenExpired, wire.CloseTokenExpired},
		{"token of another device", []string{`{"id":1,"connect":{"token":"u|dev=x","device_id":"d"}}`}, wire.CodePermissionDenied, wire.CloseNotPermitted},
		{"token may not watch", []string{`{"id":1,"connect":{"token":"u|caps=status","device_id":"d","watch":["a"]}}`}, wire.CodePermissionDenied, wire.CloseNotPermitted},
		{"connect twice", []string{hello, hello}, 0, wire.CloseAlready},
		{"unknown method", []string{hello, `{"id":2,"fly":{}}`}, wire.CodeMethodNotFound, 0},
		{"unknown method without id", []string{hello, `{"fly":{}}`}, 0, wire.CloseUnknownCommand},
		{"wrong type", []string{hello, `{"id":2,"watch":{"add":"x"}}`}, wire.CodeBadRequest, 0},
		{"bad id", []string{hello, `{"id":2,"watch":{"add":["` + strings.Repeat("x", 129) + `"]}}`}, wire.CodeBadRequest, 0},
		{"too many watches", []string{hello, `{"id":2,"watch":{"add":[` + strings.Repeat(`"a",`, 1000) + `"a"]}}`}, wire.CodeLimitExceeded, 0},
		{"too many queried", []string{hello, `{"id":2,"query":{"users":[` + strings.Repeat(`"a",`, 1000) + `"a"]}}`}, wire.CodeLimitExceeded, 0},
		{"bad state", []string{hello, `{"id":2,"status":{"state":"asleep"}}`}, wire.CodeBadRequest, 0},
		{"long text", []string{hello, `{"id":2,"status":{"state":"dnd","text":"` + strings.Repeat("ä", 129) + `"}}`}, wire.CodeBadRequest, 0},
		{"short ttl", []string{hello, `{"id":2,"status":{"state":"dnd","ttl_ms":9999}}`}, wire.CodeBadRequest, 0},
		{"bad source", []string{hello, `{"id":2,"claim":{"id":"c","source":"moon","state":"dnd"}}`}, wire.CodeBadRequest, 0},
		{"bad priority", []string{hello, `{"id":2,"claim":{"id":"c","source":"call","state":"dnd","priority":101}}`}, wire.CodeBadRequest, 0},
		{"bad rule", []string{hello, `{"id":2,"audience":{"state":{"rule":"friends"}}}`}, wire.CodeBadRequest, 0},
		{"bad grant", []string{hello, `{"id":2,"audience":{"grant":[{"to":"x","fields":["soul"],"ttl_ms":1}]}}`}, wire.CodeBadRequest, 0},
		{"typing to nobody", []string{hello, `{"id":2,"typing":{}}`}, wire.CodeBadRequest, 0},
		{"typing to someone not watched", []string{hello, `{"id":2,"typing":{"user":"alice"}}`}, wire.CodePermissionDenied, 0},
		{"typing in a room not entered", []string{hello, `{"id":2,"typing":{"room":"r"}}`}, wire.CodePermissionDenied, 0},
		{"bad room", []string{hello, `{"id":2,"room.enter":{"room":"no room"}}`}, wire.CodeBadRequest, 0},
		{"refresh for another", []string{hello, `{"id":2,"refresh":{"token":"v"}}`}, wire.CodePermissionDenied, 0},
		{"refresh for another device", []string{hello, `{"id":2,"refresh":{"token":"u|dev=other"}}`}, wire.CodePermissionDenied, 0},
		{"caps", []string{`{"id":1,"connect":{"token":"u|caps=query","device_id":"d"}}`, `{"id":2,"status":{"state":"dnd"}}`}, wire.CodePermissionDenied, 0},
		{"garbage after connect", []string{hello, `{"id":2,"ping":{}`}, 0, wire.CloseDecode},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := w.dial()
			for _, f := range c.frames {
				x.raw(f)
			}
			got := x.outcome()
			if got.code != c.code || got.close != c.close {
				t.Errorf("error %v, close %v; want %v, %v", got.code, got.close, c.code, c.close)
			}
			if got.close != 0 && got.push != uint32(got.close) {
				t.Errorf("closed with %v, disconnect push said %d", got.close, got.push)
			}
		})
		a.status(states[i%2])
		b.sees("alice", []wire.State{dnd, online}[i%2])
	}
}

type outcome struct {
	code  wire.Code
	close wire.CloseCode
	push  uint32 // code in the disconnect push
}

// outcome asks for something until the socket answers or closes, and tells what came.
func (c *client) outcome() (o outcome) {
	c.t.Helper()
	c.ws.Write(context.Background(), websocket.MessageText, []byte(`{"id":999,"query":{"users":["nobody"]}}`))
	for {
		select {
		case r, ok := <-c.in:
			switch {
			case !ok:
				o.close = wire.CloseCode(websocket.CloseStatus(<-c.end))
				return o
			case r.Id == 999 && r.GetError() != nil:
				return o
			case r.GetError() != nil:
				o.code = wire.Code(r.GetError().Code)
			case r.GetPush().GetDisconnect() != nil:
				o.push = r.GetPush().Disconnect.Code
			case r.Id == 999 && r.GetError() == nil:
				return o
			}
		case <-c.patience():
			c.t.Fatal("neither answered nor closed")
		}
	}
}

func TestBinaryFrame(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	c.ws.Write(context.Background(), websocket.MessageBinary, []byte(hello))
	if o := c.outcome(); o.close != wire.CloseDecode {
		t.Fatalf("%+v", o)
	}
}

// Over the limit there is error 111 with a time to wait; three times over it, 4008.
func TestRateLimit(t *testing.T) {
	w := newWorld(t, func(c *edge.Config) { c.CommandRate = edge.Rate{PerSecond: 1, Burst: 5} })
	c := user(w, "u")
	var limited *wire.Error
	for range 8 {
		if e := c.reply(c.send(&wire.Command{Method: &wire.Command_Ping{Ping: &wire.Ping{}}})).GetError(); e != nil {
			limited = e
		}
	}
	if limited == nil || limited.Code != uint32(wire.CodeRateLimited) || limited.RetryAfterMs == 0 || !limited.Retryable {
		t.Fatalf("limited: %v", limited)
	}
	for range 20 {
		c.ws.Write(context.Background(), websocket.MessageText, []byte(`{"id":2,"ping":{}}`))
	}
	if got := c.closed(); got != websocket.StatusCode(wire.CloseRateLimited) {
		t.Fatalf("closed %v", got)
	}
}

// All devices of one user share a limit.
func TestUserRateLimit(t *testing.T) {
	w := newWorld(t, func(c *edge.Config) { c.UserRate = edge.Rate{PerSecond: 1, Burst: 4} })
	limited := 0
	for i := range 3 {
		c := w.dial()
		c.connectAs(&wire.Connect{Token: "u", DeviceId: fmt.Sprint("d", i)})
		for range 2 {
			if e := c.reply(c.send(&wire.Command{Method: &wire.Command_Ping{Ping: &wire.Ping{}}})).GetError(); e != nil {
				limited++
			}
		}
	}
	if limited != 2 {
		t.Fatalf("%d of 6 commands limited, want 2", limited)
	}
}

func TestHandshakeRefusals(t *testing.T) {
	w := newWorld(t, func(c *edge.Config) {
		c.Origins = []string{"*.example.com", "https://strict.example"}
		c.MaxConns = 1
	})
	try := func(h http.Header) *http.Response {
		t.Helper()
		r, err := http.NewRequest("GET", w.srv.URL+wire.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		}
		for k, v := range h {
			r.Header[k] = v
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	check := func(h http.Header, status int, code wire.Code) {
		t.Helper()
		res := try(h)
		if res.StatusCode != status {
			t.Errorf("%v: status %d, want %d", h, res.StatusCode, status)
			return
		}
		var e struct {
			Code uint32
			Name string
		}
		if err := json.NewDecoder(res.Body).Decode(&e); err != nil || e.Code != uint32(code) || e.Name != code.String() {
			t.Errorf("%v: body %+v, %v", h, e, err)
		}
	}
	check(http.Header{"Origin": {"https://evil.test"}}, 403, wire.CodePermissionDenied)
	check(http.Header{"Origin": {"http://strict.example"}}, 403, wire.CodePermissionDenied)
	check(http.Header{"Origin": {"null"}}, 403, wire.CodePermissionDenied)
	check(http.Header{"Sec-Websocket-Protocol": {"muster.v9.json, other"}}, 400, wire.CodeNotAvailable)
	if res := try(http.Header{"Origin": {"https://a.example.com"}, "Sec-Websocket-Protocol": {"x, " + wire.Subprotocol}}); res.StatusCode != 101 {
		t.Errorf("good origin and subprotocol: %d", res.StatusCode)
	}
	res := try(nil)
	if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("over MaxConns: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
}

// New sessions and resumes have buckets of their own.
func TestAdmission(t *testing.T) {
	w := newWorld(t, func(c *edge.Config) { c.ConnectRate = edge.Rate{PerSecond: 0.1, Burst: 1} })
	first := user(w, "u")
	second := w.dial()
	e := second.reply(second.send(&wire.Command{Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "v", DeviceId: "d"}}})).GetError()
	if e.GetCode() != uint32(wire.CodeBusy) || e.RetryAfterMs < 1000 {
		t.Fatalf("second session: %v", e)
	}
	if got := second.closed(); got != websocket.StatusCode(wire.CloseRateLimited) {
		t.Fatalf("closed %v", got)
	}
	_ = first
	third := w.dial()
	r := third.connectAs(&wire.Connect{Token: "u", DeviceId: "d1", SessionId: strings.Repeat("ab", 16)})
	if r.User != "u" {
		t.Fatal("a resume was not let in")
	}
}

// Half a frame must not be waited for longer than connect may take.
func TestHalfAFrame(t *testing.T) {
	w := newWorld(t, func(c *edge.Config) { c.ConnectTimeout = 300 * time.Millisecond })
	nc, err := w.ln.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	go nc.Write([]byte{0x81, 0xfe, 0x10, 0x00, 1, 2, 3, 4, 'x'})
	nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	var all []byte
	buf := make([]byte, 4096)
	for {
		n, err := nc.Read(buf)
		all = append(all, buf[:n]...)
		if err != nil {
			break
		}
	}
	if !strings.Contains(string(all), `"code":4015`) {
		t.Fatalf("got %q", all)
	}
}
