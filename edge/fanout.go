package edge

import (
	"runtime"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

const (
	sameUser    = 100        // ms between two views of one user for one socket
	quietBatch  = 1000       // ms, for users who are not on the client's screen
	inactiveMax = 200        // changes held for an inactive client
	inactiveAge = 60_000     // ms they are held
	frameSoft   = 4 << 10    // bytes of presences in a frame: what a stalled socket may hold twice
	busyRate    = 20         // frames a second from which a socket waits when writers are busy
	windowMin   = 10         // ms
	windowMax   = 100        // ms
	loadSlot    = 100 * 1000 // µs over which the hub's load is measured
)

// pending is what a socket has yet to be sent by one hub: references to users, so that the
// latest view wins and a stalled reader costs 4 bytes a user.
type pending struct {
	refs   []uint32
	lines  [][]byte // whole frames that go before, in the same write
	since  int64    // clock ms of the oldest
	due    int64    // in the ring for then; 0: not
	waited bool     // it was put off
	soil   bool     // in the hub's dirty list
}

func (p *pending) drop(ref uint32) {
	for i, r := range p.refs {
		if r == ref {
			p.refs = append(p.refs[:i], p.refs[i+1:]...)
			return
		}
	}
}

func (e *entry) unqueue(r *row) {
	r.set(rowQueued, false)
	if e.queued--; e.queued == 0 {
		e.views = nil
	}
}

func (e *entry) shade(mask uint32) *shade {
	for _, v := range e.views {
		if v.mask == mask {
			return v
		}
	}
	return nil
}

// show replaces the entry's view for a mask.
func (e *entry) show(v *shade) {
	for i, old := range e.views {
		if old.mask == v.mask {
			e.views[i] = v
			return
		}
	}
	e.views = append(e.views, v)
}

// change fans out a visible change of one user to the rows whose masks it names.
func (h *hub) change(n uint32, c *link.Change) {
	ref, ok := h.lookup(n, presence.Key{App: c.App, User: c.User})
	if !ok {
		return
	}
	e := h.entry(ref)
	if c.Version <= e.version {
		h.edge.count.stale.Add(1)
		return
	}
	e.version = c.Version
	var masks [4]uint64 // a bit for each of the 128 masks, the first two used
	e.seen = false
	for _, v := range c.Views {
		e.show(&shade{mask: v.Mask, user: e.key.User, term: h.shards[n].term, version: c.Version, view: v})
		e.tell(v.Mask, h.sum(v))
		masks[v.Mask>>6&3] |= 1 << (v.Mask & 63)
		e.seen = e.seen || v.State != uint32(presence.Offline)
	}
	now := h.edge.clock()
	for i := range e.rows {
		r := &e.rows[i]
		if m := r.mask(); masks[m>>6]&(1<<(m&63)) != 0 {
			h.offer(ref, e, r, now)
		}
	}
	if e.queued == 0 {
		e.views = nil
	}
}

// offer queues the entry's view for a row, unless that is what the client was sent last: a new leader vouches for it.
func (h *hub) offer(ref uint32, e *entry, r *row, now int64) {
	if r.is(rowOwed) || r.is(rowQueued) {
		h.mark(ref, e, r, now)
	} else {
		h.edge.count.withheld.Add(1)
	}
}

// mark queues the entry's view for one row, unless it is queued already: then the newer view
// has taken the place of the older.
func (h *hub) mark(ref uint32, e *entry, r *row, now int64) {
	r.set(rowOwed, false)
	if r.is(rowQueued) {
		h.edge.count.merged.Add(1)
		return
	}
	i := r.socket()
	s := h.edge.sockets.get(i)
	if s == nil || s.phase() >= closing {
		return
	}
	p := h.pend[i]
	if p == nil {
		p = h.fetch()
		p.since = now
		h.pend[i] = p
	}
	r.set(rowQueued, true)
	e.queued++
	p.refs = append(p.refs, ref)
	if due := h.schedule(s, p, r, now); due <= now {
		h.soil(i, p)
	} else if p.due == 0 || due < p.due {
		p.due, p.waited = due, true
		h.ring.add(i, due, now)
		h.sooner(due)
	}
}

// schedule says when a row's view may go: at once, but
//   - an inactive client gets it in batches,
//   - a user who is not on the client's screen in batches of 1 s,
//   - the same user not twice within 100 ms,
//   - and when this hub writes more than half of its time, or the process is full, busy sockets
//     wait 10 to 100 ms, unless the last wait joined nothing.
func (h *hub) schedule(s *socket, p *pending, r *row, now int64) int64 {
	switch {
	case s.has(isInactive):
		if len(p.refs) >= inactiveMax {
			return now
		}
		return p.since + inactiveAge
	case r.is(rowQuiet):
		return p.since + quietBatch
	}
	if r.sent != 0 {
		if ago := uint32(now) - r.sent; ago < sameUser {
			return now + int64(sameUser-ago)
		}
	}
	if w := h.load.window(); w > 0 && !s.has(isSparse) && s.out.rate(now) > busyRate {
		return now + w
	}
	return now
}

// soil puts a socket among those that are written to when the mailbox has been read.
func (h *hub) soil(i uint32, p *pending) {
	p.due = 0
	if p.soil {
		return
	}
	p.soil = true
	h.dirty = append(h.dirty, i)
	if !h.flushing {
		h.flushing = true
		h.tell(flushNow{})
	}
}

func (h *hub) flush() {
	if len(h.dirty) == 0 {
		return
	}
	began := time.Now()
	now := h.edge.clock()
	for _, i := range h.dirty {
		if p := h.pend[i]; p != nil && p.soil {
			p.soil = false
			h.emit(i, p, now)
		}
	}
	h.dirty = h.dirty[:0]
	h.load.add(began, time.Since(began), h.edge.start)
}

// emit writes what is pending for a socket, as long as the kernel takes it.
func (h *hub) emit(i uint32, p *pending, now int64) {
	s := h.edge.sockets.get(i)
	if s == nil || s.phase() >= closing {
		h.retire(i, p)
		return
	}
	for len(p.refs) > 0 || len(p.lines) > 0 {
		if s.gathering.Load() > 0 || !s.out.ready(h.bit) {
			for _, b := range p.lines {
				s.deliver(b, true)
			}
			p.lines = nil
			if len(p.refs) > 0 {
				return // woken when it may go on
			}
			break
		}
		h.emitFrame(s, p, now)
	}
	delete(h.pend, i)
	h.keep(p)
}

// emitFrame writes one frame of pending presences.
func (h *hub) emitFrame(s *socket, p *pending, now int64) {
	h.parts = h.parts[:0]
	var only *shade
	size, n := 0, 0
	for n < len(p.refs) && size < frameSoft {
		ref := p.refs[n]
		n++
		e := h.entry(ref)
		r := e.row(s.idx)
		if r == nil || !r.is(rowQueued) {
			continue
		}
		v := e.shade(r.mask())
		r.sent = max(uint32(now), 1)
		e.unqueue(r)
		if v == nil {
			continue // its mask has changed meanwhile; the view comes with the new one
		}
		only = v
		b := v.encoded(s.codec)
		h.parts = append(h.parts, b)
		size += len(b)
	}
	p.refs = append(p.refs[:0], p.refs[n:]...)
	if sparse := s.has(isSparse); sparse && len(h.parts) > 1 || !sparse && p.waited && len(h.parts) == 1 {
		s.set(isSparse, !sparse)
	}
	frame, shared := h.presences(s.codec, only)
	if len(p.lines) > 0 {
		h.joined = h.joined[:0]
		for _, b := range p.lines {
			h.joined = append(h.joined, b...)
		}
		p.lines = nil
		h.joined = append(h.joined, frame...)
		frame, shared = h.joined, false
	}
	if len(frame) > 0 {
		s.deliver(frame, shared)
	}
	if cap(h.joined) > wire.MaxFrame {
		h.joined = nil
	}
}

// presences makes one frame of h.parts; only is the view if there is just one. A frame that is not shared
// is valid until the next.
func (h *hub) presences(c codec, only *shade) (frame []byte, shared bool) {
	n := len(h.parts)
	if n == 0 {
		return nil, false
	}
	h.edge.count.deliveries.Add(int64(n))
	h.edge.count.frames.Add(1)
	if n == 1 {
		return only.framed(c), true
	}
	b := c.appendPresences(newFrame(h.scratch), h.parts...)
	h.scratch = b[:0]
	return sealFrame(b, c.opcode()), false
}

// post writes a frame that nobody may change along with what else this turn has for the socket:
// a reply and the push it causes are one write.
func (h *hub) post(s *socket, frame []byte) {
	if s.phase() >= closing {
		return
	}
	p := h.pend[s.idx]
	if p == nil {
		p = h.fetch()
		p.since = h.edge.clock()
		h.pend[s.idx] = p
	}
	p.lines = append(p.lines, frame)
	h.soil(s.idx, p)
}

// answer posts the reply to a command that asked for one.
func (h *hub) answer(s *socket, r *wire.Reply) {
	if r.Id != 0 {
		h.post(s, sealFrame(s.codec.appendReply(newFrame(nil), r), s.codec.opcode()))
	}
}

// wake goes on with a socket that takes frames again.
func (h *hub) wake(s *socket) {
	if p := h.pend[s.idx]; p != nil && h.edge.sockets.get(s.idx) == s {
		h.soil(s.idx, p)
	}
}

// retire drops what is pending for a socket that has gone.
func (h *hub) retire(i uint32, p *pending) {
	for _, ref := range p.refs {
		e := h.entry(ref)
		if r := e.row(i); r != nil && r.is(rowQueued) {
			e.unqueue(r)
		}
	}
	delete(h.pend, i)
	h.keep(p)
}

func (h *hub) fetch() *pending {
	if n := len(h.spare); n > 0 {
		p := h.spare[n-1]
		h.spare = h.spare[:n-1]
		return p
	}
	return &pending{refs: make([]uint32, 0, 4)}
}

func (h *hub) keep(p *pending) {
	if cap(p.refs) <= 64 && len(h.spare) < 1024 {
		*p = pending{refs: p.refs[:0]}
		h.spare = append(h.spare, p)
	}
}

// sooner sets the timer anew if at comes before what it is set for.
func (h *hub) sooner(at int64) {
	if h.armed > at {
		h.armed = 0
	}
}

// load is how much of its time a hub writes, and how much of its processors' time the process
// uses.
type load struct {
	slot  int64 // µs since the edge's start
	spent int64 // µs
	cpu   int64 // µs of the process, at slot
	share float64
	full  bool // the process has next to no time left
}

// saturated is the use of the processors from which a process counts as full.
const saturated = 0.9

func (l *load) add(began time.Time, took time.Duration, start time.Time) {
	at := began.Sub(start).Microseconds()
	if age := at - l.slot; age >= loadSlot {
		cpu := cpuTime().Microseconds()
		l.share = float64(l.spent) / float64(age)
		l.full = float64(cpu-l.cpu) > saturated*float64(age)*float64(runtime.GOMAXPROCS(0))
		l.slot, l.spent, l.cpu = at, 0, cpu
	}
	l.spent += took.Microseconds()
}

// window is how long busy sockets wait, in ms; 0 while the hub is less than half busy and
// the process has time left. A full process makes everything wait; joining what goes to one socket is what shortens it.
func (l *load) window() int64 {
	if l.share <= 0.5 {
		if l.full {
			return windowMin
		}
		return 0
	}
	return windowMin + int64((l.share-0.5)*2*(windowMax-windowMin))
}

// ring holds sockets by the time at which they are due, up to ringSpan ahead; what is due later
// comes up on the way.
type ring struct {
	slots [ringSlots][]uint32
	at    int64 // the slot number that was last taken
	count int
}

const (
	ringSlots = 256
	ringStep  = 5 // ms
	ringSpan  = (ringSlots - 2) * ringStep
)

func (r *ring) add(i uint32, due, now int64) {
	if r.count == 0 {
		r.at = now / ringStep
	}
	slot := (min(due, now+ringSpan) + ringStep - 1) / ringStep
	slot = max(slot, r.at+1)
	r.slots[slot%ringSlots] = append(r.slots[slot%ringSlots], i)
	r.count++
}

// due calls f for every socket whose slot has come.
func (r *ring) due(now int64, f func(uint32)) {
	for r.count > 0 && (r.at+1)*ringStep <= now {
		r.at++
		slot := r.slots[r.at%ringSlots]
		r.slots[r.at%ringSlots] = nil
		r.count -= len(slot)
		for _, i := range slot {
			f(i)
		}
		if r.slots[r.at%ringSlots] == nil && cap(slot) <= 4096 {
			r.slots[r.at%ringSlots] = slot[:0]
		}
	}
}

// next is when the first socket is due, 0 if none is.
func (r *ring) next() int64 {
	if r.count == 0 {
		return 0
	}
	for n := r.at + 1; ; n++ {
		if len(r.slots[n%ringSlots]) > 0 {
			return n * ringStep
		}
	}
}
