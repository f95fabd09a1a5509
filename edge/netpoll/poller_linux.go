package netpoll

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
)

const (
	edgeTriggered = 1 << 31 // EPOLLET, which package syscall has as a negative number
	interest      = syscall.EPOLLIN | syscall.EPOLLRDHUP | edgeTriggered
	hangup        = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
	batch         = 256
)

// Handler is told that its socket may have something to read, and that the peer has ended;
// then it must call Conn.End before it reads. It must not block. A call may be spurious.
type Handler interface{ Readable(ended bool) }

// Poller waits for many sockets in one goroutine.
type Poller struct {
	epoll *os.File
	raw   syscall.RawConn
	done  chan struct{}

	mu       sync.RWMutex
	handlers []Handler // by descriptor
}

// New starts a poller.
func New() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	p := &Poller{epoll: os.NewFile(uintptr(fd), "epoll"), done: make(chan struct{})}
	if p.raw, err = p.epoll.SyscallConn(); err != nil {
		p.epoll.Close()
		return nil, err
	}
	go p.loop()
	return p, nil
}

// Close stops the poller; sockets still in it are told nothing more.
func (p *Poller) Close() error {
	err := p.epoll.Close()
	<-p.done
	return err
}

// Add registers c. ok is false, and nothing is registered, if c has no descriptor that
// tells of its data. Closing c removes it; call Remove before, so that its handler is let go.
func (p *Poller) Add(c net.Conn, h Handler) (ok bool, err error) {
	raw, err := rawConn(c)
	if raw == nil {
		return false, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		p.set(int(fd), h)
		ev := syscall.EpollEvent{Events: interest, Fd: int32(fd)}
		if failed = p.control(syscall.EPOLL_CTL_ADD, int(fd), &ev); failed != nil {
			p.set(int(fd), nil)
		}
	})
	return err == nil && failed == nil, errors.Join(err, failed)
}

// Remove forgets c. It must be called before c is closed.
func (p *Poller) Remove(c net.Conn) {
	raw, _ := rawConn(c)
	if raw == nil {
		return
	}
	raw.Control(func(fd uintptr) {
		p.set(int(fd), nil)
		p.control(syscall.EPOLL_CTL_DEL, int(fd), nil)
	})
}

// control changes the set while the epoll descriptor is known to be open.
func (p *Poller) control(op, fd int, ev *syscall.EpollEvent) error {
	var failed error
	err := p.raw.Control(func(epoll uintptr) { failed = syscall.EpollCtl(int(epoll), op, fd, ev) })
	return errors.Join(err, os.NewSyscallError("epoll_ctl", failed))
}

func (p *Poller) set(fd int, h Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if fd >= len(p.handlers) {
		grown := make([]Handler, max(fd+1, 2*len(p.handlers)))
		copy(grown, p.handlers)
		p.handlers = grown
	}
	p.handlers[fd] = h
}

func (p *Poller) loop() {
	defer close(p.done)
	var events [batch]syscall.EpollEvent
	n := 0
	wait := func(fd uintptr) bool {
		n, _ = syscall.EpollWait(int(fd), events[:], 0)
		return n > 0
	}
	for p.raw.Read(wait) == nil {
		p.mu.RLock()
		for _, e := range events[:n] {
			if fd := int(e.Fd); fd < len(p.handlers) && p.handlers[fd] != nil {
				p.handlers[fd].Readable(e.Events&hangup != 0)
			}
		}
		p.mu.RUnlock()
	}
}

// rawConn is nil if c does not read straight from a descriptor.
func rawConn(c net.Conn) (syscall.RawConn, error) {
	if w, ok := c.(*Conn); ok {
		c = w.Conn
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return c.SyscallConn()
	case *net.UnixConn:
		return c.SyscallConn()
	}
	return nil, nil
}

// pending reports whether a read would return at once: with data, the end or an error.
func (c *Conn) pending() bool {
	raw, err := rawConn(c)
	if raw == nil || err != nil {
		return true
	}
	var b [1]byte
	blocked := false
	err = raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		blocked = err == syscall.EAGAIN
	})
	return err != nil || !blocked
}
