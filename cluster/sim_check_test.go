package cluster

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// checker watches everything the virtual nodes write, send and answer. It knows what no
// node can know: all disks at once, and the whole past.
type checker struct {
	s *sim

	// streams
	sent      map[pubKey]bool
	entries   map[cell]string   // as first applied
	offsets   map[pubKey]uint64 // as first applied
	deduped   map[pubKey]uint64 // dedupe rows as first applied
	heads     map[[2]uint32]uint64
	acked     map[pubKey]uint64
	ackedHead map[[2]uint32]uint64

	// groups
	commands map[at]uint64 // hash of the entry at an index
	hashes   map[at]uint64 // the host's rolling hash after applying it
	sums     map[at]uint64 // of all rows after applying it
	confs    map[at]string
	history  map[uint32][]confAt
	leaders  map[termOf]uint64
	votes    map[voteOf]uint64
	born     map[replicaOf]int    // which disk a replica lives on
	home     map[replicaOf]uint64 // which node
	gone     map[replicaOf]bool
	audit    map[uint32]*fence
	reach    map[[2]uint64]int64 // nodes → when they could last talk
}

// aloneWithin is how long a leader may answer from memory without a quorum in reach; longer after a pause, in
// which answers that waited look new.
const aloneWithin, aloneAfterPause = second, 1700 * ms

type (
	pubKey struct {
		shard, stream uint32
		id            string
	}
	cell struct {
		shard, stream uint32
		off           uint64
	}
	at struct {
		group uint32
		index uint64
	}
	termOf struct {
		group uint32
		term  uint64
	}
	voteOf struct {
		group         uint32
		replica, term uint64
	}
	replicaOf struct {
		group   uint32
		replica uint64
	}
	confAt struct {
		index uint64
		conf  *raftpb.ConfState
		since int64 // when it was first applied anywhere
	}
	// fence is the audit log of a shard's acknowledgements.
	fence struct {
		term  map[uint64]uint64 // of an index
		index uint64            // highest so far
		last  uint64            // and its term
	}
)

func newChecker(s *sim) *checker {
	return &checker{
		s: s, sent: map[pubKey]bool{}, entries: map[cell]string{}, offsets: map[pubKey]uint64{},
		deduped: map[pubKey]uint64{}, heads: map[[2]uint32]uint64{}, acked: map[pubKey]uint64{}, ackedHead: map[[2]uint32]uint64{},
		commands: map[at]uint64{}, hashes: map[at]uint64{},
		sums: map[at]uint64{}, confs: map[at]string{}, history: map[uint32][]confAt{},
		leaders: map[termOf]uint64{}, votes: map[voteOf]uint64{}, born: map[replicaOf]int{},
		home: map[replicaOf]uint64{}, gone: map[replicaOf]bool{}, audit: map[uint32]*fence{}, reach: map[[2]uint64]int64{},
	}
}

// ack: the entry is applied here, of the activation's term, and on a quorum's platters.
func (c *checker) ack(a *activation, r *request, off, index uint64) {
	key := pubKey{r.shard, r.stream, r.id}
	if got, ok := c.offsets[key]; !ok || got != off {
		c.s.fail("I1 ack", "node %d acknowledges %v at offset %d; committed: %d", a.n.id, key, off, got)
		return
	}
	if old, ok := c.acked[key]; ok && old != off {
		c.s.fail("I8 dedupe", "%v acknowledged at %d and at %d", key, old, off)
	}
	c.acked[key] = off
	stream := [2]uint32{r.shard, r.stream}
	c.ackedHead[stream] = max(c.ackedHead[stream], off)
	if index != 0 {
		c.durable(a, index)
		c.fence(a, index)
	}
}

// fence: within a shard, acknowledged indexes and terms rise together.
func (c *checker) fence(a *activation, index uint64) {
	f := c.audit[a.shard]
	if f == nil {
		f = &fence{term: map[uint64]uint64{}}
		c.audit[a.shard] = f
	}
	if t, ok := f.term[index]; ok && t != a.term {
		c.s.fail("I4 fence", "shard %d index %d acknowledged in terms %d and %d", a.shard, index, t, a.term)
	}
	if index > f.index && a.term < f.last {
		c.s.fail("I4 fence", "shard %d index %d acknowledged in term %d after index %d in %d", a.shard, index, a.term, f.index, f.last)
	}
	f.term[index] = a.term
	if index > f.index {
		f.index, f.last = index, a.term
	}
}

// durable: a quorum of the configuration that stood before or at the index has it synced.
func (c *checker) durable(a *activation, index uint64) {
	group := a.shard + 1
	var before, now *raftpb.ConfState
	for _, h := range c.history[group] {
		if h.index <= index {
			before, now = now, h.conf
		}
	}
	term, err := a.n.disk.Term(group, index)
	if err != nil {
		return // truncated by now: applied long ago
	}
	if c.synced(group, now, index, term) || before != nil && c.synced(group, before, index, term) {
		return
	}
	c.s.fail("I1 quorum", "node %d acknowledges index %d of group %d, which no quorum of %s has synced", a.n.id, index, group, confString(now))
}

func (c *checker) synced(group uint32, conf *raftpb.ConfState, index, term uint64) bool {
	quorum := func(voters []uint64) bool {
		n := 0
		for _, v := range voters {
			if c.s.holds(replicaOf{group, v}, index, term) {
				n++
			}
		}
		return len(voters) == 0 || n > len(voters)/2
	}
	return conf != nil && quorum(conf.GetVoters()) && quorum(conf.GetVotersOutgoing())
}

