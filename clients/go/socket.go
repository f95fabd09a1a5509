package muster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"muster/clients/wire"
)

// pongSlack is how much longer than ping_ms a silent server is believed in.
const pongSlack = 10 * time.Second

// lastWords is how long to listen for the reason after a write has failed.
const lastWords = 2 * time.Second

// socket is one WebSocket: a reading and a writing goroutine, and the calls that wait for
// replies. It knows nothing of sessions. done is closed when it is dead; err says why.
type socket struct {
	conn   *websocket.Conn
	out    chan []byte
	cancel context.CancelCauseFunc
	ctx    context.Context
	done   chan struct{}
	err    error
	born   time.Time

	push func(*socket, *wire.Push) // called by the reading goroutine, in order
	pong func(*socket) []byte      // the answer to a ping

	moving chan *wire.ReconnectPush // the server asks to move
	left   chan struct{}            // closed when the client no longer uses it

	mu       sync.Mutex
	lastID   uint64
	calls    map[uint64]*call
	silence  *time.Timer
	patience time.Duration
	goodbye  *wire.DisconnectPush
}

// call waits for a reply. on runs in the reading goroutine, in order with the pushes, and
// returns whether the reply is complete.
type call struct {
	on   func(*wire.Reply) bool
	done chan struct{}
	err  error
}

func dial(ctx context.Context, url string, o Options, push func(*socket, *wire.Push), pong func(*socket) []byte) (*socket, error) {
	conn, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: o.HTTPClient, HTTPHeader: o.Header, Subprotocols: []string{wire.Subprotocol},
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
			return nil, &HandshakeError{Status: resp.StatusCode, RetryAfter: time.Duration(max(seconds, 0)) * time.Second}
		}
		return nil, fmt.Errorf("muster: %w", err)
	}
	conn.SetReadLimit(wire.MaxFrame)
	s := &socket{
		conn: conn, out: make(chan []byte, 64), done: make(chan struct{}), born: time.Now(), push: push, pong: pong,
		calls: map[uint64]*call{}, moving: make(chan *wire.ReconnectPush, 1), left: make(chan struct{}), patience: o.Timeout,
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.silence = time.AfterFunc(s.patience, func() { s.drop(errors.New("muster: the server fell silent")) })
	var both sync.WaitGroup
	both.Go(s.read)
	both.Go(s.write)
	go func() {
		both.Wait()
		s.silence.Stop()
		_ = conn.CloseNow()
		s.end()
	}()
	return s, nil
}

// drop ends the socket at once, because of cause.
func (s *socket) drop(cause error) { s.cancel(cause) }

// end tells everyone that waits for the socket.
func (s *socket) end() {
	s.mu.Lock()
	calls := s.calls
	s.calls = nil
	s.err = context.Cause(s.ctx)
	s.mu.Unlock()
	for _, c := range calls {
		c.err = errLost
		close(c.done)
	}
	close(s.done)
}

func (s *socket) write() {
	for {
		select {
		case frame := <-s.out:
			ctx, cancel := context.WithTimeout(s.ctx, pongSlack)
			err := s.conn.Write(ctx, websocket.MessageText, frame)
			cancel()
			if err != nil {
				s.believe(lastWords) // the close frame may still be on its way to the reader
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *socket) read() {
	for {
		_, frame, err := s.conn.Read(s.ctx)
		if err != nil {
			s.drop(s.why(err))
			return
		}
		s.mu.Lock()
		s.silence.Reset(s.patience)
		s.mu.Unlock()
		lines, err := wire.Lines(frame)
		if err != nil {
			s.drop(fmt.Errorf("muster: bad frame: %w", err))
			return
		}
		for line := range lines {
			if !s.line(line) {
				return
			}
		}
	}
}

// line handles one line; false when the socket was dropped for it.
func (s *socket) line(line []byte) bool {
	if wire.IsPing(line) {
		s.post(s.ctx, s.pong(s))
		return true
	}
	var reply wire.Reply
	var field *wire.FieldError
	if err := wire.Decode(line, &reply); errors.As(err, &field) {
		return true // a newer server's: this line is not for us
	} else if err != nil {
		s.drop(fmt.Errorf("muster: bad line: %w", err))
		return false
	}
	if push := reply.GetPush(); push != nil {
		s.pushed(push)
		return true
	}
	s.mu.Lock()
	c := s.calls[reply.GetId()]
	s.mu.Unlock()
	if c == nil {
		return true
	}
	if e := reply.GetError(); e != nil {
		c.err = refusal(e)
	} else if !c.on(&reply) {
		return true // more of it follows
	}
	s.forget(reply.GetId(), c)
	close(c.done)
	return true
}

func (s *socket) pushed(push *wire.Push) {
	s.mu.Lock()
	if d := push.GetDisconnect(); d != nil {
		s.goodbye = d
	}
	s.mu.Unlock()
	if r := push.GetReconnect(); r != nil {
		select {
		case s.moving <- r:
		default:
		}
	}
	s.push(s, push)
}

// why turns an error of the connection into the one that matters.
func (s *socket) why(err error) error {
	if cause := context.Cause(s.ctx); cause != nil {
		return cause
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	closed := &CloseError{}
	var frame websocket.CloseError
	switch {
	case errors.As(err, &frame):
		closed.Code, closed.Reason = wire.CloseCode(frame.Code), frame.Reason
	case s.goodbye != nil: // a proxy may have swallowed the close frame
		closed.Code, closed.Reason = wire.CloseCode(s.goodbye.GetCode()), s.goodbye.GetReason()
	default:
		return fmt.Errorf("muster: %w", err)
	}
	closed.RetryAfter = millis(s.goodbye.GetRetryAfterMs())
	return closed
}

// believe sets how long the server may be silent from now on.
func (s *socket) believe(patience time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patience = patience
	if s.ctx.Err() == nil {
		s.silence.Reset(patience)
	}
}

// post sends a frame without waiting for an answer; false if ctx or the socket ended first.
func (s *socket) post(ctx context.Context, frame []byte) bool {
	select {
	case s.out <- frame:
		return true
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return false
}

// start sends a command with an id of its own; on gets the replies. ctx bounds the sending.
func (s *socket) start(ctx context.Context, cmd *wire.Command, on func(*wire.Reply) bool) *call {
	c := &call{on: on, done: make(chan struct{})}
	s.mu.Lock()
	if s.calls == nil {
		s.mu.Unlock()
		c.err = errLost
		close(c.done)
		return c
	}
	s.lastID++
	id := s.lastID
	cmd.Id = id
	s.calls[id] = c
	frame := cmd.AppendJSON(nil)
	s.mu.Unlock()
	if !s.post(ctx, frame) && ctx.Err() != nil {
		s.forget(id, c) // it was never sent; wait sees that ctx has ended
	}
	return c
}

func (s *socket) forget(id uint64, c *call) {
	s.mu.Lock()
	if s.calls[id] == c {
		delete(s.calls, id)
	}
	s.mu.Unlock()
}

// wait waits for the reply. When ctx ends first, a reply that comes later is still applied.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
