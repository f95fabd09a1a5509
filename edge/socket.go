package edge

import (
	"bufio"
	"net"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge/netpoll"
)

// phase is how far a socket has come; it only rises.
type phase uint32

const (
	fresh   phase = iota // not authenticated
	opening              // connect is being answered
	live                 // connect was answered
	closing              // the close frame was sent, or the peer has gone
	closed
)

// Flags of a socket.
const (
	isAway     = 1 << iota // the device's user is away
	isInactive             // the application is in the background
	hasVisible             // the client has named the watched users on its screen
	isAttached             // the core has confirmed the session
	isSparse               // it waited and got a single view: waiting does not pay
)

// socket is one conn of a client and the session it carries. It is kept below 500 bytes:
// no maps, closures, timers or goroutines.
type socket struct {
	edge  *Edge
	codec codec
	ws    *websocket.Conn
	in    netpoll.Source
	nc    netpoll.Conn
	br    *bufio.Reader
	out   sequencer

	conn   uint64
	idx    uint32
	polled bool
	stage  atomic.Uint32
	flags  atomic.Uint32
	// gathering counts the watch commands that are being answered; presence waits for them.
	gathering atomic.Int32
	refs      atomic.Int32 // the transport, and the hubs that hold rows; 0: the number is free again

	// Times are clock ms.
	heard    atomic.Int64 // last frame of the peer
	active   atomic.Int64 // last input of the user; may lie before the edge's start
	expires  atomic.Int64 // of the token, 0: never
	deadline atomic.Int64 // hard close when closing, else 4011; 0: none
	unplug   atomic.Bool
	born     int64

	// Of the wheel.
	slot, pinged, nextPing int64

	// Of the reading goroutine.
	limit limit
	caps  *[]string // what the token allows; nil: all
	// adrift: what comes next is the rest of a message that was too large, not a frame.
	adrift bool

	// Set before the home hub hears of the socket, then of the hub.
	who     *local
	self    session
	watches []uint32 // sorted refs of watched users; guarded by who.mu
}

// session is what the core is told about a socket.
type session struct {
	id       string
	device   string
	jti      string
	client   string
	iat      int64
	attempt  uint64
	graceMs  int32
	class    uint8
	reported int32 // the minute of last activity that the core knows
	rare     *rare // nil for most
}

// rare is what few sessions have.
type rare struct {
	rooms  []roomSeat
	typing []typist
	claims []ownClaim
	read   *reading // nil: the device does not read its user's outbox
}

func (s *socket) phase() phase { return phase(s.stage.Load()) }

// raise moves the socket on, from where it was; false if it is there or further.
func (s *socket) raise(to phase) (from phase, ok bool) {
	for {
		from = s.phase()
		if from >= to {
			return from, false
		}
		if s.stage.CompareAndSwap(uint32(from), uint32(to)) {
			return from, true
		}
	}
}

func (s *socket) has(flag uint32) bool { return s.flags.Load()&flag != 0 }

func (s *socket) set(flag uint32, on bool) {
	if on {
		s.flags.Or(flag)
	} else {
		s.flags.And(^flag)
	}
}

func (s *socket) home() *hub { return s.edge.hubOf(s.who.shard) }

// wake tells the hubs in the bit set that the socket takes frames again.
func (s *socket) wake(hubs uint64) {
	for i, h := range s.edge.hubs {
		if hubs&(1<<i) != 0 {
			h.tell(&woken{s})
		}
	}
}

// send writes one reply or push of this socket alone.
func (s *socket) send(r *wire.Reply) {
	buf := frames.get()
	b := s.codec.appendReply(newFrame(*buf), r)
	s.deliver(sealFrame(b, s.codec.opcode()), false)
	frames.put(buf, b)
}

func (s *socket) push(p *wire.Push) { s.send(&wire.Reply{Body: &wire.Reply_Push{Push: p}}) }

func (s *socket) refuse(id uint64, code wire.Code, message string, retry time.Duration) {
	s.edge.count.refused.Add(1)
	s.send(&wire.Reply{Id: id, Body: &wire.Reply_Error{Error: code.Error(message, retry)}})
}

// deliver writes a frame and minds a queue that has reached its bound.
func (s *socket) deliver(frame []byte, shared bool) verdict {
	now := s.edge.clock()
	v := s.out.write(frame, shared, now)
	if v == full {
		s.edge.wheel.arm(s, now+slowAfter)
		if s.out.over() {
			s.edge.wheel.arm(s, now)
		}
	}
	return v
}

const (
	slowAfter  = 5000 // ms with a full queue until 4010
	closeAfter = 2000 // ms for the peer to answer a close frame
)

