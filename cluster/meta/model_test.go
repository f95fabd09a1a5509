package meta

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// model is a cluster as meta meets it: nodes that die and come back, groups whose leaders take orders, reports and orders
// that are late, lost or doubled. A step is a second. Raft itself is reduced to: what is committed is on a majority.
type model struct {
	r      *rand.Rand
	bug    string
	zones  int
	at     time.Time
	nodes  map[uint64]*modelNode
	groups []*modelGroup
	state  State
	seen   Reports // of the leader of group 0
	queue  []parcel
	calm   bool                 // faults are over
	lost   map[uint64]bool      // an operator said so
	given  map[[2]uint64]uint64 // group, replica id → node
	wrong  []string
}

type modelNode struct {
	id          uint64
	name, zone  string
	up, dead    bool      // dead: for good
	mute        bool      // its reports do not arrive
	heard       time.Time // by meta
	incarnation uint64
}

type modelGroup struct {
	id     uint32
	last   uint64
	confs  []modelConf
	reps   map[uint64]*modelReplica
	leader uint64
	term   uint64
}

type modelConf struct {
	index                      uint64
	voters, outgoing, learners []uint64
}

type modelReplica struct {
	id, node, applied uint64
	told              uint64 // up to where it knows that it is committed
	caughtAt          time.Time
	everCaught        bool
}

// parcel is something that arrives later.
type parcel struct {
	at time.Time
	do func()
}

func newModel(seed uint64, shards, zones int, bug string) *model {
	m := &model{
		r: rand.New(rand.NewPCG(seed, 1)), bug: bug, zones: zones, at: time.Unix(1_700_000_000, 0), nodes: map[uint64]*modelNode{},
		seen: Reports{}, given: map[[2]uint64]uint64{},
		lost: map[uint64]bool{},
	}
	bear := Bear{Cluster: Cluster{ID: "c", Shards: shards}, Nodes: []Node{{ID: 1, Name: "n1", State: Joining}}}
	for i := range shards + 1 {
		bear.Groups = append(bear.Groups, Group{Replicas: []Replica{{ID: 1, Node: 1, Voter: true}}, Next: 2})
		g := &modelGroup{id: uint32(i), last: 1, confs: []modelConf{{index: 1, voters: []uint64{1}}}, reps: map[uint64]*modelReplica{1: {id: 1, node: 1, applied: 1, told: 1, everCaught: true}}}
		m.groups = append(m.groups, g)
		m.given[[2]uint64{uint64(i), 1}] = 1
	}
	m.add("n1")
	m.commit(bear)
	return m
}

func (m *model) fail(format string, args ...any) {
	if len(m.wrong) < 20 {
		m.wrong = append(m.wrong, fmt.Sprintf("%v: ", m.at.Sub(time.Unix(1_700_000_000, 0)))+fmt.Sprintf(format, args...))
	}
}

func (m *model) add(name string) *modelNode {
	n := &modelNode{id: uint64(len(m.nodes) + 1), name: name, up: true, incarnation: 1}
	if m.zones > 0 {
		n.zone = string(rune('a' + m.r.IntN(m.zones)))
	}
	m.nodes[n.id] = n
	return n
}

func (m *model) commit(c Command) bool {
	next, _, err := m.state.Apply(c, m.at)
	if err != nil {
		return false
	}
	if m.bug == "replica id reuse" {
		if a, ok := c.(Adopt); ok {
			g := &next.Groups[a.Group]
			g.Next = 1
			for _, r := range g.Replicas {
				g.Next = max(g.Next, r.ID+1)
			}
		}
	}
	m.state = next
	return true
}

func (g *modelGroup) conf() *modelConf { return &g.confs[len(g.confs)-1] }

func (g *modelGroup) confOf(r *modelReplica) *modelConf {
	c := &modelConf{}
	for i := range g.confs {
		if g.confs[i].index <= r.told {
			c = &g.confs[i]
		}
	}
	return c
}

func (c *modelConf) raft() *raftpb.ConfState {
	return &raftpb.ConfState{Voters: slices.Clone(c.voters), VotersOutgoing: slices.Clone(c.outgoing), Learners: slices.Clone(c.learners)}
}

func (m *model) live(g *modelGroup, id uint64) bool {
	r := g.reps[id]
	return r != nil && m.nodes[r.node].up
}

