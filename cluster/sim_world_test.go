package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// simBugs are the injected defects: those of the host, of the disk and of the shell.
type simBugs struct {
	bugs
	keepTail    bool // the disk keeps the old log's tail
	splitDedupe bool // the dedupe row is an entry of its own
	softAhead   bool // watchers hear before the record is committed
	eager       bool // devices get a publication before it is committed
	outlive     bool // an activation ignores Closed
	anyLeader   bool // a device is answered whatever term it knows
	localRead   bool // a linearizable read is answered at once
	trimAhead   bool // what the device has not acknowledged is trimmed
	loseOp      bool // one replica in three loses a write in forty

	outcomes bool // the checkers that look inside are off
}

// sim is a cluster in one goroutine: virtual nodes, a network, clients, devices, and
// somebody who means ill. Everything follows from the seed.
type sim struct {
	queue
	stats
	seed    uint64
	rnd     *rand.Rand
	bugs    simBugs
	check   *checker
	plan    *planner
	nodes   map[uint64]*vnode
	net     network
	devices map[[2]uint32]*device
	clients []*client

	shards     []uint32
	logEntries uint64
	logBytes   uint64
	farewell   bool
	inFlight   int64 // bytes of a shard; 0: the default
	fat        int   // most padding of a publication
	think      int64 // longest pause of a client
	readID     uint64
	storm      int64 // how long faults last
	calm       bool
	cruel      bool // nodes die where it hurts
	deaf       bool // nobody minds a silence
	quiet      bool // three nodes, three voters, no faults but a test's own
	real       bool // persistence.Store instead of the model
	nextNode   uint64
	nextDisk   int
	wiped      map[replicaOf]uint64 // replicas whose disk is gone, and where their logs ended

	hint    map[uint32]uint64
	lastAck map[uint32]int64 // when the latest acknowledged publication began

	verbose bool
	failure string
	checker string
	hash    uint64
	ring    [80]line
	lines   int
}

type line struct {
	at     int64
	format string
	args   []any
}

func newSim(seed uint64, bugs simBugs) *sim {
	s := &sim{
		seed: seed, rnd: rand.New(rand.NewPCG(seed, 0x6d7573746572)), bugs: bugs, nodes: map[uint64]*vnode{}, devices: map[[2]uint32]*device{},
		wiped: map[replicaOf]uint64{}, hint: map[uint32]uint64{}, lastAck: map[uint32]int64{},
	}
	s.check = newChecker(s)
	s.plan = newPlanner(s)
	return s
}

func (s *sim) failed() bool { return s.failure != "" }

// fail keeps the first violation; the run ends with it.
func (s *sim) fail(checker, format string, args ...any) {
	if !s.failed() && !(s.bugs.outcomes && inside[checker]) {
		s.checker = checker
		s.failure = fmt.Sprintf("%s: at %.3f s: %s", checker, float64(s.now)/float64(second), fmt.Sprintf(format, args...))
		s.log("FAILED %s", s.failure)
	}
}

func (s *sim) must(err error) {
	if err != nil {
		s.fail("disk", "%v", err)
	}
}

func (s *sim) log(format string, args ...any) {
	s.mix(uint64(s.now), uint64(len(format)))
	l := line{s.now, format, args}
	s.ring[s.lines%len(s.ring)] = l
	s.lines++
	if s.verbose {
		fmt.Fprintln(os.Stderr, l)
	}
}

func (l line) String() string {
	return fmt.Sprintf("%9.4f  "+l.format, append([]any{float64(l.at) / float64(second)}, l.args...)...)
}

// tail is the trace's end.
func (s *sim) tail() string {
	var b strings.Builder
	for i := max(0, s.lines-len(s.ring)); i < s.lines; i++ {
		fmt.Fprintln(&b, s.ring[i%len(s.ring)])
	}
	return b.String()
}

