package stream

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc"
)

// The streams of an epoch: two of our own, then one per class.
const (
	pingStream = iota
	callStream
	firstClass
)

const maxClasses = 16

// wire is a gRPC stream, whichever end.
type wire interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// epoch is one life of the connection to a peer.
type epoch struct {
	net     *Net
	id      uint64
	peer    Peer
	version uint8
	ctx     context.Context
	cancel  context.CancelCauseFunc
	conn    *grpc.ClientConn // nil: the peer dialled
	via     *epoch           // with the node that relays; nil: direct
	far     uint64           // with via: the other end
	welcome chan hello       // of a relayed epoch that this node began; nil: the peer did
	queues  []*queue
	began   chan struct{} // Up was told: receive
	running sync.WaitGroup

	mu      sync.Mutex
	raw     net.Conn
	joined  int  // streams that are there
	over    bool // nothing joins any more
	calls   map[uint64]chan answer
	pulls   map[uint64]*pull
	serving map[uint64]context.CancelFunc
	reach   map[uint64]bool // nodes that the peer is connected with
	told    uint64          // what of our own it was told
}

var (
	errStopped  = errors.New("this node stops")
	errReplaced = errors.New("a newer connection replaces it")
	errDropped  = errors.New("it is no longer a peer")
	errSilent   = errors.New("it is silent")
)

// newEpoch ends with parent.
func (n *Net) newEpoch(parent context.Context, h hello, classes int) *epoch {
	e := &epoch{
		net: n, id: h.epoch, peer: h.self, version: h.wire[1], began: make(chan struct{}),
		calls: map[uint64]chan answer{}, pulls: map[uint64]*pull{}, serving: map[uint64]context.CancelFunc{},
	}
	e.peer.Wire = e.version
	e.ctx, e.cancel = context.WithCancelCause(parent)
	for i := range firstClass + classes {
		limit := n.cfg.Queue
		if i == pingStream {
			limit = 64 << 10
		}
		e.queues = append(e.queues, newQueue(limit))
	}
	return e
}

// fail ends the epoch. The socket goes first: closing by gRPC would wait for a peer that hangs.
func (e *epoch) fail(err error) {
	e.cancel(err)
	e.mu.Lock()
	raw, queues := e.raw, e.queues
	e.mu.Unlock()
	if raw != nil {
		_ = raw.Close()
	}
	for _, q := range queues {
		q.close()
	}
}

// connected says which socket fail must close.
func (e *epoch) connected(c net.Conn) {
	e.mu.Lock()
	e.raw = c
	e.mu.Unlock()
	if c != nil && e.ctx.Err() != nil {
		_ = c.Close()
	}
}

func (e *epoch) socket() net.Conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.raw
}

// shrink leaves out classes that the peer does not know, before any stream runs.
func (e *epoch) shrink(classes int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queues = e.queues[:min(len(e.queues), firstClass+classes)]
}

func (e *epoch) complete() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.joined == len(e.queues)
}

// join counts one more running stream; false when the epoch is over. The last one completes it.
func (e *epoch) join() (complete, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over || e.ctx.Err() != nil {
		return false, false
	}
	e.running.Add(1)
	e.joined++
	return e.joined == len(e.queues), true
}

// run carries one stream until the epoch ends; join was called.
func (e *epoch) run(s wire, index int) {
	var writing sync.WaitGroup
	writing.Go(func() { e.write(s, e.queues[index]) })
	e.read(s, index)
	e.running.Done()
	writing.Wait()
}

func (e *epoch) write(s wire, q *queue) {
	var batch []envelope
	for {
		var ok bool
		if batch, ok = q.take(batch[:0]); !ok {
			return
		}
		if err := s.SendMsg(&message{out: frameOf(e.version, batch)}); err != nil {
			e.fail(err)
			return
		}
		clear(batch)
		if cap(batch) > 256 {
			batch = nil
		}
	}
}

func (e *epoch) read(s wire, index int) {
	select {
	case <-e.began:
	case <-s.Context().Done():
		e.fail(s.Context().Err())
		return
	}
	for {
		var m message
		if err := s.RecvMsg(&m); err != nil {
			e.fail(err)
			return
		}
		unknown, err := openFrame(m.in, e.version, func(v envelope) { e.receive(index, v) })
		if unknown > 0 {
			e.net.skipped.Add(uint64(unknown))
		}
		if err != nil {
			e.net.quiet.warn("a frame cannot be read", e.peer.Name, "from", e.peer.Name, "error", err)
			e.fail(err)
			return
		}
	}
}

func (e *epoch) receive(index int, v envelope) {
	if v.form != direct && e.via == nil {
		e.relayed(index, v)
		return
	}
	switch index {
	case pingStream:
		e.received(v)
	case callStream:
		e.called(v)
	default:
		e.net.receive(e.peer, Class(index-firstClass), v)
	}
}

// put queues an envelope for a stream; a relayed one goes the way of the relay.
func (e *epoch) put(index int, v envelope) error {
	q, v, err := e.way(index, v)
	if err != nil || q == nil {
		return err
	}
	return q.put(v)
}

// wait is put that waits for room.
func (e *epoch) wait(ctx context.Context, index int, v envelope) error {
	q, v, err := e.way(index, v)
	if err != nil || q == nil {
		return err
	}
	return q.wait(ctx, v)
}

func (e *epoch) way(index int, v envelope) (*queue, envelope, error) {
	if len(v.payload) > MaxPayload {
		return nil, v, ErrTooLarge
	}
	if e.via != nil {
		if e.ctx.Err() != nil {
			return nil, v, ErrDown
		}
		v.form, v.far, v.epoch = relayTo, e.far, e.id
		e = e.via
	}
	if index >= len(e.queues) {
		e.net.skipped.Add(1) // a class that the peer does not know
		return nil, v, nil
	}
	return e.queues[index], v, nil
}

// end waits until nothing is received any more; the epoch has failed.
func (e *epoch) end() {
	e.mu.Lock()
	e.over = true
	calls := e.calls
	e.calls = map[uint64]chan answer{}
	e.mu.Unlock()
	for _, c := range calls {
		c <- answer{err: ErrLost}
	}
	if e.conn != nil {
		_ = e.conn.Close()
	}
	e.running.Wait()
}
