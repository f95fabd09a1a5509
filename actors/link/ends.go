package link

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// edgeEnd is the end that begins epochs.
type edgeEnd struct {
	f    *Far
	edge Edge
	out  outbox
	lane inlane

	mu    sync.Mutex // of what follows, and held while the edge is told something
	up    bool       // there is a stream
	last  uint64     // the last epoch that was used
	began time.Time
	again *time.Timer // begins the next epoch

	epoch    atomic.Uint64 // 0: down
	received atomic.Uint64
	batch    []*Down // scratch of the lane
}

func (e *edgeEnd) connect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up = true
	e.begin()
}

func (e *edgeEnd) disconnect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.up = false
	e.end()
}

// begin begins an epoch, ending the present one.
func (e *edgeEnd) begin() {
	e.end()
	if !e.up {
		return
	}
	e.last++
	e.began = time.Now()
	e.f.stats.Epochs.Add(1)
	e.out.open(e.last)
	e.received.Store(0)
	e.epoch.Store(e.last)
	e.edge.LinkUp(farUp{e, e.last}, e.last)
	e.out.control(kindHello, binary.AppendUvarint(nil, e.last))
}

// end ends the present epoch, if there is one.
func (e *edgeEnd) end() {
	if e.again != nil {
		e.again.Stop()
		e.again = nil
	}
	if epoch := e.epoch.Swap(0); epoch != 0 {
		e.out.open(0)
		e.edge.LinkDown(epoch)
	}
}

// repair begins a new epoch after one that missed something, not more often than once a second.
func (e *edgeEnd) repair(epoch uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch.Load() != epoch {
		return
	}
	e.f.stats.Gaps.Add(1)
	wait := patience - time.Since(e.began)
	if wait <= 0 {
		e.begin()
		return
	}
	e.end()
	e.again = time.AfterFunc(wait, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.up && e.epoch.Load() == 0 {
			e.begin()
		}
	})
}

func (e *edgeEnd) reset(payload []byte) {
	if n := e.f.number(payload); n != 0 {
		e.repair(n)
	}
}

func (e *edgeEnd) beat(payload []byte) {
	b := new(Beat)
	if err := proto.Unmarshal(payload, b); err != nil {
		e.f.stats.Malformed.Add(1)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if b.Epoch != 0 && b.Epoch == e.epoch.Load() {
		e.out.heard()
		e.edge.Beat(b)
	}
}

// take takes a frame of messages.
func (e *edgeEnd) take(payload []byte) {
	e.lane.mu.Lock()
	defer e.lane.mu.Unlock()
	epoch := e.epoch.Load()
	e.batch = e.batch[:0]
	v := e.lane.take(payload, epoch, false, func(_ uint64, b []byte) bool {
		m := new(Down)
		if proto.Unmarshal(b, m) != nil {
			return false
		}
		e.batch = append(e.batch, m)
		return true
	})
	e.mu.Lock()
	for _, m := range e.batch {
		if e.epoch.Load() != epoch {
			break
		}
		m.Node, m.Epoch, m.Seq = e.f.cfg.Peer, epoch, e.received.Add(1)
		e.edge.Down(m)
	}
	e.mu.Unlock()
	clear(e.batch)
	if v == gap && epoch != 0 {
		e.repair(epoch)
	}
}

// farUp is the edge's handle for an epoch.
type farUp struct {
	e     *edgeEnd
	epoch uint64
}

func (u farUp) Up(m *Up) error {
	lane := Commands
	if a, ok := m.Body.(*Up_Announce); ok && a != nil {
		lane = Bulk
	}
	if !u.e.out.message(lane, u.epoch, m.Shard, m) {
		return ErrDown
	}
	return nil
}

func (u farUp) Beat(b *Beat) {
	b.Received = u.e.received.Load()
	u.e.out.beat(u.epoch, kindUpBeat, b)
}

// coreEnd is the end that is told of epochs.
type coreEnd struct {
	f           *Far
	core        Core
	name        string
	incarnation uint64
	out         outbox
	lanes       [lanes]inlane

	mu   sync.Mutex // of what follows, and held while the core is told something
	up   bool       // there is a stream
	last uint64     // the last epoch
	bulk uint64     // messages that have come on Bulk
	held map[uint32][]heldUp
	many int // messages held

	epoch    atomic.Uint64 // 0: down, or something was missing
	received atomic.Uint64
	batches  [lanes][]heldUp // scratch of each lane
}

// heldUp is a message that has come before an announcement that goes before it.
type heldUp struct {
	after uint64
	up    *Up
}

// maxHeld is how many messages may wait for announcements.
const maxHeld = 1 << 18

func (c *coreEnd) connect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	c.up = true
}

