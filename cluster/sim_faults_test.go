package cluster

import (
	"fmt"
	"slices"
	"strings"

	"muster/persistence"
)

// nemesis draws the seed's profile and plans its faults.
func (s *sim) nemesis() {
	s.net = network{
		loss: pick(s, []float64{0, 0, 0.01, 0.05, 0.15}), dup: pick(s, []float64{0, 0.02, 0.1}),
		reorder: pick(s, []float64{0, 0.05, 0.5}), delay: pick(s, []int64{1, 3, 20, 80}) * ms,
		clientLoss: pick(s, []float64{0, 0.02, 0.2}),
		cut:        map[[2]uint64]bool{}, last: map[[2]uint64]int64{},
	}
	s.think = pick(s, []int64{10, 60, 200}) * ms
	s.cruel = s.rnd.IntN(2) == 0
	s.fat = pick(s, []int{1, 1, 1, 1, 1, 30_000})
	s.storm = 3*second + s.rnd.Int64N(4*second)
	for i := range 2 + s.rnd.IntN(3) {
		c := &client{s: s, name: i}
		s.clients = append(s.clients, c)
		s.after(s.rnd.Int64N(300*ms), c.start)
	}
	for _, shard := range s.shards {
		for stream := range uint32(streamsPerShard) {
			d := &device{s: s, shard: shard, stream: stream}
			s.devices[[2]uint32{shard, stream}] = d
			s.after(s.rnd.Int64N(200*ms), d.poll)
		}
	}
	s.after(200*ms, s.plan.step)
	s.check.look()
	faults := s.faults()
	pace := pick(s, []int64{150, 400, 1000}) * ms
	var next func()
	next = func() {
		if s.calm {
			return
		}
		pick(s, faults)()
		s.after(pace/4+s.rnd.Int64N(pace), next)
	}
	s.after(pace+s.rnd.Int64N(second), next)
}

// faults are the kinds this seed uses: some seeds few, so that each is met alone too.
func (s *sim) faults() []func() {
	all := []func(){
		s.crashOne, s.crashOne, s.crashLeader, s.crashLeader, s.crashAll, s.partition, s.partition, s.isolate, s.pause,
		s.breakDisk, s.transfer, s.suspicion, s.plan.move, s.plan.move, s.wipe, s.rolling, s.fillDisk, s.yield, s.jumpClock, s.stray,
	}
	s.rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:pick(s, []int{3, 6, len(all)})]
}

// crashOne arms a crash at some moment of a node's loop.
func (s *sim) crashOne() { s.arm(s.running()) }

func (s *sim) crashLeader() {
	s.arm(slices.DeleteFunc(s.running(), func(n *vnode) bool { return len(n.leading) == 0 }))
}

func (s *sim) arm(of []*vnode) {
	if len(of) == 0 {
		return
	}
	n := pick(s, of)
	n.dieAt = stage(s.rnd.IntN(int(stages)))
	s.log("node %d is to die at stage %d", n.id, n.dieAt)
}

func (s *sim) crashAll() {
	for _, n := range s.running() {
		s.crash(n)
	}
}

// breakDisk: writes fail from now on, so the process must end; the disk works after its restart.
func (s *sim) breakDisk() {
	if up := s.running(); len(up) > 0 {
		n := pick(s, up)
		s.log("node %d: disk error", n.id)
		n.disk.breakDown()
	}
}

// partition cuts links, one way or both: a half from the rest, a node from some, or all but a bridge.
func (s *sim) partition() {
	ids := s.all()
	s.rnd.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	var cut [][2]uint64
	both := s.rnd.IntN(3) > 0
	split := 1 + s.rnd.IntN(len(ids)-1)
	bridge := s.rnd.IntN(3) == 0 && len(ids) > 2
	for i, a := range ids {
		for j, b := range ids {
			if i < split && j >= split && (!bridge || j != len(ids)-1) {
				cut = append(cut, [2]uint64{a.id, b.id})
				if both {
					cut = append(cut, [2]uint64{b.id, a.id})
				}
			}
		}
	}
	s.cut(cut)
}

// isolate cuts a leader off from its peers, not from its clients.
func (s *sim) isolate() {
	var leaders []*vnode
	for _, n := range s.running() {
		if len(n.leading) > 0 {
			leaders = append(leaders, n)
		}
	}
	if len(leaders) == 0 {
		return
	}
	var cut [][2]uint64
	n := pick(s, leaders)
	for _, p := range s.all() {
		cut = append(cut, [2]uint64{n.id, p.id}, [2]uint64{p.id, n.id})
	}
	s.cut(cut)
}

func (s *sim) cut(cut [][2]uint64) {
	s.check.glance()
	for _, l := range cut {
		s.net.cut[l] = true
	}
	s.log("cut %v", cut)
	s.after(200*ms+s.rnd.Int64N(2500*ms), func() {
		for _, l := range cut {
			delete(s.net.cut, l)
		}
		s.log("healed %v", cut)
	})
}

