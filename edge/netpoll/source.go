package netpoll

import (
	"net"
	"sync/atomic"
)

// Conn is a net.Conn that remembers whether its last read left the kernel's buffer empty.
type Conn struct {
	net.Conn
	full  bool
	ended atomic.Bool
}

// Read reads as the wrapped conn does.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.full = n == len(b)
	return n, err
}

// Drained reports whether nothing is left to read: whatever comes later raises a new event.
// It has to ask the kernel only after a read that got all it asked for, or when the peer
// has ended: the end may have come in one event with the data before it, and raises no other. It
// belongs to the goroutine that reads.
func (c *Conn) Drained() bool { return !c.full && !c.ended.Load() || !c.pending() }

// End notes that the peer sends no more after what there is.
func (c *Conn) End() { c.ended.Store(true) }

// Source runs one socket's reads: at most one goroutine at a time, and again when an
// event came while it ran. The zero Source is ready.
type Source struct {
	events atomic.Int32
}

// Signal notes an event and runs read in a new goroutine unless one runs already.
// read is called when c has something to read, and returns when nothing is left. (It may find nothing when an earlier read
// was quicker than the event that told of it; then it waits in the read.)
func (s *Source) Signal(c *Conn, read func()) {
	if s.Note() {
		go s.Run(c, read)
	}
}

// Note notes an event. If it reports true, the caller must have Run called.
func (s *Source) Note() bool { return s.events.Add(1) == 1 }

// Run reads, and again if events came meanwhile. Those may tell of what has been read
// already, so it looks first.
func (s *Source) Run(c *Conn, read func()) {
	for first := true; ; first = false {
		seen := s.events.Load()
		if first || c.pending() {
			read()
		}
		if s.events.CompareAndSwap(seen, 0) {
			return
		}
	}
}
