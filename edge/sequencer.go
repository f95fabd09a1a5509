package edge

import (
	"net"
	"slices"
	"sync"
	"syscall"
)

// Bounds of what waits for one socket above the kernel's buffer.
const (
	maxQueuedFrames = 1024
	maxQueuedBytes  = 1 << 20
	// A queue that goes this far over its bound is given up without the 5 s of grace.
	hardQueuedBytes = maxQueuedBytes + 4*(64<<10)
	// writeBatch is the most frames handed to the kernel in one call.
	writeBatch = 64
)

// sequencer is the one way to a socket's peer. Frames leave whole and in order: first by
// a write that does not block, and while the kernel takes no more, by a goroutine that
// exists until the queue is empty.
type sequencer struct {
	mu    sync.Mutex
	owner *socket
	raw   syscall.RawConn // nil: the conn can only be written to by blocking
	queue [][]byte        // not yet taken by the kernel; the first perhaps in part
	bytes int
	// wants has a bit for each hub that has presence for the socket and waits for the queue to empty.
	wants uint64
	full  int64 // when the queue reached its bound, in clock ms; 0: below
	sent  burst
	// flight is how many frames at the head of the queue the goroutine is writing now.
	flight int
	// early is how many frames at the head were there when hold began: they are not held.
	early int

	hold    bool // frames wait until release
	writing bool // a goroutine writes
	last    bool // nothing more is taken: the close frame is in
	broken  bool
}

// verdict is what became of a frame.
type verdict uint8

const (
	taken  verdict = iota
	queued         // waits for the peer to read
	full           // queued, and the queue has reached its bound
	refused
)

// write sends one whole frame. Unless shared, b is the caller's again when write returns;
// shared bytes must never change.
func (o *sequencer) write(b []byte, shared bool, now int64) verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last || o.broken {
		return refused
	}
	return o.put(b, shared, now)
}

func (o *sequencer) put(b []byte, shared bool, now int64) verdict {
	if !o.hold && !o.writing && len(o.queue) == 0 {
		n := 0
		if o.raw != nil {
			var err error
			n, err = writeNow(o.raw, b)
			if err != nil {
				o.broken = true
				return refused
			}
		}
		o.sent.add(now)
		if n == len(b) {
			return taken
		}
		b = b[n:]
	}
	if !shared {
		b = slices.Clone(b)
	}
	o.queue = append(o.queue, b)
	o.bytes += len(b)
	o.start()
	if !o.overfull(1) {
		return queued
	}
	if o.full == 0 {
		o.full = max(now, 1)
	}
	return full
}

// overfull reports whether the queue holds more than 1/part of its bound.
func (o *sequencer) overfull(part int) bool {
	return len(o.queue) >= maxQueuedFrames/part || o.bytes >= maxQueuedBytes/part
}

// busy reports whether at least half of the queue's bound is taken: then what may be lost is.
func (o *sequencer) busy() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.overfull(2)
}

// ready reports whether all that was written has been taken by the kernel. If not, the
// hub with the given bit is told when it has.
func (o *sequencer) ready(hub uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.hold && !o.writing && len(o.queue) == 0 {
		return true
	}
	o.wants |= hub
	return false
}

// pause holds all frames back that come before release.
func (o *sequencer) pause() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.hold && !o.last {
		o.hold, o.early = true, len(o.queue)
	}
}

// release writes frames, then what was held back. The hubs in wants may go on.
func (o *sequencer) release(now int64, frames ...[]byte) (wants uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.hold || o.last || o.broken {
		return 0
	}
	held := slices.Clone(o.queue[o.early:])
	for _, b := range held {
		o.bytes -= len(b)
	}
	o.queue, o.hold, o.early, o.full = o.queue[:o.early:o.early], false, 0, 0
	for _, list := range [2][][]byte{frames, held} {
		for _, b := range list {
			if o.put(b, true, now) == refused {
				return 0
			}
		}
	}
	if len(o.queue) > 0 {
		return 0
	}
	wants, o.wants = o.wants, 0
	return wants
}

// finish writes the last frames; a queue that does not move is dropped before them, but
// for the frame that the kernel has in part.
func (o *sequencer) finish(now int64, frames ...[]byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last || o.broken {
		return
	}
	o.hold, o.early = false, 0
	if keep := max(o.flight, 1); len(o.queue) > keep && o.full != 0 {
		o.queue, o.bytes = o.queue[:keep:keep], 0
		for _, b := range o.queue {
			o.bytes += len(b)
		}
	}
	for _, b := range frames {
		if o.put(b, true, now) == refused {
			return
		}
	}
	o.last = true
}

// fullSince is when the queue reached its bound, 0 if it is below.
func (o *sequencer) fullSince() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.full
}

// over reports whether the queue is so far over its bound that waiting makes no sense.
func (o *sequencer) over() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes > hardQueuedBytes || len(o.queue) > 2*maxQueuedFrames
}

// idle reports whether nothing is left to be written.
func (o *sequencer) idle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken || !o.writing && len(o.queue) == 0
}

// abandon drops the queue; the conn is being closed.
func (o *sequencer) abandon() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken, o.queue, o.bytes, o.wants = true, nil, 0, 0
}

// start starts the writing goroutine if there is work for it.
func (o *sequencer) start() {
	if o.hold || o.writing || len(o.queue) == 0 || o.broken {
		return
	}
	o.writing = true
	go o.drain()
}

// drain writes until the queue is empty.
func (o *sequencer) drain() {
	for {
		o.mu.Lock()
		n := min(len(o.queue), writeBatch)
		if o.hold {
			n = min(n, o.early)
		}
		if n == 0 || o.broken {
			o.writing = false
			if len(o.queue) == 0 {
				o.queue, o.full = nil, 0
			}
			wants := uint64(0)
			if !o.hold {
				wants, o.wants = o.wants, 0
			}
			o.mu.Unlock()
			if wants != 0 {
				o.owner.wake(wants)
			}
			return
		}
		batch := net.Buffers(slices.Clone(o.queue[:n]))
		o.flight = n
		o.mu.Unlock()

		_, err := batch.WriteTo(o.owner.nc.Conn)

		o.mu.Lock()
		o.flight = 0
		if err != nil {
			o.broken = true
		} else if !o.broken {
			for _, b := range o.queue[:n] {
				o.bytes -= len(b)
			}
			o.queue = o.queue[n:]
			o.early = max(o.early-n, 0)
			if !o.overfull(1) {
				o.full = 0
			}
		}
		o.mu.Unlock()
	}
}

// burst counts the frames of the present second, to tell busy sockets from others.
type burst struct {
	second uint32
	now    uint16
	before uint16
}

func (b *burst) add(now int64) {
	b.roll(now)
	if b.now < 1<<16-1 {
		b.now++
	}
}

func (b *burst) roll(now int64) {
	s := uint32(now / 1000)
	if s == b.second {
		return
	}
	if s == b.second+1 {
		b.before = b.now
	} else {
		b.before = 0
	}
	b.second, b.now = s, 0
}

// rate is the frames in the present or the last second, whichever had more.
func (o *sequencer) rate(now int64) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent.roll(now)
	return int(max(o.sent.now, o.sent.before))
}
