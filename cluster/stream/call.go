package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// What runs on the stream of calls. All begin with the id that the caller chose, 8 bytes.
const (
	requestKind  = iota // timeout in ms and length of the method (uvarints), the method, the request
	responseKind        // outcome, the response or the error's text
	cancelKind          // nobody waits any more
	pullKind            // the id of a bulk stream that the dialling end is to open
	helloKind           // relayed: begins an epoch; hello
	welcomeKind         // relayed: its answer
)

// outcome of a call.
const (
	outcomeOK = iota
	outcomeError
	outcomeNoMethod
	outcomeBusy
)

const (
	callTimeout = 10 * time.Second
	maxCalls    = 256 // of a peer, in progress here
)

// Handler answers a call. ctx ends when nobody waits any more.
type Handler func(ctx context.Context, from Peer, req []byte) ([]byte, error)

type handler struct {
	f    Handler
	open bool
}

type answer struct {
	payload []byte
	err     error
}

// RemoteError is what a handler of another node returned.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return e.Text }

// Handle answers calls of a method; open: also those of nodes that belong to no cluster yet, or when this one does not.
func (n *Net) Handle(method string, open bool, h Handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handlers[method] = handler{h, open}
}

func (n *Net) handler(method string) (handler, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, ok := n.handlers[method]
	return h, ok
}

// within gives a call its deadline.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, callTimeout)
}

// Call asks a connected node, or this one. An error of its handler is a *RemoteError; when ctx has no deadline, 10 s is it. After
// ErrLost and an ended ctx the outcome is unknown; after ErrDown, ErrNoMethod and ErrBusy nothing happened.
func (n *Net) Call(ctx context.Context, to uint64, method string, req []byte) ([]byte, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	if to == n.cfg.Self.Node {
		return n.callSelf(ctx, method, req)
	}
	if len(req) > MaxPayload {
		return nil, ErrTooLarge
	}
	e := n.epoch(to)
	if e == nil {
		return nil, ErrDown
	}
	return e.call(ctx, n.calls.Add(1), method, req)
}

func (n *Net) callSelf(ctx context.Context, method string, req []byte) ([]byte, error) {
	h, ok := n.handler(method)
	if !ok {
		return nil, ErrNoMethod
	}
	resp, err := h.f(ctx, n.cfg.Self, req)
	if err != nil {
		return nil, &RemoteError{err.Error()}
	}
	return resp, nil
}

func (e *epoch) call(ctx context.Context, id uint64, method string, req []byte) ([]byte, error) {
	wait := make(chan answer, 1)
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		return nil, ErrDown
	}
	e.calls[id] = wait
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.calls, id)
		e.mu.Unlock()
	}()
	if err := e.wait(ctx, callStream, envelope{kind: requestKind, payload: request(ctx, id, method, req)}); err != nil {
		return nil, err
	}
	select {
	case a := <-wait:
		return a.payload, a.err
	case <-ctx.Done():
		_ = e.put(callStream, envelope{kind: cancelKind, payload: binary.BigEndian.AppendUint64(nil, id)})
		return nil, ctx.Err()
	}
}

func request(ctx context.Context, id uint64, method string, req []byte) []byte {
	left := callTimeout
	if at, ok := ctx.Deadline(); ok {
		left = max(0, time.Until(at))
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 24+len(method)+len(req)), id)
	b = binary.AppendUvarint(b, uint64(left/time.Millisecond))
	b = binary.AppendUvarint(b, uint64(len(method)))
	return append(append(b, method...), req...)
}

// called takes what came on the stream of calls.
func (e *epoch) called(v envelope) {
	if e.via != nil && v.kind == welcomeKind {
		e.welcomed(v.payload)
		return
	}
	if len(v.payload) < 8 {
		e.net.skipped.Add(1)
		return
	}
	id, rest := binary.BigEndian.Uint64(v.payload), v.payload[8:]
	switch v.kind {
	case requestKind:
		e.requested(id, rest)
	case responseKind:
		e.mu.Lock()
		wait := e.calls[id]
		delete(e.calls, id)
		e.mu.Unlock()
		if wait != nil {
			wait <- answerOf(rest)
		}
	case cancelKind:
		e.mu.Lock()
		cancel := e.serving[id]
		e.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	case pullKind:
		e.net.running.Go(func() { e.pulled(id) })
	default:
		e.net.skipped.Add(1)
	}
}

func answerOf(b []byte) answer {
	if len(b) == 0 {
		return answer{err: errFrame}
	}
	switch b[0] {
	case outcomeOK:
		return answer{payload: b[1:]}
	case outcomeNoMethod:
		return answer{err: ErrNoMethod}
	case outcomeBusy:
		return answer{err: ErrBusy}
	default:
		return answer{err: &RemoteError{string(b[1:])}}
	}
}

