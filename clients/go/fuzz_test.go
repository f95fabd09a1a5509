package muster

import (
	"context"
	"testing"
	"time"

	"muster/clients/wire"
)

// FuzzLine gives a client any line from a server. It must not crash, and its view must
// hold only states that there are.
func FuzzLine(f *testing.F) {
	for _, line := range []string{
		`{"id":1,"connect":{"presences":[{"user":"a","state":"online","ver":[1,2],"devices":{"web":"away"}}],"pending":["b"],"done":true,"rooms":[{"room":"r","ver":[1],"occupants":[{}]}]}}`,
		`{"push":{"presence":[{"user":"a","ver":[1,2,3]},{}],"self":{},"typing":[{}],"room":{"room":"r","enter":[{"user":"x"}],"leave":[{}]},"reconnect":{"retry_after_ms":18446744073709551615},"disconnect":{}}}`,
		`{"id":1,"error":{"code":4294967295,"retry_after_ms":18446744073709551615}}`,
		`{}`, `{"id":2}`, `{`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		c, s := loopback(t)
		s.line(line)
		s.line([]byte(`{"id":1,"connect":{"done":true}}`))
		s.line(line)
		for _, p := range c.view.All() {
			if p.User == "" && p.State == "" {
				t.Errorf("%q: %+v", line, p)
			}
			switch p.State {
			case Online, Away, DND, Offline, Invisible, Unknown:
			default:
				t.Errorf("%q: state %q", line, p.State)
			}
		}
	})
}

// loopback is a client without a server: its socket has sent connect, and takes lines.
func loopback(t *testing.T) (*Client, *socket) {
	o, err := Options{Token: "t", OnSelf: func(Self) {}, OnTyping: func(Typing) {}, OnContact: func(Contact) {}, Outbox: new(MemoryPosition)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{o: o, closed: make(chan struct{}), up: make(chan struct{}), rooms: map[string]*Room{}, kept: map[string]kept{}, told: newTeller()}
	c.ctx, c.stop = context.WithCancel(t.Context())
	c.view = newView(c.closed)
	c.view.watch([]string{"a", "b"})
	if c.outbox, err = newOutbox(t.Context(), c, o.Outbox); err != nil {
		t.Fatal(err)
	}
	c.rooms["r"] = newRoom(c, RoomOptions{Room: "r"})
	s := &socket{
		out: make(chan []byte, 8), calls: map[uint64]*call{}, moving: make(chan *wire.ReconnectPush, 1), left: make(chan struct{}),
		push: c.pushed, pong: c.pong, patience: time.Hour, silence: time.AfterFunc(time.Hour, func() {}),
	}
	s.ctx, s.cancel = context.WithCancelCause(t.Context())
	t.Cleanup(func() {
		s.drop(ErrClosed)
		s.silence.Stop()
		c.helpers.Wait()
		c.told.stop()
		c.stop()
	})
	d, cmd := c.declare("t")
	s.start(s.ctx, cmd, func(r *wire.Reply) bool {
		c.adopt(s, d, r.GetConnect())
		d.snapshot.part(r.GetConnect().GetPresences(), r.GetConnect().GetPending(), r.GetConnect().GetDone())
		c.roomAnswers(s, r.GetConnect().GetRooms())
		c.outbox.take(r.GetConnect().GetOutbox())
		return true
	})
	return c, s
}