// quorum says that most of both halves are live.
func (m *model) quorum(g *modelGroup, c *modelConf) bool {
	for _, half := range [][]uint64{c.voters, c.outgoing} {
		n := 0
		for _, id := range half {
			if m.live(g, id) {
				n++
			}
		}
		if len(half) > 0 && n <= len(half)/2 {
			return false
		}
	}
	return len(c.voters) > 0
}

// replicate puts the last entry on a majority.
func (m *model) replicate(g *modelGroup, c *modelConf) {
	g.reps[g.leader].applied, g.reps[g.leader].told = g.last, g.last
	for _, half := range [][]uint64{c.voters, c.outgoing} {
		has := 0
		for _, i := range m.r.Perm(len(half)) {
			if id := half[i]; m.live(g, id) && (has <= len(half)/2 || m.r.IntN(2) == 0) {
				g.reps[id].applied = g.last
				has++
			}
		}
	}
}

func (m *model) raftStep(g *modelGroup) {
	c := g.conf()
	all := slices.Concat(c.voters, c.outgoing)
	if g.leader != 0 && (!m.live(g, g.leader) || !slices.Contains(all, g.leader) || !m.quorum(g, c)) {
		g.leader = 0
	}
	if g.leader == 0 && m.quorum(g, c) {
		var best *modelReplica
		for _, id := range all {
			if r := g.reps[id]; m.live(g, id) && (best == nil || r.applied > best.applied) {
				best = r
			}
		}
		if best.applied < g.last {
			m.fail("group %d: committed entries are lost: %d of %d, %+v", g.id, best.applied, g.last, *c)
			best.applied = g.last
		}
		g.leader = best.id
		g.term++
	}
	for _, id := range slices.Sorted(maps.Keys(g.reps)) {
		r := g.reps[id]
		if g.leader == 0 || !m.live(g, id) {
			r.caughtAt = time.Time{}
			continue
		}
		if m.calm || id == g.leader || m.r.IntN(3) > 0 {
			r.told = r.applied
		}
		switch {
		case r.applied == 0 && m.r.IntN(3) == 0:
			r.applied, r.told = g.last, g.last // a snapshot
		case r.applied > 0:
			r.applied = min(g.last, r.applied+uint64(m.r.IntN(200)))
		}
		if r.applied+caughtUp < g.last || r.applied == 0 {
			r.caughtAt = time.Time{}
		} else if r.caughtAt.IsZero() {
			r.caughtAt, r.everCaught = m.at, true
		}
	}
	if g.leader == 0 {
		return
	}
	if len(c.outgoing) > 0 && m.r.IntN(3) > 0 {
		g.last++
		g.confs = append(g.confs, modelConf{index: g.last, voters: c.voters, learners: c.learners})
		m.replicate(g, c)
		return
	}
	g.last += uint64(m.r.IntN(30))
	m.replicate(g, c)
}

func (m *model) caught(g *modelGroup, id uint64) bool {
	r := g.reps[id]
	return r != nil && !r.caughtAt.IsZero() && m.at.Sub(r.caughtAt) >= 2*time.Second && m.live(g, id) && r.applied+caughtUp >= g.last
}

// change is what a group's leader does with an order, and what the checkers say of it.
func (m *model) change(o Order) {
	g := m.groups[o.Group]
	leader := g.reps[g.leader]
	if leader == nil || leader.node != o.Node || !m.nodes[o.Node].up {
		return
	}
	c := g.conf()
	if o.Lead != 0 {
		for _, id := range c.voters {
			if r := g.reps[id]; g.term == o.Term && r != nil && r.node == o.Lead && m.live(g, id) && r.applied+caughtUp >= g.last {
				r.applied, g.leader = g.last, id
				g.term++
				return
			}
		}
		return
	}
	ch := o.Change
	if len(c.outgoing) > 0 && m.bug != "two changes at once" {
		return
	}
	if ch.From.Equivalent(c.raft()) != nil && m.bug != "two changes at once" {
		return
	}
	gate := m.bug != "promote without catch-up"
	for _, add := range ch.Add {
		if g.used(add.Replica) && m.bug != "replica id reuse" {
			return
		}
	}
	next := modelConf{index: g.last + 1, voters: slices.Clone(c.voters), learners: slices.Clone(c.learners)}
	for _, add := range ch.Add {
		if g.used(add.Replica) {
			m.fail("I5: group %d: replica id %d again", g.id, add.Replica)
		}
		next.learners = append(next.learners, add.Replica)
	}
	for _, id := range ch.Promote {
		if !m.caught(g, id) && gate {
			return
		}
		if r := g.reps[id]; r == nil || !r.everCaught {
			m.fail("I6: group %d: %d is promoted and never caught up", g.id, id)
		}
		next.learners = without(next.learners, id)
		next.voters = append(next.voters, id)
	}
	for _, id := range ch.Remove {
		if id == g.leader {
			return
		}
		next.voters, next.learners = without(next.voters, id), without(next.learners, id)
	}
	if len(next.voters) == 0 {
		m.fail("group %d: no voter remains", g.id)
		return
	}
	if !m.quorum(g, &modelConf{voters: next.voters}) {
		if gate {
			return
		}
		m.fail("I6: group %d: no live majority in %v", g.id, next.voters)
	}
	if len(c.outgoing) > 0 || ch.From.Equivalent(c.raft()) != nil {
		m.fail("I6: group %d: two changes at once", g.id)
	}
	if !slices.Equal(next.voters, c.voters) {
		next.outgoing = c.voters
	}
	g.last++
	g.confs = append(g.confs, next)
	m.replicate(g, &next)
}

