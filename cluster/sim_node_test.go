package cluster

import (
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"muster/persistence"
)

// simDisk is the disk of a virtual node: what a Host reads, what its shell reads and writes, and
// what only a simulator does.
type simDisk interface {
	Disk
	Get(shard uint32, key []byte) ([]byte, bool, error)
	Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error
	put(us []persistence.Update) error // visible, not yet safe
	sync() error                       // everything put is safe
	crash(keep int) error              // percent of the unsynced batches that survive
	freeze(group uint32) (any, error)  // rows for a snapshot
	ingest(in Ingest, rows any) error
	breakDown()
	close()
}

// stage is a moment in a node's loop at which it may die.
type stage int

const (
	beforeTurn stage = iota
	afterTurn
	afterBefore
	afterIngest
	afterPut
	afterSync
	afterWrote
	midAfter
	afterAll
	stages
)

// vnode is a node: a Host, its disk, and the loop that the Engine is outside of here.
type vnode struct {
	sim     *sim
	id      uint64
	diskID  int
	disk    simDisk
	host    *Host
	life    int // events planned in an earlier life are void
	up      bool
	paused  bool
	writing bool
	lapsed  bool // a turn is to tell so first
	due     bool // a turn is planned
	inbox   []func()
	staged  map[uint32]staged
	leading map[uint32]*activation
	dieAt   stage // armed crash, -1: none
	skew    int64 // of its wall clock, ms
	slow    int64 // longest sync
	wakeAt  time.Duration
	frozen  []func()         // planned for while it was paused
	heard   map[uint64]int64 // node → when it answered a ping
	silent  map[uint64]bool
	ticks   int
	resumed int64 // when it last went on after a pause
}

type staged struct {
	index uint64
	from  uint64
	rows  any
}

func (n *vnode) clock() int64 { return 1_700_000_000_000 + n.sim.now/ms + n.skew }

// later runs f unless the node died in between.
func (n *vnode) later(d int64, f func()) {
	life := n.life
	n.sim.after(d, func() {
		switch {
		case n.life != life || !n.up:
		case n.paused:
			n.frozen = append(n.frozen, f)
		default:
			f()
		}
	})
}

func (n *vnode) start() {
	s := n.sim
	n.life++
	n.up, n.paused, n.writing, n.due, n.lapsed, n.dieAt = true, false, false, false, false, -1
	n.heard, n.silent = map[uint64]int64{}, map[uint64]bool{}
	n.inbox, n.frozen, n.staged, n.leading, n.wakeAt = nil, nil, map[uint32]staged{}, map[uint32]*activation{}, 0
	s.check.restarted(n)
	if s.failed() {
		return
	}
	host, err := NewHost(HostConfig{
		Node: n.id, Rand: rand.New(rand.NewPCG(s.seed, n.id<<16|uint64(n.life))),
		LogEntries: s.logEntries, LogBytes: s.logBytes, CompareEvery: 16, Logger: tracedRaft{n: n}, ShardInFlight: s.inFlight, Farewell: s.farewell, bugs: s.bugs.bugs,
	}, n.disk)
	if err != nil {
		s.fail("restart", "node %d: %v", n.id, err)
		return
	}
	n.host = host
	s.log("node %d up on disk %d", n.id, n.diskID)
	n.tick()
	n.kick()
}

func (n *vnode) tick() {
	n.later(100*ms, n.tick)
	n.input(func() { n.host.Tick() })
	if n.ticks++; n.ticks%2 == 0 {
		n.ping()
	}
}

// ping asks all other nodes for an answer, which their loops give.
func (n *vnode) ping() {
	s := n.sim
	for _, p := range s.all() {
		if p == n {
			continue
		}
		if _, ok := n.heard[p.id]; !ok {
			n.heard[p.id] = s.now
		}
		if s.now-n.heard[p.id] > 700*ms && !n.silent[p.id] && !s.deaf {
			n.silent[p.id] = true
			s.silences++
			n.input(func() { n.host.Silent(p.id) })
		}
		s.carry(n, p, func() { p.input(func() { s.carry(p, n, func() { n.pong(p.id) }) }) })
	}
}