// pause stops a process as SIGSTOP does.
func (s *sim) pause() {
	up := s.running()
	if len(up) == 0 {
		return
	}
	n := pick(s, up)
	s.check.glance()
	n.paused = true
	s.log("node %d stops", n.id)
	life := n.life
	s.after(50*ms+s.rnd.Int64N(2*second), func() {
		if n.life == life {
			n.resume()
		}
	})
}

func (n *vnode) resume() {
	if !n.up || !n.paused {
		return
	}
	n.paused, n.resumed = false, n.sim.now
	n.sim.log("node %d goes on", n.id)
	frozen := n.frozen
	n.frozen = nil
	for _, f := range frozen {
		n.later(0, f)
	}
	n.kick()
}

func (s *sim) transfer() {
	for _, n := range s.running() {
		for _, shard := range n.sortedShards() {
			to := uint64(0)
			if s.rnd.IntN(2) == 0 {
				to = pick(s, s.all()).id
			}
			n.input(func() { _ = n.host.Transfer(shard, to) })
		}
	}
}

// suspicion is false: the suspect lives.
func (s *sim) suspicion() {
	up := s.running()
	if len(up) < 2 {
		return
	}
	suspect := pick(s, up)
	for _, n := range up {
		if n != suspect && s.rnd.IntN(3) > 0 {
			n.input(func() { n.host.Suspect(suspect.id) })
			n.later(20*ms+s.rnd.Int64N(600*ms), func() { n.input(func() { n.host.Trust(suspect.id) }) })
		}
	}
	s.log("node %d is suspected", suspect.id)
}

// rolling restarts every node, leaderships given away first.
func (s *sim) rolling() {
	for i, n := range s.all() {
		s.after(int64(i)*600*ms, func() {
			if !n.up || s.calm {
				return
			}
			n.input(func() {
				n.host.Yield(true)
			})
			n.later(100*ms+s.rnd.Int64N(300*ms), func() {
				if !s.calm {
					s.crash(n)
				}
			})
		})
	}
}

func (s *sim) fillDisk() {
	up := s.running()
	if len(up) == 0 {
		return
	}
	n := pick(s, up)
	s.log("node %d: disk full", n.id)
	n.input(func() { n.host.Refuse("disk full") })
	n.later(100*ms+s.rnd.Int64N(second), func() { n.input(func() { n.host.Refuse("") }) })
}

// yield: a node finds its clock wrong, for a while.
func (s *sim) yield() {
	up := s.running()
	if len(up) == 0 {
		return
	}
	n := pick(s, up)
	s.log("node %d yields", n.id)
	n.input(func() { n.host.Yield(true) })
	n.later(100*ms+s.rnd.Int64N(2*second), func() { n.input(func() { n.host.Yield(false) }) })
}

func (s *sim) jumpClock() {
	n := pick(s, s.all())
	n.skew = s.rnd.Int64N(7_200_000) - 3_600_000
	s.log("node %d: clock off by %d s", n.id, n.skew/1000)
}

// wipe takes a node's disk for good, if every group keeps a majority of voters that never lost one.
// The machine comes back as another node.
func (s *sim) wipe() {
	n := pick(s, s.all())
	if !s.plan.spares(n) {
		return
	}
	s.crash(n)
	groups, err := n.disk.Groups()
	s.must(err)
	for _, g := range groups {
		l := s.check.load(n, g)
		s.wiped[replicaOf{g, l.state.Replica}] = l.last
	}
	s.log("node %d loses its disk", n.id)
	s.wipes++
	n.disk.close()
	delete(s.nodes, n.id)
	fresh := s.addNode()
	s.after(100*ms+s.rnd.Int64N(second), func() {
		if s.nodes[fresh.id] == fresh && fresh.life == 0 {
			fresh.start()
		}
	})
}

// stray puts a command of an earlier term into the log of a later one, past every check at the
// proposal: as if a node had forwarded it. Apply must drop it.
func (s *sim) stray() {
	for _, n := range s.running() {
		for _, shard := range n.sortedShards() {
			a, stream := n.leading[shard], uint32(s.rnd.IntN(streamsPerShard))
			id := fmt.Sprintf("x%05d", s.lines)
			s.check.sent[pubKey{shard, stream, id}] = true
			n.input(func() {
				g := n.host.groups[shard+1]
				if g == nil || g.open != a.term {
					return
				}
				off := a.stream(stream).head + 1
				c := command{term: a.term - 1, at: n.clock(), ops: []persistence.Op{
					{Key: entryKey(stream, off), Value: append(numbers(a.term-1), id...)},
					{Key: headKey(stream), Value: numbers(off, 0, a.term-1)},
					{Key: dedupeKey(stream, id), Value: numbers(off)},
				}}
				_ = g.raft.Propose(c.encode())
				n.host.touch(g)
			})
		}
	}
	s.log("stray commands")
}

// heal ends all faults.
func (s *sim) heal() {
	s.log("calm")
	s.calm = true
	s.net = network{delay: 2 * ms, cut: map[[2]uint64]bool{}, last: s.net.last}
	for _, n := range s.all() {
		n.dieAt = -1
		n.resume()
		if !n.up {
			n.start()
		}
		for _, p := range s.all() {
			n.input(func() { n.host.Trust(p.id) })
		}
		n.input(func() { n.host.Refuse("") })
		n.input(func() { n.host.Yield(false) })
	}
}

