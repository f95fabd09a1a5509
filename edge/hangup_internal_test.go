package edge

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

// A client hangs up while its connect waits for a core. When the link is back, nobody is attached for it: that would replace the
// session which it has elsewhere by now.
func TestHangUpWhileConnecting(t *testing.T) {
	shard := userShard(presence.Key{App: "default", User: "ann"})
	if shard == shards-1 {
		t.Fatal("another user is needed: all of its shard's messages must come before those of the last shard")
	}
	for name, stays := range map[string]bool{"hangs up": false, "stays": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.AttachTimeout = time.Minute })
			attached, announced := 0, 0
			r.core.mu.Lock()
			r.core.answer = func(m *link.Up) (*link.Down, bool) {
				if m.Shard == shards-1 && m.GetAnnounce().GetDone() && m.Epoch > 1 {
					announced++
				}
				if m.GetAttach().GetCall() != 0 {
					attached++
				}
				return nil, m.GetAttach() != nil
			}
			r.core.mu.Unlock()
			is := func(n *int, want int) func() bool {
				return func() bool {
					r.core.mu.Lock()
					defer r.core.mu.Unlock()
					return *n == want
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.srv.URL, "http"), &websocket.DialOptions{Subprotocols: []string{wire.Subprotocol}})
			if err != nil {
				t.Fatal(err)
			}
			defer ws.CloseNow()
			connect := &wire.Command{Id: 1, Method: &wire.Command_Connect{Connect: &wire.Connect{Token: "ann", DeviceId: "d", Attempt: 1}}}
			if err := ws.Write(ctx, websocket.MessageText, connect.AppendJSON(nil)); err != nil {
				t.Fatal(err)
			}
			Eventually(t, "the core is asked", is(&attached, 1))
			r.pipe.Cut()
			if !stays {
				ws.CloseNow()
				Eventually(t, "the edge knows", func() bool { return r.edge.Stats().Conns == 0 })
			}
			r.pipe.Dial()
			Eventually(t, "all is announced", is(&announced, 1))
			want := 1
			if stays {
				want = 2
			}
			if !is(&attached, want)() {
				t.Errorf("attached %d times, want %d", attached, want)
			}
		})
	}
}
