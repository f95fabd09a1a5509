package meta

import (
	"maps"
	"slices"
	"time"
)

const (
	freshFor  = 3 * time.Second  // how long a report counts
	downAfter = 10 * time.Second // without a report
	lostAfter = 5 * time.Minute  // of being down
	lostQuiet = time.Minute      // without a report to this leader of group 0, before it calls a node lost
	steadyFor = 10 * time.Second // a node must be active, and its process run, before it is given leaderships for balance
	stuckFor  = 10 * time.Minute // a learner that has not caught up by then is given up

	caughtUp   = 64   // entries a replica may lack that is promoted or becomes leader
	keepsUp    = 4096 // entries a healthy voter may lack
	perNode    = 2    // learners of a node that have not caught up
	perCluster = 4    // of all nodes
	fullCount  = 3    // voters of a shard
	metaCount  = 5    // voters of group 0, from so many nodes on
)

// Step is what Plan wants: a Command to commit, or an Order for a node.
type Step interface{ step() }

// Reports are the newest of each node, by node id. A node that has not reported to this leader of group 0 has an
// empty one, asked when the leader began to wait for it.
type Reports map[uint64]Report

// Plan makes the next steps. It is pure: equal inputs give equal steps. Commands come first; orders must
// not leave before the commands of their plan are committed. Orders for leaderships are not throttled.
func Plan(s State, reports Reports, now time.Time) []Step {
	p := newPlanner(s, reports, now)
	p.markNodes()
	p.observe()
	for i := range p.groups {
		p.advance(&p.groups[i])
	}
	p.place()
	p.lead()
	p.latch()
	p.raise()
	for _, o := range p.orders {
		p.steps = append(p.steps, o)
	}
	return p.steps
}

// newPlanner knows what the reports say of the groups when observe has returned.
func newPlanner(s State, reports Reports, now time.Time) *planner {
	p := &planner{State: s, reports: reports, now: now, load: map[uint64]int{}, inbound: map[uint64]int{}}
	p.ids = slices.Sorted(maps.Keys(s.Nodes))
	return p
}

type planner struct {
	State
	reports Reports
	now     time.Time
	ids     []uint64 // of all nodes, sorted
	groups  []view
	load    map[uint64]int // replicas of shards on a node that will stay
	inbound map[uint64]int // learners of a node that have not caught up
	coming  int            // of all nodes
	steps   []Step
	orders  []Order
}

// view is a group with what its leader reports.
type view struct {
	id     uint32
	g      *Group
	node   uint64         // of the leader
	leader *ReplicaReport // nil: unknown
	busy   bool           // something is in flight or was begun in this plan
}

func (p *planner) do(c Command) { p.steps = append(p.steps, c) }

func (p *planner) fresh(node uint64) bool {
	r, ok := p.reports[node]
	return ok && r.Node == node && r.Incarnation != 0 && p.now.Sub(r.Asked) <= freshFor
}

// usable nodes can be given replicas and leaderships.
func (p *planner) usable(node uint64) bool {
	return p.Nodes[node].State == Active && p.fresh(node)
}

// mayLead says that a node can be given leaderships. One that is about to end would keep a shard closed for a second.
func (p *planner) mayLead(node uint64) bool { return p.usable(node) && !p.reports[node].Yields }

// steady nodes take part in the balance of leaderships.
func (p *planner) steady(node uint64) bool {
	up := time.Duration(p.reports[node].UpMs) * time.Millisecond
	return p.mayLead(node) && p.now.Sub(time.UnixMilli(p.Nodes[node].Since)) >= steadyFor && (up == 0 || up >= steadyFor)
}

// leaving nodes are to lose their replicas.
func (p *planner) leaving(node uint64) bool {
	n := p.Nodes[node]
	return n.State == 0 || n.State == Lost || n.State == Left || n.Drain
}

// full is how many voters a group should have; it counts nodes that are down, for they may come back.
func (p *planner) full(group uint32) int {
	n := 0
	for _, id := range p.ids {
		if s := p.Nodes[id].State; (s == Active || s == Down) && !p.leaving(id) {
			n++
		}
	}
	switch {
	case group == 0 && n >= metaCount:
		return metaCount
	case n >= fullCount:
		return fullCount
	}
	return 1
}