// event: what watchers see rests on committed records, and a term never goes back.
func (c *checker) event(a *activation, version uint64, stream uint32, off uint64, id string) {
	if got := c.entries[cell{a.shard, stream, off}]; got != id {
		c.s.fail("gate", "node %d tells watchers of shard %d stream %d offset %d = %s; committed: %q", a.n.id, a.shard, stream, off, id, got)
	}
	c.output(a)
}

// output: a node that knows a newer term says nothing for an older one.
func (c *checker) output(a *activation) {
	c.alone(a)
	if hard := c.s.hardTerm(a.n, a.shard+1); hard > a.term {
		c.s.fail("I4 fence", "node %d is at term %d and emits for term %d of shard %d", a.n.id, hard, a.term, a.shard)
	}
}

// look notes who can talk to whom, now and then; before each fault glance does.
func (c *checker) look() {
	c.s.after(20*ms, c.look)
	c.glance()
}

func (c *checker) glance() {
	for _, a := range c.s.nodes {
		for _, b := range c.s.nodes {
			if b.up && !b.paused && !c.s.net.cut[[2]uint64{a.id, b.id}] && !c.s.net.cut[[2]uint64{b.id, a.id}] {
				c.reach[[2]uint64{a.id, b.id}] = c.s.now
			}
		}
	}
}

// alone: a leader without a quorum in reach stops answering. A configuration that has just been left still counts:
// none can be elected without a quorum of it before the new one is final, so that a lease it gave is good to its end.
func (c *checker) alone(a *activation) {
	c.glance()
	bound, group := aloneWithin, a.shard+1
	if c.s.now-a.n.resumed < aloneAfterPause {
		bound = aloneAfterPause
	}
	if c.s.now <= 2*second || c.inReach(a.n, group, c.load(a.n, group).state.Conf, bound) {
		return
	}
	for i, next := range c.history[group] {
		if i > 0 && c.s.now-next.since <= bound && c.inReach(a.n, group, c.history[group][i-1].conf, bound) {
			return
		}
	}
	c.s.fail("stale leader", "node %d answers for shard %d without a quorum in reach for %d ms", a.n.id, a.shard, bound/ms)
}

// inReach says that within the bound the node could talk to a quorum of the configuration.
func (c *checker) inReach(n *vnode, group uint32, conf *raftpb.ConfState, bound int64) bool {
	quorum := func(voters []uint64) bool {
		near := 0
		for _, v := range voters {
			home := c.home[replicaOf{group, v}]
			if at, ok := c.reach[[2]uint64{n.id, home}]; home == n.id || ok && c.s.now-at <= bound {
				near++
			}
		}
		return len(voters) == 0 || near > len(voters)/2
	}
	return quorum(conf.GetVoters()) && quorum(conf.GetVotersOutgoing())
}

func (c *checker) delivered(d *device, off uint64, id string) {
	if got := c.entries[cell{d.shard, d.stream, off}]; got != id {
		c.s.fail("I10 delivery", "shard %d stream %d offset %d delivered as %s; committed: %q", d.shard, d.stream, off, id, got)
	}
}

func (c *checker) answered(r *request, off uint64) {
	if got := c.acked[pubKey{r.shard, r.stream, r.id}]; got != off {
		c.s.fail("I8 dedupe", "%s answered %d, acknowledged %d", r.id, off, got)
	}
}

// rows follows the rows a node applied; what another node applied before must be equal.
func (c *checker) rows(n *vnode, group uint32, ops []persistence.Op, from, to uint64) {
	shard := group - 1
	for _, op := range ops {
		if op.End != nil || len(op.Key) < 3 {
			continue
		}
		stream := uint32(op.Key[1]-'0')*10 + uint32(op.Key[2]-'0')
		rest := string(op.Key[3:])
		switch op.Key[0] {
		case 'e':
			var off uint64
			fmt.Sscanf(rest, "%d", &off)
			c.entry(n, cell{shard, stream, off}, bodyID(op.Value))
			c.term(n, group, number(op.Value, 0), from, to)
			if !hasKey(ops, dedupeKey(stream, bodyID(op.Value))) {
				c.s.fail("I8 one command", "node %d applies offset %d of shard %d stream %d without its dedupe row", n.id, off, shard, stream)
			}
		case 'k':
			key := pubKey{shard, stream, rest}
			if old, ok := c.deduped[key]; ok && old != number(op.Value, 0) {
				c.s.fail("I8 dedupe", "dedupe row of %v: %d, then %d", key, old, number(op.Value, 0))
			}
			c.deduped[key] = number(op.Value, 0)
		case 'h':
			c.term(n, group, number(op.Value, 2), from, to)
		}
	}
}

func hasKey(ops []persistence.Op, key []byte) bool {
	return slices.ContainsFunc(ops, func(op persistence.Op) bool { return string(op.Key) == string(key) })
}

func (c *checker) entry(n *vnode, at cell, id string) {
	if old, ok := c.entries[at]; ok {
		if old != id {
			c.s.fail("I2 canonical log", "node %d applies %s at %v, others %s", n.id, id, at, old)
		}
		return
	}
	key := pubKey{at.shard, at.stream, id}
	stream := [2]uint32{at.shard, at.stream}
	switch {
	case !c.sent[key]:
		c.s.fail("I8 dedupe", "%v was never sent", key)
	case c.offsets[key] != 0:
		c.s.fail("I8 dedupe", "%v at offsets %d and %d", key, c.offsets[key], at.off)
	case at.off != c.heads[stream]+1:
		c.s.fail("I8 density", "shard %d stream %d: offset %d after %d", at.shard, at.stream, at.off, c.heads[stream])
	}
	c.entries[at], c.offsets[key], c.heads[stream] = id, at.off, at.off
}