func without(ids []uint64, id uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(ids), func(i uint64) bool { return i == id })
}

// used says that an id was ever in the configuration.
func (g *modelGroup) used(id uint64) bool {
	return slices.ContainsFunc(g.confs, func(c modelConf) bool {
		return slices.Contains(c.voters, id) || slices.Contains(c.learners, id)
	})
}

// hold is what an agent does: a list that was confirmed.
func (m *model) hold(n *modelNode) {
	list := m.state.Holds(n.id)
	for _, g := range m.groups {
		for _, id := range slices.Sorted(maps.Keys(g.reps)) {
			if g.reps[id].node != n.id || list[g.id] == id {
				continue
			}
			if c := g.conf(); slices.Contains(c.voters, id) || slices.Contains(c.outgoing, id) {
				m.fail("group %d: voter %d is destroyed", g.id, id)
			} else if !g.without(id) {
				m.fail("group %d: replica %d is destroyed before a majority knows that it has left", g.id, id)
			}
			delete(g.reps, id)
		}
		id := list[g.id]
		if id == 0 || g.reps[id] != nil {
			continue
		}
		key := [2]uint64{uint64(g.id), id}
		if m.given[key] != 0 {
			m.fail("I5: group %d: replica id %d is created again", g.id, id)
		}
		m.given[key] = n.id
		g.reps[id] = &modelReplica{id: id, node: n.id}
	}
}

// without says that a majority of its voters has the first configuration without a replica, or was destroyed since.
func (g *modelGroup) without(id uint64) bool {
	var last, next *modelConf
	for i := range g.confs {
		c := &g.confs[i]
		if slices.Contains(c.voters, id) || slices.Contains(c.outgoing, id) {
			last, next = c, nil
		} else if next == nil {
			next = c
		}
	}
	if last == nil || next == nil {
		return last == nil // it never voted
	}
	knows := 0
	for _, v := range next.voters {
		if r := g.reps[v]; r == nil || r.told >= next.index {
			knows++
		}
	}
	return knows > len(next.voters)/2
}

func (m *model) report(n *modelNode) Report {
	r := Report{Node: n.id, Incarnation: n.incarnation, Asked: m.at}
	for _, g := range m.groups {
		for _, id := range slices.Sorted(maps.Keys(g.reps)) {
			rep := g.reps[id]
			if rep.node != n.id {
				continue
			}
			rr := ReplicaReport{Group: g.id, ID: id, Term: g.term, Applied: rep.applied, Conf: g.confOf(rep).raft()}
			if m.bug == "destroy before it is known" {
				rr.Conf = g.conf().raft()
			}
			if g.leader == id {
				rr.Open, rr.Behind = g.term, map[uint64]uint64{}
				c := g.conf()
				for _, other := range slices.Concat(c.voters, c.outgoing, c.learners) {
					rr.Behind[other] = g.last
					if o := g.reps[other]; o != nil {
						rr.Behind[other] = g.last - o.applied
					}
					if slices.Contains(c.learners, other) && (m.caught(g, other) || m.bug == "promote without catch-up") {
						rr.CaughtUp = append(rr.CaughtUp, other)
					}
				}
			}
			if m.bug == "promote without catch-up" {
				rr.Applied = max(rr.Applied, 1)
				for other := range rr.Behind {
					rr.Behind[other] = 0
				}
			}
			r.Replicas = append(r.Replicas, rr)
		}
	}
	return r
}
