package stream

import (
	"net"
	"testing"
)

// A process that ends drops connections before its port refuses them; one that lives says nothing until it is greeted.
func TestProbe(t *testing.T) {
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		return ln
	}
	ends, lives := listen(), listen()
	go func() {
		for range 3 {
			if c, err := ends.Accept(); err == nil {
				_ = c.Close()
			}
		}
		_ = ends.Close()
	}()
	n := startNode(t, 1)
	if !n.probe(ends.Addr().String()) {
		t.Error("a process that ends is taken for one that lives")
	}
	if n.probe(lives.Addr().String()) {
		t.Error("a process that lives is taken for one that has ended")
	}
}