// mix adds to the trace's hash.
func (s *sim) mix(ns ...uint64) {
	for _, n := range ns {
		s.hash = (s.hash ^ n) * 0x100000001b3
		s.hash ^= s.hash >> 29
	}
}

// trace notes what a batch changes in a group.
func (s *sim) trace(n *vnode, u *persistence.Update) {
	s.mix(n.id, uint64(u.Group), uint64(len(u.Ops)), u.Hard.GetTerm(), u.Hard.GetVote(), u.Hard.GetCommit())
	for _, e := range u.Entries {
		s.mix(e.GetIndex(), e.GetTerm(), uint64(len(e.GetData())))
	}
	if u.State != nil {
		s.mix(u.State.Applied, u.State.Hash)
	}
	if s.verbose {
		fmt.Fprintln(os.Stderr, line{s.now, "node %d group %d writes %s", []any{n.id, u.Group, summary(u)}})
	}
}

func summary(u *persistence.Update) string {
	var b strings.Builder
	if u.Hard != nil {
		fmt.Fprintf(&b, "term %d vote %d commit %d ", u.Hard.GetTerm(), u.Hard.GetVote(), u.Hard.GetCommit())
	}
	if n := len(u.Entries); n > 0 {
		fmt.Fprintf(&b, "entries [%d, %d] of term %d ", u.Entries[0].GetIndex(), u.Entries[n-1].GetIndex(), u.Entries[n-1].GetTerm())
	}
	if u.State != nil {
		fmt.Fprintf(&b, "applied %d truncated %d %s ", u.State.Applied, u.State.Truncated, confString(u.State.Conf))
	}
	for _, op := range u.Ops {
		fmt.Fprintf(&b, "%s ", op.Key)
	}
	if u.Destroy != 0 {
		fmt.Fprintf(&b, "destroyed, next replica %d", u.Destroy)
	}
	return b.String()
}

func (s *sim) runTo(until int64) {
	for !s.failed() && s.step(until) {
	}
}

// network says what becomes of a message.
type network struct {
	loss, dup, reorder float64
	delay              int64 // longest
	clientLoss         float64
	cut                map[[2]uint64]bool // from, to
	last               map[[2]uint64]int64
}

// post sends a message; a snapshot takes the rows as they are now.
func (s *sim) post(from *vnode, m Message) {
	var rows any
	if m.Raft.GetType() == raftpb.MsgSnap {
		index := m.Raft.GetSnapshot().GetMetadata().GetIndex()
		if have := s.check.load(from, m.Group).state.Applied; have != index {
			s.fail("snapshot", "node %d group %d sends a snapshot of %d with the rows of %d", from.id, m.Group, index, have)
			return
		}
		var err error
		if rows, err = from.disk.freeze(m.Group); err != nil {
			s.dead(from, err)
			return
		}
		s.log("node %d sends node %d a snapshot of group %d at %d", from.id, m.To, m.Group, index)
	}
	copies := 1
	if s.rnd.Float64() < s.net.loss {
		copies = 0
	} else if s.rnd.Float64() < s.net.dup {
		copies = 2
	}
	for range copies {
		s.fly(from, packet(m), rows)
	}
	if rows != nil {
		from.later(50*ms, func() { from.input(func() { from.host.SnapshotSent(m.Group, m.To, copies > 0) }) })
	}
}

func (s *sim) fly(from *vnode, m Message, rows any) {
	link := [2]uint64{from.id, m.To}
	due := s.now + 50 + s.rnd.Int64N(s.net.delay)
	if s.rnd.Float64() >= s.net.reorder {
		due = max(due, s.net.last[link]+1)
		s.net.last[link] = due
	}
	s.after(due-s.now, func() {
		if to := s.nodes[m.To]; to != nil && to.up && !s.net.cut[link] {
			to.receive(m, rows)
		}
	})
}

func (s *sim) clientDelay() int64 { return 50 + s.rnd.Int64N(2*ms) }

