//go:build !linux

package netpoll

import "net"

// Handler is told that its socket may have something to read.
type Handler interface{ Readable(ended bool) }

// Poller does nothing on this system: each socket has a reading goroutine.
type Poller struct{}

// New returns a poller that takes no sockets.
func New() (*Poller, error) { return &Poller{}, nil }

// Close does nothing.
func (*Poller) Close() error { return nil }

// Add refuses.
func (*Poller) Add(net.Conn, Handler) (bool, error) { return false, nil }

// Remove does nothing.
func (*Poller) Remove(net.Conn) {}

func (*Conn) pending() bool { return true }