// ending is why the server closes a socket: what the client is told, and what the core.
type ending struct {
	code  wire.CloseCode
	cause link.Cause
	retry time.Duration
}

var (
	closeInternal     = ending{code: wire.CloseInternal, cause: link.Cause_SILENCE, retry: time.Second}
	closeUnknown      = ending{code: wire.CloseUnknownCommand, cause: link.Cause_SILENCE}
	closeDecode       = ending{code: wire.CloseDecode, cause: link.Cause_SILENCE}
	closeEarly        = ending{code: wire.CloseBeforeConnect}
	closeAlready      = ending{code: wire.CloseAlready, cause: link.Cause_SILENCE}
	closeRate         = ending{code: wire.CloseRateLimited, cause: link.Cause_SILENCE, retry: 5 * time.Second}
	closeSlow         = ending{code: wire.CloseSlow, cause: link.Cause_SILENCE}
	closeDrained      = ending{code: wire.CloseDrain, cause: link.Cause_DRAIN}
	closeNoPong       = ending{code: wire.CloseNoPong, cause: link.Cause_SILENCE}
	closeTokenExpired = ending{code: wire.CloseTokenExpired, cause: link.Cause_SILENCE}
	closeNoConnect    = ending{code: wire.CloseNoConnect}
	closeCutOff       = ending{code: wire.CloseCutOff, cause: link.Cause_SILENCE}
	closeUnauthorized = ending{code: wire.CloseUnauthorized}
	closeRevoked      = ending{code: wire.CloseRevoked, cause: link.Cause_REVOKED_TOKEN}
	closeDeviceLimit  = ending{code: wire.CloseDeviceLimit}
	closeNotPermitted = ending{code: wire.CloseNotPermitted}
)

// close sends a disconnect push and a close frame, and ends the session for its cause.
func (s *socket) close(why ending) { s.closeWith(why, "") }

func (s *socket) closeWith(why ending, reason string) {
	from, ok := s.raise(closing)
	if !ok {
		return
	}
	if reason == "" {
		reason = why.code.Reason()
	}
	now := s.edge.clock()
	s.deadline.Store(now + closeAfter)
	push := &wire.Reply{Body: &wire.Reply_Push{Push: &wire.Push{Disconnect: &wire.DisconnectPush{
		Code: uint32(why.code), Reason: reason, Reconnect: why.code.Reconnect(), RetryAfterMs: uint64(why.retry.Milliseconds()),
	}}}}
	s.out.finish(now, appendFrame(nil, s.codec.opcode(), s.codec.appendReply(nil, push)), closeFrame(why.code))
	s.edge.count.closes.add(why.code)
	s.ended(from, why.cause)
	s.edge.wheel.arm(s, now+closeAfter)
}

// bye ends the session at the client's own wish.
func (s *socket) bye() {
	from, ok := s.raise(closing)
	if !ok {
		return
	}
	now := s.edge.clock()
	s.deadline.Store(now + closeAfter)
	s.out.finish(now, closeFrame(wire.CloseCode(websocket.StatusNormalClosure)))
	s.ended(from, link.Cause_BYE)
	s.edge.wheel.arm(s, now+closeAfter)
}

// lost is the end of what the peer sends.
func (s *socket) lost(err error) {
	cause := link.Cause_GONE
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		cause = link.Cause_BYE
	}
	if from, ok := s.raise(closing); ok {
		s.ended(from, cause)
	}
	s.over()
}

// ended tells the home hub that the session has lost its socket. from is the phase it
// was in: before opening there was no session.
func (s *socket) ended(from phase, cause link.Cause) {
	if from != fresh {
		s.home().tell(&parted{s, cause})
	}
}

// shut closes the transport. It may be called from any goroutine, more than once.
func (s *socket) shut() {
	if s.end() {
		// Frees what the library holds; waits for a reader that is still in it.
		go s.ws.CloseNow()
	}
}

// over is shut for the reading goroutine.
func (s *socket) over() {
	if s.end() {
		s.ws.CloseNow()
	}
}

func (s *socket) end() bool {
	if _, ok := s.raise(closed); !ok {
		return false
	}
	s.disconnect()
	s.out.abandon()
	s.unref()
	return true
}

// disconnect closes the descriptor, once.
func (s *socket) disconnect() error {
	if !s.unplug.CompareAndSwap(false, true) {
		return net.ErrClosed
	}
	if s.polled {
		s.edge.poller.Remove(&s.nc)
	}
	return s.nc.Close()
}

// unref gives the socket's number back when neither transport nor hubs need it.
func (s *socket) unref() {
	if s.refs.Add(-1) == 0 {
		s.edge.sockets.remove(s)
	}
}