func (p *planner) markNodes() {
	for _, id := range p.ids {
		n := p.Nodes[id]
		r, heard := p.reports[id]
		silent := p.now.Sub(r.Asked)
		since := p.now.Sub(time.UnixMilli(n.Since))
		switch {
		case !heard || n.State == Left || n.Superseded:
		case p.fresh(id) && (n.State == Joining || n.State == Down || n.State == Lost):
			p.mark(id, Active)
		case silent > downAfter && (n.State == Joining || n.State == Active || n.State == Draining):
			p.mark(id, Down)
		case n.State == Down && since >= lostAfter && silent >= lostQuiet:
			p.mark(id, Lost)
		case n.State == Draining && p.fresh(id) && len(r.Replicas) == 0 && len(p.Holds(id)) == 0:
			p.mark(id, Left)
		}
	}
}

// mark also lets the rest of the plan know.
func (p *planner) mark(id uint64, to NodeState) {
	cmd := Mark{Node: id, To: to}
	next, _, err := p.Apply(cmd, p.now)
	if err != nil {
		return
	}
	p.State = next
	p.do(cmd)
}

func (p *planner) observe() {
	p.groups = make([]view, len(p.Groups))
	for i := range p.Groups {
		g := &p.Groups[i]
		p.groups[i] = view{id: uint32(i), g: g, busy: g.Move != nil}
		if i == 0 {
			continue
		}
		for _, r := range g.Replicas {
			if g.Move == nil || !slices.Contains(g.Move.Remove, r.ID) {
				p.load[r.Node]++
			}
		}
	}
	for _, id := range p.ids {
		if !p.fresh(id) {
			continue
		}
		report := p.reports[id]
		for i := range report.Replicas {
			r := &report.Replicas[i]
			if r.Open == 0 || int(r.Group) >= len(p.groups) || r.Conf == nil {
				continue
			}
			v := &p.groups[r.Group]
			if at := v.g.find(r.ID); (at == nil || at.Node != id) && !foreign(v.g, r) {
				continue // of a history that is over
			}
			if r.Open >= v.g.Term && (v.leader == nil || r.Open > v.leader.Open) {
				v.leader, v.node = r, id
			}
		}
	}
	for i := range p.groups {
		p.count(&p.groups[i])
	}
}

// count notes the learners that have not caught up. One that is forgotten on a silent node holds up nobody; a new leader of group 0
// counts it until the node had time to report.
func (p *planner) count(v *view) {
	for i := range v.g.Replicas {
		r := &v.g.Replicas[i]
		moving := v.g.Move != nil && slices.Contains(v.g.Move.Add, r.ID)
		awaited := p.now.Sub(p.reports[r.Node].Asked) <= freshFor
		if !r.Voter && (moving || awaited) && !p.caught(v, r) {
			p.inbound[r.Node]++
			p.coming++
		}
	}
}

// report of a replica, if its node's is fresh and it is there.
func (p *planner) report(group uint32, r Replica) *ReplicaReport {
	if !p.fresh(r.Node) {
		return nil
	}
	all := p.reports[r.Node].Replicas
	for i := range all {
		if all[i].Group == group && all[i].ID == r.ID {
			return &all[i]
		}
	}
	return nil
}

// caught says that a replica lacks little of what the leader has.
func (p *planner) caught(v *view, r *Replica) bool { return p.within(v, r, caughtUp) }

func (p *planner) within(v *view, r *Replica, most uint64) bool {
	own := p.report(v.id, *r)
	if own == nil || own.Applied == 0 || v.leader == nil {
		return false
	}
	behind, known := v.leader.Behind[r.ID]
	return r.ID == v.leader.ID || known && behind <= most
}

// healthy says that all voters but some keep up.
func (p *planner) healthy(v *view, but ...uint64) bool {
	if v.leader == nil {
		return false
	}
	for i := range v.g.Replicas {
		r := &v.g.Replicas[i]
		if r.Voter && !slices.Contains(but, r.ID) && !p.within(v, r, keepsUp) {
			return false
		}
	}
	return true
}

// latch ends NotReady of a birth with Expect.
func (p *planner) latch() {
	if p.Cluster.Whole || p.Cluster.Expect == 0 {
		return
	}
	want := min(p.Cluster.Expect, fullCount)
	if want == 2 {
		want = 1
	}
	for _, g := range p.Groups[1:] {
		if len(g.voters()) < want {
			return
		}
	}
	p.do(Latch{})
}

// raise lets records be written in the next version when every node knows it. One that is down may be of an older build.
func (p *planner) raise() {
	next, known := p.Cluster.Writes()+1, 0
	for _, id := range p.ids {
		n := p.Nodes[id]
		switch {
		case n.State == Left || n.State == Lost:
		case n.Records.Newest() < next || !p.fresh(id):
			return
		default:
			known++
		}
	}
	if known > 0 {
		p.do(Raise{next})
	}
}
