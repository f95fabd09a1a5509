package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
)

// A bulk stream is a kind (one byte) with a header, parts, and an answer the other way.
const (
	partData = iota // bytes of the body
	partEnd         // all of it was sent
	partFail        // the sender failed; its error's text
)

const chunkBytes = 256 << 10

// pull is a bulk stream that the other end opens for us.
type pull struct {
	opened chan wire
	ctx    context.Context // its end lets the stream's handler return, which ends the stream
}

// socket is closed with the connection's last use, so that nothing waits for a peer that hangs.
type socket struct {
	mu     sync.Mutex
	conn   net.Conn
	closed bool
}

func (s *socket) set(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	if s.closed {
		_ = c.Close()
	}
}

func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		_ = s.conn.Close()
	}
}

// frameBuffer joins parts into what raw sends.
func frameBuffer(parts ...[]byte) mem.Buffer {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	b := (*buf)[:0]
	for _, p := range parts {
		b = append(b, p...)
	}
	*buf = b
	return mem.NewBuffer(buf, pool)
}

// Stream sends a body of any length beside the messages, in chunks of at most 256 KiB, and returns what the peer's OnStream did:
// a *RemoteError when that failed. It goes at the pace of the reader, and never over a relay. ErrDown, ErrLost.
func (n *Net) Stream(ctx context.Context, to uint64, kind byte, header []byte, body io.WriterTo) error {
	if len(header) > MaxPayload {
		return ErrTooLarge
	}
	e := n.epoch(to)
	if e == nil || e.via != nil {
		return ErrDown
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	s, err := e.bulk(both)
	if err == nil {
		err = sendBulk(both, s, kind, header, body)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case e.ctx.Err() != nil:
		return errors.Join(ErrLost, err)
	}
	return err
}

// bulk opens a bulk stream, or asks the end that dialled to do it. When ctx ends the stream does.
func (e *epoch) bulk(ctx context.Context) (wire, error) {
	if e.conn != nil {
		return e.openBulk(ctx, nil)
	}
	id, p := rand.Uint64(), &pull{make(chan wire), ctx}
	e.mu.Lock()
	e.pulls[id] = p
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.pulls, id)
		e.mu.Unlock()
	}()
	if err := e.wait(ctx, callStream, envelope{kind: pullKind, payload: binary.BigEndian.AppendUint64(nil, id)}); err != nil {
		return nil, err
	}
	select {
	case s := <-p.opened:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (e *epoch) openBulk(ctx context.Context, extra metadata.MD) (wire, error) {
	md := metadata.Pairs(keyEpoch, strconv.FormatUint(e.id, 16), keyNode, strconv.FormatUint(e.net.cfg.Self.Node, 16))
	return e.conn.NewStream(metadata.NewOutgoingContext(ctx, metadata.Join(md, extra)), bothWays, bulkMethod)
}

// pulled opens the bulk stream that the other end asked for, and receives from it.
func (e *epoch) pulled(id uint64) {
	if e.conn == nil {
		return
	}
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	s, err := e.openBulk(ctx, metadata.Pairs(keyPull, strconv.FormatUint(id, 16)))
	if err == nil {
		e.receiveBulk(s)
	}
}

func (n *Net) acceptBulk(s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	f := fields{md: md}
	e, err := n.epochOf(s.Context(), &f)
	if err != nil {
		return n.refuse(hello{}, err)
	}
	if len(md.Get(keyPull)) == 0 {
		e.receiveBulk(s)
		return nil
	}
	id := f.number(keyPull, 16, 64)
	e.mu.Lock()
	p := e.pulls[id]
	e.mu.Unlock()
	if f.err != nil || p == nil {
		return nil
	}
	select {
	case p.opened <- s:
		<-p.ctx.Done()
	case <-p.ctx.Done():
	}
	return nil
}

// bulkWriter cuts a body into chunks; it stops when the answer comes early.
type bulkWriter struct {
	ctx      context.Context
	s        wire
	buf      []byte
	answered chan struct{}
}

var errAnswered = errors.New("stream: the receiver has answered")

func (w *bulkWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		k := min(len(b), chunkBytes-len(w.buf))
		w.buf = append(w.buf, b[:k]...)
		n, b = n+k, b[k:]
		if len(w.buf) == chunkBytes {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *bulkWriter) flush() error {
	select {
	case <-w.answered:
		return errAnswered
	case <-w.ctx.Done():
		return w.ctx.Err()
	default:
	}
	if len(w.buf) == 0 {
		return nil
	}
	err := w.s.SendMsg(&message{out: frameBuffer([]byte{partData}, w.buf)})
	w.buf = w.buf[:0]
	return err
}

// sendBulk returns the receiver's answer.
func sendBulk(ctx context.Context, s wire, kind byte, header []byte, body io.WriterTo) error {
	if err := s.SendMsg(&message{out: frameBuffer([]byte{kind}, header)}); err != nil {
		return err
	}
	w := &bulkWriter{ctx: ctx, s: s, answered: make(chan struct{})}
	var got message
	var broken error
	go func() {
		broken = s.RecvMsg(&got)
		close(w.answered)
	}()
	_, err := body.WriteTo(w)
	if err == nil {
		err = w.flush()
	}
	last := []byte{partEnd}
	if err != nil {
		last = append([]byte{partFail}, err.Error()...)
	}
	if serr := s.SendMsg(&message{out: frameBuffer(last)}); serr != nil && err == nil {
		err = serr
	}
	select {
	case <-w.answered:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil && !errors.Is(err, errAnswered) && !errors.Is(err, io.EOF) {
		return err
	}
	if broken != nil {
		return broken
	}
	return answerOf(got.in).err
}

// bulkReader is a body that arrives.
type bulkReader struct {
	s    wire
	part []byte
	err  error
}

func (r *bulkReader) Read(b []byte) (int, error) {
	for len(r.part) == 0 && r.err == nil {
		var m message
		if err := r.s.RecvMsg(&m); err != nil {
			r.err = errors.Join(io.ErrUnexpectedEOF, err)
			break
		}
		switch {
		case len(m.in) == 0:
			r.err = errFrame
		case m.in[0] == partData:
			r.part = m.in[1:]
		case m.in[0] == partEnd:
			r.err = io.EOF
		default:
			r.err = &RemoteError{string(m.in[1:])}
		}
	}
	if len(r.part) == 0 {
		return 0, r.err
	}
	n := copy(b, r.part)
	r.part = r.part[n:]
	return n, nil
}

// receiveBulk hands a body to its receiver, answers, and reads what is left of it, so that the sender never waits.
func (e *epoch) receiveBulk(s wire) {
	var first message
	if err := s.RecvMsg(&first); err != nil || len(first.in) == 0 {
		return
	}
	body := &bulkReader{s: s}
	err := e.net.receiveStream(e.peer, first.in[0], first.in[1:], body)
	out := []byte{outcomeOK}
	if err != nil {
		out = append([]byte{outcomeError}, err.Error()...)
	}
	if s.SendMsg(&message{out: frameBuffer(out)}) == nil {
		_, _ = io.Copy(io.Discard, body)
		_ = s.RecvMsg(&message{}) // the other end closes
	}
}

var errNoStream = errors.New("stream: nobody takes streams of this kind here")

func (n *Net) receiveStream(from Peer, kind byte, header []byte, body io.Reader) error {
	if n.raft != nil && kind == raftStream {
		return n.raft.snapshot(from, header, body)
	}
	if n.cfg.OnStream == nil {
		return errNoStream
	}
	return n.cfg.OnStream(from, kind, header, body)
}