// bounds of the liveness mode, in virtual time
const (
	writableWithin  = 6 * second
	convergedWithin = 8 * second
)

// settle: every shard is writable in bounded time; then all replicas are equal, every device has
// everything, and nothing acknowledged is missing anywhere.
func (s *sim) settle() {
	calm := s.now
	for deadline := calm + writableWithin; !s.failed() && !s.writable(calm); {
		if s.now >= deadline {
			s.fail("liveness", "not writable %v after the faults ended: %s", writableWithin/second, s.stuck())
			return
		}
		s.runTo(s.now + 100*ms)
	}
	for _, c := range s.clients {
		c.idle = true
	}
	for deadline := s.now + convergedWithin; !s.failed(); {
		why := s.diverged()
		if why == "" {
			return
		}
		if s.now >= deadline {
			s.fail("liveness", "not converged %v after the last publication: %s", convergedWithin/second, why)
			return
		}
		s.runTo(s.now + 100*ms)
	}
}

// writable: every shard acknowledged something that began after the faults ended.
func (s *sim) writable(since int64) bool {
	for _, shard := range s.shards {
		if s.lastAck[shard] <= since {
			return false
		}
	}
	return true
}

// stuck says what the replicas of a shard without acknowledgement are about.
func (s *sim) stuck() string {
	var b strings.Builder
	for _, g := range s.plan.groups {
		fmt.Fprintf(&b, "\n  group %d, latest acknowledged publication began %.3f s", g.group, float64(s.lastAck[g.group-1])/float64(second))
		for _, n := range s.all() {
			if l := s.check.before(n, g.group); l.state.Replica != 0 {
				fmt.Fprintf(&b, "\n    node %d up %v: replica %d term %d applied %d of %d, %s, open %v",
					n.id, n.up, l.state.Replica, l.hard.GetTerm(), l.state.Applied, l.last, confString(l.state.Conf), n.leading[g.group-1] != nil)
			}
		}
	}
	return b.String()
}

// diverged says what is still unequal or undelivered; "" when all is done.
func (s *sim) diverged() string {
	for _, c := range s.clients {
		if c.req != nil && !c.req.done {
			return fmt.Sprintf("%s is not answered%s", c.req.id, s.stuck())
		}
	}
	for _, g := range s.plan.groups {
		truth := s.plan.truth(g)
		if joint(truth.Conf) {
			return "a joint configuration" + s.stuck()
		}
		for _, v := range members(truth.Conf) {
			r := replicaOf{g.group, v}
			if _, lost := s.wiped[r]; lost {
				return fmt.Sprintf("replica %d is lost and not replaced%s", v, s.stuck())
			}
			n := s.nodes[s.check.home[r]]
			if n == nil {
				return fmt.Sprintf("replica %d is nowhere%s", v, s.stuck())
			}
			st := s.check.before(n, g.group).state
			if st.Applied != truth.Applied || st.Hash != truth.Hash {
				return fmt.Sprintf("node %d has applied %d of %d%s", n.id, st.Applied, truth.Applied, s.stuck())
			}
			s.check.complete(n, g.group-1)
		}
	}
	for _, shard := range s.shards {
		for stream := range uint32(streamsPerShard) {
			d := s.devices[[2]uint32{shard, stream}]
			if head := s.check.heads[[2]uint32{d.shard, d.stream}]; d.last != head {
				return fmt.Sprintf("the device of shard %d stream %d has %d of %d", d.shard, d.stream, d.last, head)
			}
		}
	}
	return s.busy()
}

// busy: at rest nothing may be accounted as in flight, and no effect or read may wait.
func (s *sim) busy() string {
	for _, n := range s.running() {
		if left := n.host.budget.all.Load(); left != 0 {
			return fmt.Sprintf("node %d accounts for %d bytes in flight", n.id, left)
		}
		for _, shard := range n.sortedShards() {
			if a := n.leading[shard]; len(a.gate) > 0 || len(a.reads) > streamsPerShard {
				return fmt.Sprintf("node %d shard %d: %d effects and %d reads wait", n.id, shard, len(a.gate), len(a.reads))
			}
		}
	}
	return ""
}

// complete: what was acknowledged is on this replica, unless the device had it.
func (c *checker) complete(n *vnode, shard uint32) {
	for _, k := range c.s.ackedOf(shard) {
		row, _, err := n.disk.Get(shard, dedupeKey(k.stream, k.id))
		c.s.must(err)
		head, _, err := n.disk.Get(shard, headKey(k.stream))
		c.s.must(err)
		entry, ok, err := n.disk.Get(shard, entryKey(k.stream, c.acked[k]))
		c.s.must(err)
		off := c.acked[k]
		if number(row, 0) != off || off > number(head, 1) && (!ok || bodyID(entry) != k.id) {
			c.s.fail("I9 acked set", "node %d lacks the acknowledged %v at offset %d", n.id, k, off)
			return
		}
	}
}