// toNode carries a client's message into a node's next turn.
func (s *sim) toNode(id uint64, f func(*vnode)) {
	if s.rnd.Float64() < s.net.clientLoss {
		return
	}
	s.after(s.clientDelay(), func() {
		if n := s.nodes[id]; n != nil && n.up {
			n.input(func() { f(n) })
		}
	})
}

// crash ends a node's process. Its peers' sockets close; it starts again later.
func (s *sim) crash(n *vnode) {
	if !n.up {
		return
	}
	keep := []int{0, 50, 100}[s.rnd.IntN(3)]
	s.crashes++
	s.log("node %d dies, %d %% of its unsynced batches survive", n.id, keep)
	s.check.glance()
	n.up = false
	s.must(n.disk.crash(keep))
	s.hangUp(n)
	s.after(30*ms+s.rnd.Int64N(900*ms), func() {
		if s.nodes[n.id] == n && !n.up && !s.failed() {
			n.start()
			s.dial(n)
		}
	})
}

// dead: any error of the disk ends the process, and only injected ones may happen.
func (s *sim) dead(n *vnode, err error) {
	if !errors.Is(err, errDisk) {
		s.fail("disk", "node %d: %v", n.id, err)
		return
	}
	s.crash(n)
}

// hangUp: most peers notice a dead process at once.
func (s *sim) hangUp(dead *vnode) {
	for _, p := range s.all() {
		if p != dead && p.up && s.rnd.IntN(4) > 0 {
			p.later(ms+s.rnd.Int64N(3*ms), func() {
				if !dead.up {
					p.input(func() { p.host.Suspect(dead.id) })
				}
			})
		}
	}
}

// dial: a node that is back opens new streams.
func (s *sim) dial(n *vnode) {
	for _, p := range s.all() {
		if p != n {
			p.later(5*ms, func() { p.input(func() { p.host.Trust(n.id) }) })
		}
	}
}

func (s *sim) all() []*vnode {
	return slices.SortedFunc(maps.Values(s.nodes), func(a, b *vnode) int { return cmp.Compare(a.id, b.id) })
}

func (s *sim) running() []*vnode {
	return slices.DeleteFunc(s.all(), func(n *vnode) bool { return !n.up })
}

func pick[T any](s *sim, of []T) T { return of[s.rnd.IntN(len(of))] }

// What the checker asks of the disks.

// holds says whether a replica has an entry on its platter.
func (s *sim) holds(r replicaOf, index, term uint64) bool {
	if last, ok := s.wiped[r]; ok {
		return index <= last
	}
	if s.check.gone[r] {
		return true // it held what it promised while it was there
	}
	n := s.nodes[s.check.home[r]]
	if n == nil {
		return true
	}
	d, ok := n.disk.(*modelDisk)
	if !ok {
		return true
	}
	g := d.safe.groups[r.group]
	if g == nil || g.state.Replica != r.replica {
		return false
	}
	have, err := g.term(index)
	return err == raft.ErrCompacted || err == nil && have == term
}

func (s *sim) hardTerm(n *vnode, group uint32) uint64 {
	hard, _, _, _, err := n.disk.Load(group)
	s.must(err)
	return hard.GetTerm()
}

func (s *sim) rowSum(n *vnode, group uint32) (uint64, bool) {
	if d, ok := n.disk.(*modelDisk); ok {
		return d.group(group).sum, true
	}
	sum := uint64(0)
	s.must(n.disk.Scan(group-1, nil, nil, func(k, v []byte) bool {
		sum += rowSum(string(k), v)
		return true
	}))
	return sum, true
}

func (s *sim) ackedOf(shard uint32) []pubKey {
	keys := slices.Collect(maps.Keys(s.check.acked))
	keys = slices.DeleteFunc(keys, func(k pubKey) bool { return k.shard != shard })
	slices.SortFunc(keys, func(a, b pubKey) int { return cmp.Or(cmp.Compare(a.stream, b.stream), cmp.Compare(a.id, b.id)) })
	return keys
}
