package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"muster/persistence"
)

// Rows of a shard in the simulator, keys of fixed width:
//
//	h<stream>            head, trimmed, the term that wrote it
//	e<stream><offset>    the term that wrote it, the publication's id
//	k<stream><id>        offset
const (
	streamsPerShard = 2
	trimEvery       = 6 // acknowledged entries a leader lets pile up
	keepAcked       = 2 // of them stay
)

// bodyID is the publication's id in an entry's row.
func bodyID(row []byte) string { return strings.TrimRight(string(row[8:]), " ") }

func headKey(stream uint32) []byte { return fmt.Appendf(nil, "h%02d", stream) }
func entryKey(stream uint32, off uint64) []byte {
	return fmt.Appendf(nil, "e%02d%08d", stream, off)
}
func dedupeKey(stream uint32, id string) []byte { return fmt.Appendf(nil, "k%02d%s", stream, id) }

func numbers(ns ...uint64) []byte {
	var b []byte
	for _, n := range ns {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func number(b []byte, i int) uint64 {
	if len(b) < 8*i+8 {
		return 0
	}
	return binary.BigEndian.Uint64(b[8*i:])
}

// activation is the shell of actors in miniature: it lives from Opened to Closed, decides
// on what is applied plus what it has proposed, and keeps effects behind their records.
type activation struct {
	n       *vnode
	shard   uint32
	term    uint64
	seq     uint64 // of the last proposal
	done    uint64 // of the last committed one
	streams map[uint32]*streamState
	gate    []effect // FIFO
	version uint64
	reads   map[uint64]linearRead
}

// linearRead began when these heads were acknowledged; it must see them.
type linearRead struct{ heads [streamsPerShard]uint64 }

// read begins a linearizable read of the heads.
func (a *activation) read() {
	s := a.n.sim
	s.readID++
	var r linearRead
	for i := range r.heads {
		r.heads[i] = s.check.ackedHead[[2]uint32{a.shard, uint32(i)}]
	}
	if s.bugs.localRead {
		a.reads[s.readID] = r
		a.readReady(ReadReady{Shard: a.shard, ID: s.readID})
	} else if err := a.n.host.Read(a.shard, s.readID); err == nil {
		a.reads[s.readID] = r
	}
}

func (a *activation) readReady(e ReadReady) {
	r, ok := a.reads[e.ID]
	delete(a.reads, e.ID)
	if !ok || e.Err != nil {
		return
	}
	a.n.sim.reads++
	for i, want := range r.heads {
		row, _, err := a.n.disk.Get(a.shard, headKey(uint32(i)))
		a.n.sim.must(err)
		if number(row, 0) < want {
			a.n.sim.fail("linearizable read", "node %d shard %d stream %d: read head %d, %d was acknowledged before", a.n.id, a.shard, i, number(row, 0), want)
		}
	}
}

type streamState struct {
	head, trimmed uint64
	pending       map[string]uint64 // offsets of what this activation assigned
}

type effect struct {
	seq   uint64
	run   func(index uint64)
	abort func()
}

func (a *activation) stream(id uint32) *streamState {
	st := a.streams[id]
	if st == nil {
		row, _, err := a.n.disk.Get(a.shard, headKey(id))
		a.n.sim.must(err)
		st = &streamState{head: number(row, 0), trimmed: number(row, 1), pending: map[string]uint64{}}
		a.streams[id] = st
	}
	return st
}

// publish answers once the publication's entry, dedupe row and head are committed.
func (a *activation) publish(r *request) {
	s, st := a.n.sim, a.stream(r.stream)
	off, known := st.pending[r.id]
	if !known {
		row, ok, err := a.n.disk.Get(a.shard, dedupeKey(r.stream, r.id))
		s.must(err)
		off, known = number(row, 0), ok
	}
	if known {
		a.hold(func(index uint64) { a.ack(r, off, index) }, func() { a.n.answer(r, answer{}) })
		return
	}
	off = st.head + 1
	ops := []persistence.Op{
		{Key: entryKey(r.stream, off), Value: append(numbers(a.term), r.body...)},
		{Key: headKey(r.stream), Value: numbers(off, st.trimmed, a.term)},
	}
	dedupe := persistence.Op{Key: dedupeKey(r.stream, r.id), Value: numbers(off)}
	if s.bugs.splitDedupe {
		a.n.later(ms, func() { a.n.input(func() { _ = a.propose([]persistence.Op{dedupe}) }) })
	} else {
		ops = append(ops, dedupe)
	}
	if err := a.propose(ops); err != nil {
		a.refuse(r, err)
		return
	}
	st.head, st.pending[r.id] = off, off
	a.watchers(r.stream, off, r.id)
	a.hold(func(index uint64) { a.ack(r, off, index) }, func() { a.n.answer(r, answer{}) })
	if s.bugs.eager {
		a.deliver(r.stream, off, r.id)
		return
	}
	a.hold(func(uint64) { a.deliver(r.stream, off, r.id) }, nil)
}

// watchers hear of the new head: a soft effect that depends on a record.
func (a *activation) watchers(stream uint32, off uint64, id string) {
	a.version++
	version := a.version
	emit := func(uint64) { a.n.sim.check.event(a, version, stream, off, id) }
	if a.n.sim.bugs.softAhead {
		emit(0)
		return
	}
	a.hold(emit, nil)
}

func (a *activation) propose(ops []persistence.Op) error {
	err := a.n.host.Propose(a.shard, a.term, a.seq+1, a.n.clock(), ops)
	if err == nil {
		a.seq++
	}
	return err
}

func (a *activation) refuse(r *request, err error) {
	if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrNoRoom) {
		a.n.sim.fail("proposal", "node %d shard %d term %d: %v", a.n.id, a.shard, a.term, err)
	}
	a.n.answer(r, answer{})
}

// hold puts an effect behind everything proposed so far.
func (a *activation) hold(run func(uint64), abort func()) {
	if a.seq <= a.done && len(a.gate) == 0 {
		run(0)
		return
	}
	a.gate = append(a.gate, effect{a.seq, run, abort})
}

func (a *activation) committed(seq, index uint64) {
	a.done = max(a.done, seq)
	n := 0
	for ; n < len(a.gate) && a.gate[n].seq <= a.done; n++ {
		a.gate[n].run(index)
	}
	a.gate = a.gate[n:]
}

func (a *activation) closed() {
	for _, e := range a.gate {
		if e.abort != nil {
			e.abort()
		}
	}
	a.gate = nil
}

func (a *activation) ack(r *request, off, index uint64) {
	a.n.sim.check.ack(a, r, off, index)
	a.n.answer(r, answer{ok: true, off: off, term: a.term})
}

func (a *activation) deliver(stream uint32, off uint64, id string) {
	s, term := a.n.sim, a.term
	d := s.devices[[2]uint32{a.shard, stream}]
	s.after(s.clientDelay(), func() { d.take(term, off, id) })
}

// resume answers a device from committed rows; what it acknowledged is trimmed.
func (a *activation) resume(d *device, last, term uint64) {
	s := a.n.sim
	s.check.output(a)
	if term > a.term && !s.bugs.anyLeader {
		return // the device has heard a newer leader: this one is deposed
	}
	row, _, err := a.n.disk.Get(a.shard, headKey(d.stream))
	s.must(err)
	head, trimmed := number(row, 0), number(row, 1)
	if last > head {
		s.fail("resume_ahead", "shard %d stream %d: device has %d, leader of term %d only %d", a.shard, d.stream, last, a.term, head)
		return
	}
	if d.last < trimmed {
		s.fail("I9 retention", "shard %d stream %d: trimmed %d beyond the device's %d", a.shard, d.stream, trimmed, d.last)
	}
	if last < trimmed {
		return // overtaken by a later resume
	}
	off := last
	var ids []string
	err = a.n.disk.Scan(a.shard, entryKey(d.stream, last+1), entryKey(d.stream, last+17), func(_, value []byte) bool {
		off++
		ids = append(ids, bodyID(value))
		return true
	})
	s.must(err)
	s.after(s.clientDelay(), func() {
		for i, id := range ids {
			d.take(a.term, last+1+uint64(i), id)
		}
	})
	if want := min(head, last+16); off != want {
		s.fail("I8 density", "shard %d stream %d: %d rows up to %d, head %d", a.shard, d.stream, off-last, want, head)
	}
	a.trim(d.stream, last)
}

func (a *activation) trim(stream uint32, acked uint64) {
	st := a.stream(stream)
	if acked < st.trimmed+trimEvery {
		return
	}
	to := acked - keepAcked
	if a.n.sim.bugs.trimAhead {
		to = st.head
	}
	err := a.propose([]persistence.Op{
		{Key: entryKey(stream, 0), End: entryKey(stream, to+1)},
		{Key: headKey(stream), Value: numbers(st.head, to, a.term)},
	})
	if err == nil {
		st.trimmed = to
	}
}

// client publishes one id after another and retries each, wherever, until acknowledged.
type client struct {
	s    *sim
	name int
	next int
	req  *request
	idle bool // stopped by the simulator
}

type request struct {
	c             *client
	id            string
	body          string // the id, and some padding
	shard, stream uint32
	began         int64
	tries         int
	done          bool
}

type answer struct {
	ok   bool
	off  uint64
	term uint64
}

func (c *client) start() {
	if c.idle {
		c.req = nil
		return
	}
	s := c.s
	c.next++
	c.req = &request{
		c: c, id: fmt.Sprintf("c%d-%05d", c.name, c.next),
		shard: pick(s, s.shards), stream: uint32(s.rnd.IntN(streamsPerShard)), began: s.now,
	}
	c.req.body = c.req.id + strings.Repeat(" ", s.rnd.IntN(s.fat))
	s.check.sent[pubKey{c.req.shard, c.req.stream, c.req.id}] = true
	c.try(c.req)
}

func (c *client) try(r *request) {
	if r.done {
		return
	}
	s := c.s
	r.tries++
	to := s.guess(r.shard)
	s.toNode(to, func(n *vnode) {
		if a := n.leading[r.shard]; a != nil {
			a.publish(r)
		} else {
			n.answer(r, answer{})
		}
	})
	try := r.tries
	s.after(300*ms+s.rnd.Int64N(200*ms), func() {
		if r.tries == try {
			s.forget(r.shard)
			c.try(r)
		}
	})
}

// answer carries the outcome back to the client; it may be lost like any message.
func (n *vnode) answer(r *request, a answer) {
	s := n.sim
	if s.rnd.Float64() < s.net.clientLoss {
		return
	}
	s.after(s.clientDelay(), func() {
		switch {
		case r.done:
			if a.ok {
				s.check.answered(r, a.off)
			}
		case a.ok:
			r.done = true
			s.acks++
			s.lastAck[r.shard] = max(s.lastAck[r.shard], r.began)
			s.hint[r.shard] = n.id
			s.check.answered(r, a.off)
			s.after(ms+s.rnd.Int64N(s.think), r.c.start)
		default:
			s.forget(r.shard)
			try := r.tries
			s.after(10*ms+s.rnd.Int64N(40*ms), func() {
				if r.tries == try {
					r.c.try(r)
				}
			})
		}
	})
}

// device reads one stream for good and acknowledges what it has by resuming from there.
type device struct {
	s             *sim
	shard, stream uint32
	last, term    uint64
}

func (d *device) poll() {
	s := d.s
	s.after(60*ms+s.rnd.Int64N(120*ms), d.poll)
	last, term := d.last, d.term
	s.toNode(s.guess(d.shard), func(n *vnode) {
		if a := n.leading[d.shard]; a != nil {
			a.resume(d, last, term)
			a.read()
		} else {
			s.forget(d.shard)
		}
	})
}

func (d *device) take(term, off uint64, id string) {
	d.term = max(d.term, term)
	d.s.check.delivered(d, off, id)
	if off == d.last+1 {
		d.last = off
	}
}

// guess names a node that may lead the shard.
func (s *sim) guess(shard uint32) uint64 {
	if n := s.nodes[s.hint[shard]]; n != nil && n.up && (s.calm || s.rnd.IntN(5) > 0) {
		return n.id
	}
	ids := slices.Sorted(maps.Keys(s.nodes))
	return ids[s.rnd.IntN(len(ids))]
}

func (s *sim) forget(shard uint32) { delete(s.hint, shard) }
