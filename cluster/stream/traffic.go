package stream

import (
	"net"
	"sync/atomic"
)

// Sent counts the bytes written to the port's connections, TLS included.
func (n *Net) Sent() uint64 { return n.sent.Load() }

// counted is a connection that counts what is written to it.
type counted struct {
	net.Conn
	sent *atomic.Uint64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.sent.Add(uint64(max(n, 0)))
	return n, err
}

// counting is a listener whose connections count.
type counting struct {
	net.Listener
	sent *atomic.Uint64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &counted{c, l.sent}, nil
}
