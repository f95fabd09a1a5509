package stream

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// three are connected; between 1 and 2 there is a proxy, and 3 can relay.
func three(t testing.TB) (a, b, r *node, p *proxy) {
	relays := func(cfg *Config) { cfg.Relay = true }
	a, b, r = startNode(t, 1, relays), startNode(t, 2, relays), startNode(t, 3, relays)
	for _, n := range []*node{a, b, r} {
		n.Handle("who", false, func(_ context.Context, from Peer, _ []byte) ([]byte, error) {
			return fmt.Append(nil, n.self.Node, from.Node, from.Via), nil
		})
	}
	p = startProxy(t, b.self.Addr)
	far := b.self
	far.Addr = p.addr()
	a.SetPeers([]Peer{far, r.self})
	b.SetPeers([]Peer{a.self, r.self})
	r.SetPeers([]Peer{a.self, b.self})
	connected(t, a, b)
	connected(t, a, r)
	connected(t, b, r)
	return a, b, r, p
}

func (n *node) via(node uint64) uint64 {
	if e := n.epoch(node); e != nil {
		return e.peer.Via
	}
	return 0
}

func TestRelay(t *testing.T) {
	a, b, r, p := three(t)
	p.block(true)
	relayed := func() bool { return a.up(2) && b.up(1) && a.via(2) == 3 && b.via(1) == 3 }
	eventually(t, "relayed", relayed)
	const count = 1000
	for i := range count {
		for _, way := range [][2]*node{{a, b}, {b, a}} {
			if err := way[0].SendWait(t.Context(), way[1].self.Node, Class(i%2), byte(i), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range []*node{a, b} {
		eventually(t, "all arrives", func() bool { return len(n.received()) == count })
		var last [2]int
		for _, g := range n.received() {
			var i int
			if _, err := fmt.Sscan(g.payload, &i); err != nil || g.from != 3-n.self.Node || g.kind != byte(i) || i < last[g.class] || Class(i%2) != g.class {
				t.Fatalf("node %d received %+v after %v", n.self.Node, g, last)
			}
			last[g.class] = i
		}
	}
	if len(r.received()) != 0 {
		t.Error("the relay took what was not its own")
	}
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		resp, err := way[0].Call(t.Context(), way[1].self.Node, "who", nil)
		if want := fmt.Sprint(way[1].self.Node, way[0].self.Node, 3); err != nil || string(resp) != want {
			t.Errorf("%q, %v", resp, err)
		}
	}
	if err := a.Stream(t.Context(), 2, 0, nil, body("x")); !errors.Is(err, ErrDown) {
		t.Error("a bulk stream over a relay:", err)
	}
	p.block(false)
	eventually(t, "direct again", func() bool { return a.up(2) && b.up(1) && a.via(2) == 0 && b.via(1) == 0 })
	if err := a.Send(2, 0, 0, []byte("direct")); err != nil {
		t.Error(err)
	}
	eventually(t, "received", func() bool { return len(b.received()) == count+1 })
	ups, downs := b.was("up 1"), b.was("down 1")
	if ups < 3 || ups != downs+1 {
		t.Error("told", b.told)
	}
}

// TestRelayIsLost: an epoch ends with its relay, and with the relay's connection to the other end.
func TestRelayIsLost(t *testing.T) {
	a, b, r, p := three(t)
	p.block(true)
	eventually(t, "relayed", func() bool { return a.via(2) == 3 && b.via(1) == 3 })
	r.SetPeers([]Peer{a.self})
	b.SetPeers([]Peer{a.self})
	eventually(t, "down at both ends", func() bool { return !a.Connected(2) && !b.Connected(1) })
	if !a.Connected(3) {
		t.Error("the relay itself went")
	}
	b.SetPeers([]Peer{a.self, r.self})
	r.SetPeers([]Peer{a.self, b.self})
	eventually(t, "relayed again", func() bool { return a.via(2) == 3 && b.via(1) == 3 })
	r.Stop()
	eventually(t, "down again", func() bool { return !a.Connected(2) && !b.Connected(1) })
	p.block(false)
	connected(t, a, b)
}

// TestRelayRefuses: an envelope for an epoch that nobody knows ends it at the other end.
func TestRelayRefuses(t *testing.T) {
	a, b, _, p := three(t)
	p.block(true)
	eventually(t, "relayed", func() bool { return a.via(2) == 3 && b.via(1) == 3 })
	ups := a.was("up 2")
	b.epoch(1).fail(errDropped) // b forgets; a does not know
	eventually(t, "a new epoch", func() bool {
		_ = a.Send(2, 0, 0, []byte("x"))
		return a.was("up 2") > ups && b.via(1) == 3
	})
}
