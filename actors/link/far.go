package link

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Lane is a part of the stream between two nodes that is in order in itself. What is on one lane may overtake what is
// on another.
type Lane uint8

// Lanes of a link.
const (
	Control  Lane = iota // beats, and where epochs begin and end
	Commands             // commands and views
	Bulk                 // announcements
	lanes
)

// Kinds of frames; those up to LastKind belong to links.
const (
	kindHello    byte = 1 + iota // edge: an epoch begins
	kindUpBeat                   // edge
	kindUp                       // edge: a part of what it sends on Commands or Bulk
	kindReset                    // core: begin a new epoch
	kindDownBeat                 // core
	kindDown                     // core: a part of what it sends on Commands

	LastKind byte = 15
)

// FarConfig configures a Far.
type FarConfig struct {
	Peer        string // the other node's name
	Incarnation uint64 // of the other process
	Edge        Edge   // this process's edge, if the peer is a core; nil: none
	Core        Core   // this process's core, if the peer is an edge; nil: none

	// Send sends one frame to the peer, of at most 256 KiB. It may block while the peer is slow, until ctx ends, and
	// may keep the payload. It is called by one goroutine for each lane. Required.
	Send func(ctx context.Context, lane Lane, kind byte, payload []byte) error
	// Queue is how many bytes may wait to be sent on one lane [64 MiB]. More are lost, and with them the epoch; each
	// time the bound doubles, up to 16 times what it was.
	Queue int
}

// Far is this process's ends of the links with one other process: of its edge with the peer's core, of its core with
// the peer's edge, or both. It acts as a Pipe does, over a stream that loses nothing while it is up. Safe for
// concurrent use.
type Far struct {
	cfg  FarConfig
	edge *edgeEnd // nil: none
	core *coreEnd // nil: none

	stop    context.CancelFunc
	writers sync.WaitGroup
	stats   FarStats

	mu     sync.Mutex
	ctx    context.Context // of what is sent while the stream is up
	down   context.CancelFunc
	closed bool
}

// FarStats counts what a Far did. All of it only rises.
type FarStats struct {
	FramesOut, BytesOut atomic.Uint64
	FramesIn, BytesIn   atomic.Uint64
	Epochs              atomic.Uint64 // begun by this edge, or with this core
	Gaps                atomic.Uint64 // epochs that missed something
	Overflows           atomic.Uint64 // epochs whose queue was full
	Malformed           atomic.Uint64 // frames and messages that say nothing
}

// NewFar makes ends that are down. Up brings them up when there is a stream; Close frees them.
func NewFar(cfg FarConfig) *Far {
	if cfg.Queue == 0 {
		cfg.Queue = 64 << 20
	}
	all, stop := context.WithCancel(context.Background())
	f := &Far{cfg: cfg, stop: stop}
	f.ctx, f.down = context.WithCancel(all)
	f.down()
	if cfg.Edge != nil {
		f.edge = &edgeEnd{f: f, edge: cfg.Edge}
		f.edge.out.start(all, f, kindUp, Control, Commands, Bulk)
	}
	if cfg.Core != nil {
		f.core = &coreEnd{f: f, core: cfg.Core, name: cfg.Peer, incarnation: cfg.Incarnation}
		f.core.out.start(all, f, kindDown, Control, Commands)
	}
	return f
}

// Up says that a stream with the peer is up. It begins a new epoch, ending the present one if there is one. It does
// nothing after Close.
func (f *Far) Up() {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.down()
	f.ctx, f.down = context.WithCancel(context.Background())
	f.mu.Unlock()
	if f.core != nil {
		f.core.connect()
	}
	if f.edge != nil {
		f.edge.connect()
	}
}

// Down says that the stream has ended. dead: the peer's process is known to be gone. It may be called again when
// that is learned later.
func (f *Far) Down(dead bool) {
	f.mu.Lock()
	f.down()
	f.mu.Unlock()
	if f.edge != nil {
		f.edge.disconnect()
	}
	if f.core != nil {
		f.core.disconnect(dead)
	}
}

// Close ends all for good, as Down(false) does, and waits for what is being sent.
func (f *Far) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.Down(false)
	f.stop()
	f.writers.Wait()
}

// Stats are the counters. They live and are read while it runs.
func (f *Far) Stats() *FarStats { return &f.stats }

// Receive takes one frame of the peer, in order for each lane. It keeps nothing of the payload. Frames that come while
// the stream is down are ignored.
func (f *Far) Receive(lane Lane, kind byte, payload []byte) {
	f.stats.FramesIn.Add(1)
	f.stats.BytesIn.Add(uint64(len(payload)))
	switch {
	case f.core != nil && kind == kindHello:
		f.core.hello(payload)
	case f.core != nil && kind == kindUpBeat:
		f.core.beat(payload)
	case f.core != nil && kind == kindUp && (lane == Commands || lane == Bulk):
		f.core.take(lane, payload)
	case f.edge != nil && kind == kindReset:
		f.edge.reset(payload)
	case f.edge != nil && kind == kindDownBeat:
		f.edge.beat(payload)
	case f.edge != nil && kind == kindDown && lane == Commands:
		f.edge.take(payload)
	default:
		f.stats.Malformed.Add(1)
	}
}

// send sends a frame while the stream is up.
func (f *Far) send(lane Lane, kind byte, payload []byte) {
	f.mu.Lock()
	ctx := f.ctx
	f.mu.Unlock()
	if ctx.Err() == nil && f.cfg.Send(ctx, lane, kind, payload) == nil {
		f.stats.FramesOut.Add(1)
		f.stats.BytesOut.Add(uint64(len(payload)))
	}
}

// number reads a frame that is one number; 0: it is none.
func (f *Far) number(payload []byte) uint64 {
	n, size := binary.Uvarint(payload)
	if size <= 0 || n == 0 {
		f.stats.Malformed.Add(1)
		return 0
	}
	return n
}

// patience is how long an edge waits for a core's first beat before it says hello again, and the least time between
// two epochs that gaps begin.
const patience = time.Second
