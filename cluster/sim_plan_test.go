package cluster

import (
	"errors"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

const birthTerm = 1_700_000_000

// birth makes the cluster: some nodes, and every shard on three of them or on one.
func (s *sim) birth() {
	s.real = s.seed%50 == 0 && s.bugs == simBugs{} && !s.quiet
	s.shards = pick(s, [][]uint32{{0}, {0, 1}, {0, 1}, {MetaShard, 0}}) // MetaShard is group 0
	s.logEntries = pick(s, []uint64{8, 24, 100, 4096})
	nodes := pick(s, []int{3, 3, 4, 5, 5})
	if s.quiet {
		nodes = 3
	}
	for range nodes {
		s.addNode()
	}
	s.logBytes = pick(s, []uint64{0, 0, 20_000})
	s.farewell = s.rnd.IntN(2) == 0
	s.inFlight = pick(s, []int64{0, 0, 200})
	voters := pick(s, []int{1, 3, 3, 3, 3, 3, nodes - 1 + nodes%2})
	if s.quiet {
		s.farewell, voters = false, 3
	}
	for _, shard := range s.shards {
		group := shard + 1
		order := s.all()
		s.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		var ms []persistence.Member
		conf := &raftpb.ConfState{}
		for i := range voters {
			ms = append(ms, persistence.Member{Replica: uint64(i + 1), Node: order[i].id})
			conf.Voters = append(conf.Voters, uint64(i+1))
		}
		for i, m := range ms {
			state := persistence.State{
				Applied: 1, AppliedTerm: birthTerm, Truncated: 1, TruncatedTerm: birthTerm,
				Conf: conf, Members: ms, Replica: m.Replica, At: birthTerm * 1000,
			}
			hard := &raftpb.HardState{Term: new(uint64(birthTerm)), Vote: new(uint64(0)), Commit: new(uint64(1))}
			order[i].put([]persistence.Update{{Group: group, Hard: hard, State: &state}})
			s.must(order[i].disk.sync())
		}
		s.plan.groups = append(s.plan.groups, &groupPlan{group: group, replica: uint64(voters), want: max(voters, 1)})
	}
	for _, n := range s.all() {
		n.start()
	}
}

func (s *sim) addNode() *vnode {
	s.nextNode++
	s.nextDisk++
	n := &vnode{sim: s, id: s.nextNode, diskID: s.nextDisk, dieAt: -1, slow: pick(s, []int64{1, 1, 5, 40}) * ms}
	if s.real {
		n.disk = newRealDisk(s, n)
	} else {
		n.disk = newModelDisk(&s.bugs)
	}
	s.nodes[n.id] = n
	return n
}

// planner is the meta group in miniature: the one mind that changes memberships. It knows
// what the groups' leaders tell it, and tells nodes which replicas to create and to destroy.
type planner struct {
	s      *sim
	groups []*groupPlan
}

type groupPlan struct {
	group   uint32
	replica uint64 // highest id given out
	want    int    // voters
	move    *move
}

// move swaps replicas in: learners first, then one joint change.
type move struct {
	add    []persistence.Member
	remove []uint64
	began  int64
	giveUp bool
}

func newPlanner(s *sim) *planner { return &planner{s: s} }

// move begins a change of some group's members.
func (p *planner) move() {
	g := pick(p.s, p.groups)
	if g.move != nil {
		return
	}
	switch grow := p.s.rnd.IntN(2) == 0; {
	case g.want < 3 && len(p.s.nodes) >= 3:
		g.want = 3
		return
	case grow && g.want == 3 && len(p.s.nodes) >= 5:
		g.want = 5
		p.s.grown++
		return
	case grow && g.want == 5:
		g.want = 3
		return
	}
	if st := p.truth(g); st != nil {
		p.swap(g, st, pick(p.s, st.Conf.GetVoters()))
	}
}

// truth is the newest applied state of the group on any disk.
func (p *planner) truth(g *groupPlan) *persistence.State {
	var best *persistence.State
	for _, n := range p.s.all() {
		if l := p.s.check.before(n, g.group); l.state.Replica != 0 && (best == nil || l.state.Applied > best.Applied) {
			best = &l.state
		}
	}
	return best
}

// swap plans to put a fresh replica in the place of an old one; old 0: to add one.
func (p *planner) swap(g *groupPlan, st *persistence.State, old ...uint64) {
	s, count := p.s, max(1, g.want-len(st.Conf.GetVoters()))
	free := slices.DeleteFunc(s.all(), func(n *vnode) bool {
		return !n.up || slices.ContainsFunc(st.Members, func(m persistence.Member) bool { return m.Node == n.id })
	})
	if len(free) < count {
		return
	}
	s.rnd.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	mv := &move{remove: old, began: s.now}
	for i := range count {
		g.replica++
		mv.add = append(mv.add, persistence.Member{Replica: p.id(g, st), Node: free[i].id})
	}
	g.move = mv
	s.log("plan: group %d adds %v, removes %v", g.group, mv.add, mv.remove)
}

// id is fresh, but for the bug.
func (p *planner) id(g *groupPlan, st *persistence.State) uint64 {
	if p.s.bugs.reuseReplica {
		for id := uint64(1); id < g.replica; id++ {
			if !inConf(st.Conf, id) {
				g.replica--
				return id
			}
		}
	}
	return g.replica
}

// step drives every plan a little.
func (p *planner) step() {
	s := p.s
	s.after(50*ms+s.rnd.Int64N(50*ms), p.step)
	for _, g := range p.groups {
		st := p.truth(g)
		if st == nil {
			continue
		}
		p.sweep(g, st)
		if g.move == nil {
			p.mend(g, st)
			continue
		}
		p.drive(g, st)
	}
}

// mend replaces voters whose disk is gone, removes learners nobody wants, and grows to what is wanted.
func (p *planner) mend(g *groupPlan, st *persistence.State) {
	if len(st.Conf.GetVotersOutgoing()) > 0 {
		return
	}
	for _, l := range st.Conf.GetLearners() {
		g.move = &move{remove: []uint64{l}, began: p.s.now, giveUp: true}
		return
	}
	for _, v := range st.Conf.GetVoters() {
		if _, ok := p.s.wiped[replicaOf{g.group, v}]; ok {
			p.swap(g, st, v)
			return
		}
	}
	switch voters := st.Conf.GetVoters(); {
	case len(voters) < g.want:
		p.swap(g, st)
	case len(voters) > g.want:
		g.move = &move{remove: voters[:len(voters)-g.want], began: p.s.now, giveUp: true}
	}
}

func (p *planner) drive(g *groupPlan, st *persistence.State) {
	s, mv := p.s, g.move
	joined, voting, left := 0, 0, 0
	for _, m := range mv.add {
		if slices.Contains(st.Conf.GetLearners(), m.Replica) {
			joined++
		}
		if slices.Contains(st.Conf.GetVoters(), m.Replica) {
			voting++
		}
	}
	for _, r := range mv.remove {
		if !inConf(st.Conf, r) {
			left++
		}
	}
	if voting == len(mv.add) && left == len(mv.remove) && !joint(st.Conf) {
		s.moves++
		g.move = nil
		return
	}
	if voting == 0 && left == 0 && p.hopeless(g, st) {
		s.log("plan: group %d gives up", g.group)
		g.move = nil // mend removes what was added
		return
	}
	for _, m := range mv.add {
		p.create(g, st, m)
	}
	change := Change{From: st.Conf}
	switch {
	case mv.giveUp:
		change.Remove = mv.remove
	case joined == 0 && voting == 0:
		change.Add = mv.add
	default:
		for _, m := range mv.add {
			change.Promote = append(change.Promote, m.Replica)
		}
		change.Remove = mv.remove
	}
	p.propose(g, change)
}

// hopeless: a node to join lost its disk, the plan takes too long, or a learner of a plan that was given up has come after all.
func (p *planner) hopeless(g *groupPlan, st *persistence.State) bool {
	mv := g.move
	lost := func(m persistence.Member) bool { return p.s.nodes[m.Node] == nil }
	stray := func(learner uint64) bool {
		return !slices.ContainsFunc(mv.add, func(m persistence.Member) bool { return m.Replica == learner })
	}
	return p.s.now-mv.began > 6*second || slices.ContainsFunc(mv.add, lost) || !mv.giveUp && slices.ContainsFunc(st.Conf.GetLearners(), stray)
}

// create tells a node to make its replica; with caution: only while the plan stands.
func (p *planner) create(g *groupPlan, st *persistence.State, m persistence.Member) {
	n := p.s.nodes[m.Node]
	if n == nil || !n.up || p.s.check.before(n, g.group).state.Replica == m.Replica || p.s.bugs.promoteUncaught {
		return
	}
	n.input(func() {
		if g.move != nil && slices.Contains(g.move.add, m) {
			if err := n.host.Create(g.group, m.Replica); err != nil && !errors.Is(err, ErrRetired) {
				p.s.fail("planner", "node %d creates replica %d of group %d: %v", n.id, m.Replica, g.group, err)
			}
		}
	})
}

func (p *planner) propose(g *groupPlan, c Change) {
	s := p.s
	for _, n := range s.running() {
		if n.leading[g.group-1] == nil {
			continue
		}
		n.input(func() {
			own := p.s.check.before(n, g.group).state.Replica
			if slices.Contains(c.Remove, own) {
				_ = n.host.Transfer(g.group-1, 0)
				return
			}
			err := n.host.Change(g.group, c)
			if err == nil {
				s.log("node %d proposes for group %d: add %v promote %v remove %v", n.id, g.group, c.Add, c.Promote, c.Remove)
				s.check.promoted(n, g.group, c)
			}
		})
	}
}

// sweep tells nodes to destroy replicas that are removed and have not heard of it.
func (p *planner) sweep(g *groupPlan, st *persistence.State) {
	for _, n := range p.s.running() {
		own := p.s.check.before(n, g.group).state.Replica
		if own == 0 || inConf(st.Conf, own) || p.coming(g, own) || !p.final(g, st) {
			continue
		}
		n.input(func() {
			if p.s.check.before(n, g.group).state.Replica == own {
				n.host.Destroy(g.group, own+1)
			}
		})
	}
}

// final: a majority of the voters has the configuration for good.
func (p *planner) final(g *groupPlan, st *persistence.State) bool {
	has := 0
	for _, v := range st.Conf.GetVoters() {
		if n := p.s.nodes[p.s.check.home[replicaOf{g.group, v}]]; n != nil {
			if own := p.safe(n, g.group); own.Replica == v && confString(own.Conf) == confString(st.Conf) {
				has++
			}
		}
	}
	return !joint(st.Conf) && has > len(st.Conf.GetVoters())/2
}

// safe is a replica's state after a power loss.
func (p *planner) safe(n *vnode, group uint32) persistence.State {
	if d, ok := n.disk.(*modelDisk); ok {
		if g := d.safe.groups[group]; g != nil {
			return g.state
		}
		return persistence.State{}
	}
	return p.s.check.before(n, group).state
}

// quorate: both halves of a configuration have a majority of replicas that are there, without the node.
func (p *planner) quorate(group uint32, c *raftpb.ConfState, without *vnode) bool {
	for _, half := range [][]uint64{c.GetVoters(), c.GetVotersOutgoing()} {
		there := 0
		for _, v := range half {
			n := p.s.nodes[p.s.check.home[replicaOf{group, v}]]
			if n != nil && n != without && p.safe(n, group).Replica == v {
				there++
			}
		}
		if len(half) > 0 && there <= len(half)/2 {
			return false
		}
	}
	return true
}

func (p *planner) coming(g *groupPlan, replica uint64) bool {
	return g.move != nil && slices.ContainsFunc(g.move.add, func(m persistence.Member) bool { return m.Replica == replica })
}

// spares says that every group keeps a majority of voters on whole disks without the node, in each configuration that
// one of its replicas has on the platter: a loss counts as the only one when the one before is mended for good.
func (p *planner) spares(n *vnode) bool {
	if len(p.s.nodes) < 3 {
		return false
	}
	for _, g := range p.groups {
		st := p.truth(g)
		if st == nil || joint(st.Conf) || p.changing(g, n) {
			return false
		}
		whole := 0
		for _, v := range st.Conf.GetVoters() {
			_, lost := p.s.wiped[replicaOf{g.group, v}]
			if !lost && p.s.check.home[replicaOf{g.group, v}] != n.id {
				whole++
			}
		}
		if whole <= len(st.Conf.GetVoters())/2 {
			return false
		}
	}
	return true
}

// changing: the group's configuration is not settled, or some disk does not know it for good and would miss the node.
func (p *planner) changing(g *groupPlan, without *vnode) bool {
	if g.move != nil {
		return true
	}
	truth := p.truth(g)
	for _, n := range p.s.all() {
		l := p.s.check.before(n, g.group)
		if l.state.Replica == 0 {
			continue
		}
		if l.last > l.state.Applied {
			es, err := n.disk.Entries(g.group, max(l.first, l.state.Applied+1), l.last+1, 1<<40)
			if err != nil || slices.ContainsFunc(es, func(e *raftpb.Entry) bool {
				return e.GetType() != raftpb.EntryNormal && e.GetIndex() > truth.Applied
			}) {
				return true
			}
		}
		safe := p.safe(n, g.group)
		if n != without && inConf(truth.Conf, safe.Replica) && confString(safe.Conf) != confString(truth.Conf) {
			if !p.quorate(g.group, safe.Conf, without) {
				return true
			}
		}
	}
	return false
}
