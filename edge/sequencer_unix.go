//go:build unix

package edge

import (
	"net"
	"sync"
	"syscall"
)

// rawConn is conn's descriptor, nil if frames cannot be written straight to it.
func rawConn(conn net.Conn) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// rawWrite is one non-blocking write; pooled, since a closure per frame costs more than the rest.
type rawWrite struct {
	b   []byte
	n   int
	err error
	run func(fd uintptr) bool
}

var rawWrites = sync.Pool{New: func() any {
	w := new(rawWrite)
	w.run = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.b)
		return true
	}
	return w
}}

// writeNow writes what the kernel takes at once; n may be less than len(b).
func writeNow(raw syscall.RawConn, b []byte) (n int, err error) {
	w := rawWrites.Get().(*rawWrite)
	w.b, w.n, w.err = b, 0, nil
	for {
		if err = raw.Write(w.run); err == nil {
			err = w.err
		}
		if err != syscall.EINTR {
			break
		}
	}
	n = max(w.n, 0)
	w.b = nil
	rawWrites.Put(w)
	if err == syscall.EAGAIN {
		err = nil
	}
	return n, err
}