func (n *vnode) pong(from uint64) {
	n.heard[from] = n.sim.now
	if n.silent[from] {
		delete(n.silent, from)
		n.input(func() { n.host.Trust(from) })
	}
}

// carry brings a ping or its answer from node to node: late, but only a cut link loses it.
func (s *sim) carry(from, to *vnode, f func()) {
	s.after(50+s.rnd.Int64N(s.net.delay), func() {
		if to.up && !s.net.cut[[2]uint64{from.id, to.id}] {
			to.later(0, f)
		}
	})
}

// input is handled in the node's next turn.
func (n *vnode) input(f func()) {
	if !n.up || len(n.inbox) > 4096 {
		return
	}
	n.inbox = append(n.inbox, f)
	n.kick()
}

func (n *vnode) kick() {
	if n.up && !n.due && !n.writing && !n.paused {
		n.due = true
		n.later(n.sim.rnd.Int64N(ms/2), n.turn)
	}
}

// dies says whether an armed crash happens now.
func (n *vnode) dies(at stage) bool {
	if n.sim.failed() {
		return true
	}
	if n.dieAt == at {
		n.sim.crash(n)
	}
	return !n.up
}

func (n *vnode) turn() {
	n.due = false
	if n.paused || n.writing {
		return
	}
	n.lapsed = n.host.Wake(time.Duration(n.sim.now)*time.Microsecond) || n.lapsed
	var inbox []func()
	if !n.lapsed {
		inbox, n.inbox = n.inbox, nil
	}
	for _, f := range inbox {
		if f(); !n.up || n.sim.failed() {
			return
		}
	}
	if !n.host.Busy() {
		n.alarm()
		return
	}
	if n.dies(beforeTurn) {
		return
	}
	n.lapsed = n.lapsed && n.host.next != nil // else this turn tells
	t := n.host.Turn()
	if n.dies(afterTurn) {
		return
	}
	n.events(t.Closed)
	n.send(t.Before)
	if n.dies(afterBefore) || !n.ingest(t.Ingests) || n.dies(afterIngest) || !n.put(t.Updates) || n.dies(afterPut) {
		return
	}
	if !t.Sync {
		n.wrote(t)
		return
	}
	n.writing = true
	n.later(50+n.sim.rnd.Int64N(n.slow), func() {
		n.writing = false
		if err := n.disk.sync(); err != nil {
			n.sim.crash(n) // any error of the disk ends the process
			return
		}
		if !n.dies(afterSync) {
			n.wrote(t)
		}
	})
}

// alarm plans the turn that Deadline asks for.
func (n *vnode) alarm() {
	at, ok := n.host.Deadline()
	if !ok || at == n.wakeAt {
		return
	}
	n.wakeAt = at
	n.later(max(0, int64(at/time.Microsecond)-n.sim.now), func() {
		n.wakeAt = 0
		n.kick()
	})
}

func (n *vnode) put(us []persistence.Update) bool {
	s := n.sim
	was := make([]loaded, len(us))
	for i := range us {
		was[i] = s.check.before(n, us[i].Group)
		s.trace(n, &us[i])
		n.provoke(&us[i], was[i])
	}
	if err := n.disk.put(us); err != nil {
		s.dead(n, err)
		return false
	}
	for i := range us {
		s.check.wrote(n, &us[i], was[i])
	}
	return !s.failed()
}

// provoke has a node die around the batches in which something rare happens: a log is
// overwritten, a configuration or a vote changes, a replica goes.
func (n *vnode) provoke(u *persistence.Update, was loaded) {
	s := n.sim
	if s.calm || !s.cruel || n.dieAt >= 0 {
		return
	}
	odds := 0
	switch {
	case len(u.Entries) > 0 && u.Entries[0].GetIndex() <= was.last:
		odds = 1
	case u.Destroy != 0, u.State != nil && was.state.Conf != nil && confString(u.State.Conf) != confString(was.state.Conf):
		odds = 8
	case u.Hard.GetVote() != was.hard.GetVote():
		odds = 20
	}
	if odds > 0 && s.rnd.IntN(odds) == 0 {
		n.dieAt = pick(s, []stage{afterPut, afterSync, afterWrote, midAfter, afterAll})
	}
}