func (c *coreEnd) disconnect(dead bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up = false
	c.end()
	if dead {
		c.core.EdgeDown(c.name, c.incarnation, c.last, true)
	}
}

// end ends the present epoch, if there is one.
func (c *coreEnd) end() {
	c.held, c.many = nil, 0
	c.epoch.Store(0)
	if c.out.isOpen(c.last) && c.last != 0 {
		c.out.open(0)
		c.core.EdgeDown(c.name, c.incarnation, c.last, false)
	}
}

func (c *coreEnd) hello(payload []byte) {
	epoch := c.f.number(payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch == 0 || !c.up || epoch == c.epoch.Load() {
		return
	}
	c.end()
	c.last, c.bulk = epoch, 0
	c.f.stats.Epochs.Add(1)
	c.out.open(epoch)
	c.received.Store(0)
	c.epoch.Store(epoch)
	c.core.EdgeUp(c.name, c.incarnation, epoch, farDown{c, epoch})
}

// missing stops an epoch in which something was lost, and asks for another.
func (c *coreEnd) missing(epoch uint64) {
	c.f.stats.Gaps.Add(1)
	c.epoch.CompareAndSwap(epoch, 0)
	c.askReset(epoch)
}

func (c *coreEnd) askReset(epoch uint64) {
	c.out.control(kindReset, binary.AppendUvarint(nil, epoch))
}

func (c *coreEnd) beat(payload []byte) {
	b := new(Beat)
	if err := proto.Unmarshal(payload, b); err != nil {
		c.f.stats.Malformed.Add(1)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.up || b.Epoch == 0:
	case b.Epoch == c.epoch.Load():
		c.core.Beat(c.name, c.incarnation, b)
	default: // of an epoch that is over here, or unknown
		c.askReset(b.Epoch)
	}
}

// take takes a frame of messages.
func (c *coreEnd) take(lane Lane, payload []byte) {
	l := &c.lanes[lane]
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch := c.epoch.Load()
	batch := c.batches[lane][:0]
	v := l.take(payload, epoch, true, func(after uint64, b []byte) bool {
		m := new(Up)
		if proto.Unmarshal(b, m) != nil {
			return false
		}
		batch = append(batch, heldUp{after, m})
		return true
	})
	c.batches[lane] = batch
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range batch {
		if c.epoch.Load() != epoch {
			break
		}
		if lane == Bulk {
			c.bulk++
		}
		c.inOrder(lane, h, epoch)
	}
	clear(batch)
	if epoch != 0 && c.epoch.Load() == epoch && (v == gap || c.many > maxHeld) {
		c.missing(epoch)
	}
}

// inOrder gives a message to the core, or keeps it until the announcement before it is there.
func (c *coreEnd) inOrder(lane Lane, h heldUp, epoch uint64) {
	n := h.up.Shard
	if lane != Bulk && h.after > c.bulk {
		if c.held == nil {
			c.held = make(map[uint32][]heldUp)
		}
		c.held[n] = append(c.held[n], h)
		c.many++
		return
	}
	c.give(h.up, epoch)
	if lane != Bulk || len(c.held) == 0 {
		return
	}
	list := c.held[n]
	for len(list) > 0 && list[0].after <= c.bulk {
		c.give(list[0].up, epoch)
		list = list[1:]
		c.many--
	}
	if c.held[n] = list; len(list) == 0 {
		delete(c.held, n)
	}
}

func (c *coreEnd) give(m *Up, epoch uint64) {
	m.Edge, m.Incarnation, m.Epoch, m.Seq = c.name, c.incarnation, epoch, c.received.Add(1)
	c.core.Up(m)
}

// farDown is the core's handle for an epoch.
type farDown struct {
	c     *coreEnd
	epoch uint64
}

func (d farDown) Down(m *Down) {
	m.Node = "" // the other end knows it
	d.c.out.message(Commands, d.epoch, Shards, m)
}

func (d farDown) Beat(b *Beat) {
	b.Received = d.c.received.Load()
	d.c.out.beat(d.epoch, kindDownBeat, b)
}
