package edge

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"muster/clients/wire"
)

const (
	firstBuffer = 4 << 10
	// maxUnproven is how many bytes all frames of sockets that are not authenticated may take.
	maxUnproven = 64 << 20
)

// pool keeps frame buffers between uses.
type pool struct{ sync.Pool }

func (p *pool) get() *[]byte {
	if b, ok := p.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, firstBuffer)
	return &b
}

// put takes back the holder of a buffer that may have grown; large ones are let go.
func (p *pool) put(holder *[]byte, b []byte) {
	if cap(b) > 4*firstBuffer {
		return
	}
	*holder = b[:0]
	p.Put(holder)
}

var frames pool

// crew reads from sockets that have something to read. Its goroutines are kept for a while, since a new
// one has to grow its stack for each command.
type crew struct {
	work chan *socket
	idle atomic.Int32
}

// crewIdle is how many goroutines are kept waiting for work.
const crewIdle = 32

// read gives s to a goroutine that waits, or to a new one: one of them may be held up by a client
// that sends half a frame.
func (c *crew) read(s *socket) {
	select {
	case c.work <- s:
	default:
		go c.run(s)
	}
}

func (c *crew) run(s *socket) {
	for s != nil {
		s.in.Run(&s.nc, s.readSome)
		if c.idle.Add(1) > crewIdle {
			c.idle.Add(-1)
			return
		}
		s = <-c.work // nil when the edge closes
		c.idle.Add(-1)
	}
}

// Readable is called by the poller.
func (s *socket) Readable(ended bool) {
	if ended {
		s.nc.End()
	}
	if s.in.Note() {
		s.edge.crew.read(s)
	}
}

// readSome reads what there is.
func (s *socket) readSome() {
	for s.readFrame() {
		if s.br.Buffered() == 0 && s.nc.Drained() {
			return
		}
	}
}

// readAll reads until the end, for conns that no poller can watch.
func (s *socket) readAll() {
	for s.readFrame() {
	}
}

var (
	errTooLarge = errors.New("frame larger than 64 KiB")
	errCrowded  = errors.New("too many unauthenticated frames at once")
)

// readFrame reads and handles one message; false when the socket is done with reading.
func (s *socket) readFrame() bool {
	if s.phase() >= closing {
		return s.awaitClose()
	}
	typ, r, err := s.ws.Reader(context.Background())
	if err != nil {
		s.lost(err)
		return false
	}
	holder := frames.get()
	b, err := s.readMessage(r, *holder)
	defer func() { frames.put(holder, b) }()
	switch {
	case err == nil:
		if s.phase() < closing {
			s.handle(typ, b)
		}
		return true
	case errors.Is(err, errTooLarge):
		s.close(closeDecode)
		s.adrift = true
		return true
	case errors.Is(err, errCrowded):
		s.close(closeRate)
		s.adrift = true
		return true
	}
	s.lost(err)
	return false
}

// awaitClose throws away what comes after the close frame was sent, until the peer's own, so that the peer
// sees the close code rather than a reset. The wheel ends it if none comes.
func (s *socket) awaitClose() bool {
	var scrap [512]byte
	if _, err := s.br.Read(scrap[:]); err != nil || scrap[0] == opClose && !s.adrift {
		s.over()
		return false
	}
	return true
}

// readMessage reads a whole message into b, which grows as far as the bound allows.
func (s *socket) readMessage(r io.Reader, b []byte) (_ []byte, err error) {
	unproven := s.phase() == fresh
	charged := 0
	charge := func(n int) bool {
		charged += n
		return !unproven || s.edge.unproven.Add(int64(n)) <= maxUnproven
	}
	defer func() {
		if unproven {
			s.edge.unproven.Add(int64(-charged))
		}
	}()
	if !charge(cap(b)) {
		return b, errCrowded
	}
	for {
		if len(b) > wire.MaxFrame {
			return b, errTooLarge
		}
		if len(b) == cap(b) {
			more := min(3*cap(b), wire.MaxFrame+1-cap(b))
			if !charge(more) {
				return b, errCrowded
			}
			grown := make([]byte, len(b), cap(b)+more)
			copy(grown, b)
			b = grown
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF && len(b) <= wire.MaxFrame {
			return b, nil
		}
		if err != nil && err != io.EOF {
			return b, err
		}
	}
}

// handle takes one message of the peer.
func (s *socket) handle(typ websocket.MessageType, b []byte) {
	s.heard.Store(s.edge.clock())
	if (typ == websocket.MessageBinary) != s.codec.binary() {
		s.close(closeDecode)
		return
	}
	if wire.IsPing(b) {
		if s.phase() == fresh {
			s.close(closeEarly)
		} else if _, ok := s.limit.hard.take(time.Since(s.edge.start), abuse*s.edge.cfg.CommandRate.PerSecond, abuse*s.edge.cfg.CommandRate.Burst); !ok {
			s.close(closeRate)
		}
		return
	}
	err := s.codec.decode(b, func(c *wire.Command, bad *wire.FieldError) bool {
		if s.phase() == fresh {
			s.open(c, bad)
		} else {
			s.command(c, bad)
		}
		return s.phase() < closing
	})
	if err != nil {
		s.close(closeDecode)
	}
}

// command checks one command of an authenticated socket and gives it to the home hub, or answers it
// here when no one else need know.
func (s *socket) command(c *wire.Command, bad *wire.FieldError) {
	s.edge.count.commands.Add(1)
	wait, ok, abusive := s.spend(c)
	switch {
	case abusive:
		s.close(closeRate)
	case !ok:
		s.edge.count.limited.Add(1)
		id := c.Id
		if bad != nil {
			id = bad.ID
		}
		s.refuse(id, wire.CodeRateLimited, "", wait)
	case bad != nil:
		s.refuse(bad.ID, wire.CodeBadRequest, bad.Error(), 0)
	case c.Method == nil && c.Id == 0:
		s.close(closeUnknown)
	case c.Method == nil:
		s.refuse(c.Id, wire.CodeMethodNotFound, "", 0)
	default:
		s.dispatch(c)
	}
}