func (n *vnode) ingest(ins []Ingest) bool {
	s := n.sim
	for _, in := range ins {
		st := n.staged[in.Update.Group]
		delete(n.staged, in.Update.Group)
		if st.index != in.Index || st.from != in.From {
			s.fail("snapshot", "node %d is to ingest %d of group %d from node %d, received was %d from %d",
				n.id, in.Index, in.Update.Group, in.From, st.index, st.from)
			return false
		}
		was := s.check.before(n, in.Update.Group)
		s.trace(n, &in.Update)
		if err := n.disk.ingest(in, st.rows); err != nil {
			s.dead(n, err)
			return false
		}
		s.snapshots++
		s.check.wrote(n, &in.Update, was)
	}
	return !s.failed()
}

func (n *vnode) wrote(t *Turn) {
	n.host.Wrote(t)
	if n.dies(afterWrote) {
		return
	}
	for i, m := range t.After {
		if i == len(t.After)/2 && n.dies(midAfter) {
			return
		}
		n.send([]Message{m})
	}
	n.events(t.Events)
	if !n.dies(afterAll) {
		n.kick()
	}
}

func (n *vnode) send(messages []Message) {
	for _, m := range messages {
		if !n.up {
			return
		}
		n.sim.check.promise(n, m.Group, m.Raft)
		n.sim.post(n, m)
	}
}

func (n *vnode) events(events []Event) {
	s := n.sim
	for _, e := range events {
		if s.failed() {
			return
		}
		switch e := e.(type) {
		case Opened:
			s.log("node %d opens shard %d at term %d", n.id, e.Shard, e.Term)
			s.check.opened(n, e.Shard, e.Term)
			n.leading[e.Shard] = &activation{n: n, shard: e.Shard, term: e.Term, streams: map[uint32]*streamState{}, reads: map[uint64]linearRead{}}
			s.opens++
		case Closed:
			s.log("node %d closes shard %d at term %d", n.id, e.Shard, e.Term)
			if a := n.leading[e.Shard]; a != nil && a.term == e.Term && !s.bugs.outlive {
				delete(n.leading, e.Shard)
				a.closed()
			}
		case Committed:
			if a := n.leading[e.Shard]; a != nil && a.term == e.Term {
				a.committed(e.Seq, e.Index)
			}
		case ReadReady:
			if a := n.leading[e.Shard]; a != nil {
				a.readReady(e)
			}
		case LeaderChanged:
			if e.Node == n.id {
				s.check.leader(e.Group, e.Term, e.Node)
			}
		case Leaving:
			if s.rnd.IntN(4) > 0 { // else the shell never says that it is done
				n.later(s.rnd.Int64N(150*ms), func() { n.input(func() { n.host.Left(e.Shard, e.Term) }) })
			}
		case Removed:
			s.log("node %d removed replica %d of group %d", n.id, e.Replica, e.Group)
		}
	}
}

// receive takes a message off the network.
func (n *vnode) receive(m Message, rows any) {
	n.input(func() {
		if rows != nil {
			if _, ok := n.staged[m.Group]; ok && n.host.Busy() {
				return // raft may have taken that one already
			}
			n.staged[m.Group] = staged{m.Raft.GetSnapshot().GetMetadata().GetIndex(), m.From, rows}
		}
		n.host.Receive(m.From, m.Group, m.Raft)
	})
}

// packet is a copy, as encoding makes one.
func packet(m Message) Message {
	m.Raft = proto.Clone(m.Raft).(*raftpb.Message)
	return m
}

// sortedShards are the shards a node leads, in order.
func (n *vnode) sortedShards() []uint32 {
	var out []uint32
	for shard := range n.leading {
		out = append(out, shard)
	}
	slices.Sort(out)
	return out
}
