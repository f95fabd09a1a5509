package edge_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/clients/wire"
)

// Whatever an authenticated client or a stranger sends in one message, the socket answers the next command or is closed
// with a code of the table, and nobody else notices.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		hello, `{}`, `{"id":2,"watch":{"add":["a","b"],"replace":true,"visible":["a"],"visible_set":true}}`,
		`{"id":2,"query":{"users":["a"]}}`, `{"id":2,"status":{"state":"dnd","text":"x","ttl_ms":10000}}`,
		`{"id":2,"claim":{"id":"c","source":"call","state":"dnd","activity":{"a":[1]}}}` + "\n" + `{"id":3,"claim.end":{"id":"c"}}`,
		`{"id":2,"audience":{"state":{"rule":"only","users":["x"]},"grant":[{"to":"y","fields":["state"],"ttl_ms":5}]}}`,
		`{"id":2,"typing":{"user":"bystander"}}`, `{"id":2,"room.enter":{"room":"r","info":{}}}` + "\n" + `{"room.leave":{"room":"r"}}`,
		`{"id":2,"refresh":{"token":"u"}}`, `{"id":2,"activity":{"away":true}}`, `{"bye":{}}`, `{"id":2,"client_state":{"inactive":true}}`,
		`{"id":2,"contact":{"user":"bystander","action":"subscribe"}}` + "\n" + `{"id":3,"contacts":{"after":"a","limit":5}}`,
		`{"id":2,"block":{"add":["x"],"remove":["y"]}}`, `{"id":2,"notify_when":{"user":"x","ttl_ms":10000}}`,
		`{"id":2,"device":{"provider":"fcm","token":"t"}}` + "\n" + `{"id":3,"device":{"forget":true}}`, `{"id":2,"ack":{"outbox":1,"epoch":"0123456789abcdef"}}`,
		`{"id":1,"connect":{"token":"p|caps=publish","device_id":"d","outbox":{"epoch":"0123456789abcdef","offset":3}}}` + "\n" +
			`{"id":2,"publish":{"user":"p","client_id":"0198f3c2-5a10-7d3e-9c41-6b1f0a2d4e55","body":{"a":[1]},"ttl_ms":10000}}` + "\n" + `{"ack":{"outbox":1}}`,
		"\x00\xff", `{"id":18446744073709551616}`, strings.Repeat("[", 100), `{"id":2,"watch":null}`, `{"id":2,"ping":{},"bye":{}}`,
	} {
		f.Add([]byte(seed), true, false)
		f.Add([]byte(seed), false, false)
	}
	f.Add([]byte(hello), true, true)
	w := newWorld(f)
	by := user(w, "bystander", "star")
	star := user(w, "star")
	by.sees("star", online)
	n := 0
	f.Fuzz(func(t *testing.T, message []byte, authenticated, binary bool) {
		here := *w
		defer func() {
			if t.Failed() {
				st := w.node.Stats()
				t.Logf("%+v; core panics %d malformed %d stale %d up %d down %d epoch %d", w.edge.Stats(), st.Panics.Load(), st.Malformed.Load(), st.Stale.Load(), st.Up.Load(), st.Down.Load(), w.pipe.Epoch())
			}
		}()
		here.t, by.t, star.t = t, t, t
		c := here.dialPipe()
		defer func() { c.ws.CloseNow() }()
		if authenticated {
			c.raw(hello)
		}
		kind := websocket.MessageText
		if binary {
			kind = websocket.MessageBinary
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c.ws.Write(ctx, kind, message)
		o := c.outcome()
		_, known := o.close.Info()
		if o.close != 0 && !known && o.close != wire.CloseCode(websocket.StatusNormalClosure) {
			t.Fatalf("closed with %d", o.close)
		}
		if n++; n%16 == 0 {
			i := (n/16 + 1) % 2
			star.status([]string{"dnd", "online"}[i])
			by.sees("star", []wire.State{dnd, online}[i])
		}
		if w.edge.Stats().Panics != 0 {
			t.Fatal("a hub panicked")
		}
	})
}
