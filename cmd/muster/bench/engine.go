//go:build linux

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// engine drives all sockets of the generator from one goroutine. Nothing in it is
// safe for concurrent use.
type engine struct {
	epoll   int
	timer   int
	byFD    []*client
	events  [512]unix.EpollEvent
	buf     [256 << 10]byte
	started time.Time
	open    int
	pings   uint64
	frames  uint64
	bytes   uint64
}

// client is one socket. Its owner sets line, opened and gone before dial.
type client struct {
	owner   *member
	fd      int
	phase   phase
	paused  bool
	wantOut bool
	rcvbuf  int
	upgrade []byte // the HTTP request
	partial []byte
	unsent  []byte
	code    uint16 // of the close frame
	opened  func(*client)
	line    func(*client, []byte) // one line of a text frame; valid during the call
	gone    func(*client, error)
}

type phase uint8

const (
	fresh phase = iota
	dialing
	upgrading
	live
	closed
)

var pongFrame = appendFrame(nil, opText, []byte("{}"))

func newEngine() (*engine, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(timer)}
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, timer, &event); err != nil {
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return &engine{epoll: fd, timer: timer, byFD: make([]*client, timer+1), started: time.Now()}, nil
}

func (e *engine) close() {
	for _, c := range e.byFD {
		if c != nil {
			e.drop(c, nil)
		}
	}
	unix.Close(e.timer)
	unix.Close(e.epoll)
}

// now is the generator's clock, ns since it started.
func (e *engine) now() int64 { return int64(time.Since(e.started)) }

func upgradeRequest(host, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bXVzdGVyIGJlbmNoISEhIQ==\r\nSec-WebSocket-Protocol: muster.v1.json\r\n\r\n", path, host)
}

// dial begins a connection; opened or gone tells how it ended.
func (e *engine) dial(c *client, to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w (more sockets than `ulimit -n` allows?)", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if c.rcvbuf > 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, c.rcvbuf)
	}
	c.fd, c.phase, c.partial, c.unsent, c.paused = fd, dialing, nil, nil, false
	for len(e.byFD) <= fd {
		e.byFD = append(e.byFD, nil)
	}
	e.byFD[fd] = c
	e.open++
	c.wantOut = true
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: int32(fd)}
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect %v: %w", to, err)
	}
	return nil
}

// poll handles what is ready, waiting for at most wait.
func (e *engine) poll(wait time.Duration) {
	n, err := unix.EpollWait(e.epoll, e.events[:], 0)
	if n == 0 && wait > 0 {
		ms := int((wait + time.Millisecond - 1) / time.Millisecond)
		n, err = unix.EpollWait(e.epoll, e.events[:], ms)
	}
	if err != nil {
		return // EINTR
	}
	for _, event := range e.events[:n] {
		c := e.byFD[event.Fd]
		if c == nil {
			if int(event.Fd) == e.timer {
				_, _ = unix.Read(e.timer, e.buf[:8])
			}
			continue
		}
		if event.Events&unix.EPOLLOUT != 0 && c.wantOut {
			e.writable(c)
		}
		if c.phase > dialing && c.phase != closed && event.Events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLRDHUP) != 0 {
			e.readable(c)
		}
	}
}

// pollFor handles what is ready, waiting no longer than wait in the timer's full
// resolution (epoll's own is a millisecond).
func (e *engine) pollFor(wait time.Duration) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(wait), 1))}
	_ = unix.TimerfdSettime(e.timer, 0, &spec, nil)
	e.poll(wait + time.Second)
}

// until polls until done or the time is over, and reports which.
func (e *engine) until(limit time.Duration, done func() bool) bool {
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			return false
		}
		e.poll(2 * time.Millisecond)
	}
	return true
}

// quiet polls until no frame has come for the time given, or the limit is over.
func (e *engine) quiet(d, limit time.Duration) {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		before := e.frames
		e.idle(d)
		if e.frames == before {
			return
		}
	}
}

// idle polls for the time given.
func (e *engine) idle(d time.Duration) {
	deadline := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(deadline) {
		e.poll(min(left, 50*time.Millisecond))
	}
}