// requested answers a call in a goroutine of its own.
func (e *epoch) requested(id uint64, b []byte) {
	ms, k := binary.Uvarint(b)
	if k <= 0 {
		e.net.skipped.Add(1)
		return
	}
	size, j := binary.Uvarint(b[k:])
	if j <= 0 || size > uint64(len(b)-k-j) {
		e.net.skipped.Add(1)
		return
	}
	method, req := string(b[k+j:k+j+int(size)]), b[k+j+int(size):]
	h, ok := e.net.handler(method)
	ctx, cancel := context.WithTimeout(e.ctx, min(time.Duration(min(ms, 1<<32))*time.Millisecond, time.Hour))
	e.mu.Lock()
	busy := len(e.serving) >= maxCalls
	if ok && !busy {
		e.serving[id] = cancel
	}
	e.mu.Unlock()
	if !ok || busy {
		cancel()
		what := byte(outcomeNoMethod)
		if ok {
			what = outcomeBusy
		}
		_ = e.put(callStream, response(id, what, nil))
		return
	}
	e.net.running.Go(func() {
		defer cancel()
		resp, err := h.f(ctx, e.peer, req)
		r := response(id, outcomeOK, resp)
		if err == nil && len(resp) > MaxPayload {
			err = ErrTooLarge
		}
		if err != nil {
			r = response(id, outcomeError, []byte(err.Error()))
		}
		e.mu.Lock()
		delete(e.serving, id)
		e.mu.Unlock()
		_ = e.wait(e.ctx, callStream, r)
	})
}

func response(id uint64, outcome byte, payload []byte) envelope {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 9+len(payload)), id)
	return envelope{kind: responseKind, payload: append(append(b, outcome), payload...)}
}

// CallAddr asks a node that is not a peer yet, on a connection for this call alone. Between two
// nodes of one cluster it reaches every method, else the open ones. Errors are those of Call; a refusal says why.
func (n *Net) CallAddr(ctx context.Context, addr, method string, req []byte) ([]byte, error) {
	if len(req) > MaxPayload {
		return nil, ErrTooLarge
	}
	ctx, cancel := within(ctx)
	defer cancel()
	sock := socket{}
	conn, err := n.client(addr, sock.set)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer sock.close()
	stop := context.AfterFunc(n.ctx, cancel)
	defer stop()
	md := n.hello(0, n.cfg.Wire, 0).metadata()
	md.Set(keyMethod, method)
	s, err := conn.NewStream(metadata.NewOutgoingContext(ctx, md), bothWays, callMethod)
	if err != nil {
		return nil, callError(err)
	}
	if err := s.SendMsg(&message{out: frameBuffer(req)}); err != nil && !errors.Is(err, io.EOF) {
		return nil, callError(err)
	}
	var m message
	if err := s.RecvMsg(&m); err != nil {
		return nil, callError(err)
	}
	header, err := s.Header()
	if err != nil {
		return nil, callError(err)
	}
	h, err := parseHello(header)
	if err == nil {
		_, err = proven(s.Context(), identity{h.cluster, h.self.Node})
	}
	if err != nil {
		return nil, err
	}
	a := answerOf(m.in)
	return a.payload, a.err
}

// callError is what gRPC said, in our words.
func callError(err error) error {
	s, _ := status.FromError(err)
	switch s.Code() {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled:
		return context.Canceled
	case codes.Unavailable:
		return errors.Join(ErrDown, errors.New(s.Message()))
	default:
		return errors.New("stream: " + s.Message())
	}
}

// acceptCall is the other end of CallAddr.
func (n *Net) acceptCall(s grpc.ServerStream) error {
	h, _, member, err := n.admit(s.Context())
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(s.Context())
	f := fields{md: md}
	method := f.text(keyMethod)
	if f.err != nil {
		return n.refuse(h, f.err)
	}
	if err := s.SendHeader(n.hello(0, h.wire, 0).metadata()); err != nil {
		return err
	}
	var m message
	if err := s.RecvMsg(&m); err != nil {
		return err
	}
	send := func(outcome byte, payload []byte) error {
		return s.SendMsg(&message{out: frameBuffer([]byte{outcome}, payload)})
	}
	found, ok := n.handler(method)
	if !ok {
		return send(outcomeNoMethod, nil)
	}
	if !member && !found.open {
		return send(outcomeError, []byte("stream: only a node of the same cluster may call "+method))
	}
	resp, err := found.f(s.Context(), h.self, m.in)
	if err != nil {
		return send(outcomeError, []byte(err.Error()))
	}
	return send(outcomeOK, resp)
}
