package chaos

import (
	"net"
	"testing"
)

// The server with the fewest connections gets the next; one that does not answer is passed over.
func TestBalancer(t *testing.T) {
	b := &balancer{}
	var listeners []net.Listener
	for range 2 {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		listeners = append(listeners, ln)
		b.servers = append(b.servers, &backend{addr: ln.Addr().String()})
	}
	one, two := b.servers[0], b.servers[1]
	dial := func() net.Conn {
		t.Helper()
		conn, err := b.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	conns := []net.Conn{dial(), dial(), dial(), dial()}
	if one.conns != 2 || two.conns != 2 {
		t.Fatalf("%d and %d connections, want 2 each", one.conns, two.conns)
	}
	for _, c := range conns {
		if c.RemoteAddr().String() == one.addr {
			c.Close()
			c.Close()
			break
		}
	}
	if c := dial(); c.RemoteAddr().String() != one.addr || one.conns != 2 {
		t.Fatalf("went to %v; %d connections", c.RemoteAddr(), one.conns)
	}
	listeners[0].Close() // of the first that was made
	for range 3 {
		if c := dial(); c.RemoteAddr().String() != two.addr {
			t.Fatalf("went to %v, which does not listen", c.RemoteAddr())
		}
	}
	if one.conns != 2 || one.failed.IsZero() {
		t.Fatalf("%d connections, failed %v", one.conns, one.failed)
	}
	listeners[1].Close()
	if _, err := b.dial(t.Context()); err == nil {
		t.Fatal("nobody listens")
	}
}