// interest sets what epoll reports of a socket; nothing is read from a paused one.
func (e *engine) interest(c *client, events uint32) {
	if c.paused {
		events &^= unix.EPOLLIN
	}
	event := unix.EpollEvent{Events: events, Fd: int32(c.fd)}
	_ = unix.EpollCtl(e.epoll, unix.EPOLL_CTL_MOD, c.fd, &event)
}

func (e *engine) writable(c *client) {
	if c.phase == dialing {
		if code, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			e.drop(c, fmt.Errorf("connect: %w", unix.Errno(code)))
			return
		}
		c.phase = upgrading
		c.unsent = append(c.unsent, c.upgrade...)
	}
	c.wantOut = false
	e.interest(c, unix.EPOLLIN)
	rest := c.unsent
	c.unsent = nil
	e.send(c, rest)
}

// send writes a frame, or keeps what the socket does not take.
func (e *engine) send(c *client, frame []byte) {
	if c.phase == closed || len(frame) == 0 {
		return
	}
	n := 0
	if len(c.unsent) == 0 && !c.wantOut {
		var err error
		n, err = unix.Write(c.fd, frame)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			e.drop(c, fmt.Errorf("write: %w", err))
			return
		}
		n = max(n, 0)
	}
	if n < len(frame) {
		c.unsent = append(c.unsent, frame[n:]...)
		if !c.wantOut {
			c.wantOut = true
			e.interest(c, unix.EPOLLIN|unix.EPOLLOUT)
		}
	}
}

func (e *engine) readable(c *client) {
	n, err := unix.Read(c.fd, e.buf[:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return
	case err != nil:
		e.drop(c, fmt.Errorf("read: %w", err))
		return
	case n == 0:
		e.drop(c, nil)
		return
	}
	e.bytes += uint64(n)
	data := e.buf[:n]
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
		c.partial = nil
	}
	if c.phase == upgrading {
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			c.partial = append([]byte(nil), data...)
			return
		}
		if !bytes.HasPrefix(data, []byte("HTTP/1.1 101")) {
			e.drop(c, fmt.Errorf("upgrade refused: %.200s", data))
			return
		}
		c.phase = live
		data = data[end+4:]
		if c.opened != nil {
			c.opened(c)
		}
	}
	e.parse(c, data)
}

func (e *engine) parse(c *client, data []byte) {
	for len(data) > 0 && c.phase == live {
		op, payload, n, err := cutFrame(data)
		if err != nil {
			e.drop(c, err)
			return
		}
		if n == 0 {
			c.partial = append([]byte(nil), data...)
			return
		}
		data = data[n:]
		e.frames++
		switch op {
		case opText:
			e.text(c, payload)
		case opPing:
			e.send(c, appendFrame(nil, opPong, payload))
		case opClose:
			if len(payload) >= 2 {
				c.code = uint16(payload[0])<<8 | uint16(payload[1])
			}
			e.send(c, appendFrame(nil, opClose, payload[:min(2, len(payload))]))
		}
	}
}

func (e *engine) text(c *client, payload []byte) {
	for len(payload) > 0 {
		line := payload
		if i := bytes.IndexByte(payload, '\n'); i >= 0 {
			line, payload = payload[:i], payload[i+1:]
		} else {
			payload = nil
		}
		if len(line) == 2 {
			e.pings++
			e.send(c, pongFrame)
		} else if c.line != nil && len(line) > 0 {
			c.line(c, line)
		}
	}
}

// drop closes the socket without a goodbye; err says why, nil: in good order.
func (e *engine) drop(c *client, err error) {
	if c.phase == closed || c.phase == fresh {
		return
	}
	c.phase = closed
	e.byFD[c.fd] = nil
	unix.Close(c.fd)
	e.open--
	c.partial, c.unsent = nil, nil
	if c.gone != nil {
		c.gone(c, err)
	}
}

// pause stops reading a socket, as a client does that hangs; resume goes on.
func (e *engine) pause(c *client) {
	c.paused = true
	e.interest(c, unix.EPOLLIN)
}

func (e *engine) resume(c *client) {
	c.paused = false
	e.interest(c, unix.EPOLLIN)
}
