package meta

import (
	"cmp"
	"slices"
)

// maxLeads is how many leaderships one plan moves for balance.
const maxLeads = 4

// spread moves replicas to where there are fewer. Each move makes a group stand in more zones, or, in as many,
// brings two nodes' counts closer: so it ends.
func (p *planner) spread() {
	for i := range p.groups {
		p.spreadZones(&p.groups[i])
	}
	for p.coming < perCluster && p.level() {
	}
}

func (p *planner) movable(v *view) bool { return !v.busy && p.healthy(v) && len(v.g.Replicas) > 1 }

func (p *planner) spreadZones(v *view) {
	if !p.movable(v) {
		return
	}
	zones := p.zones(v, nil)
	for _, r := range v.g.Replicas {
		if !r.Voter || zones[p.Nodes[r.Node].Zone] < 2 {
			continue
		}
		nodes := p.pick(v, 1, []uint64{r.ID})
		if len(nodes) > 0 && zones[p.Nodes[nodes[0]].Zone] == 0 {
			p.begin(Begin{Group: v.id, Nodes: nodes, Remove: []uint64{r.ID}})
			return
		}
	}
}

// level begins one move from a node to one that has two fewer at least; false: there is none.
func (p *planner) level() bool {
	var nodes []uint64
	for _, n := range p.ids {
		if p.usable(n) && !p.leaving(n) {
			nodes = append(nodes, n)
		}
	}
	slices.SortStableFunc(nodes, func(a, b uint64) int { return cmp.Compare(p.load[a], p.load[b]) })
	for i := len(nodes) - 1; i > 0; i-- {
		for _, to := range nodes[:i] {
			from := nodes[i]
			if p.load[from]-p.load[to] < 2 || p.inbound[to] >= perNode {
				continue
			}
			if v, out := p.shift(from, to); v != nil {
				return p.begin(Begin{Group: v.id, Nodes: []uint64{to}, Remove: []uint64{out}})
			}
		}
	}
	return false
}

// shift finds the group whose replica should go from one node to another.
func (p *planner) shift(from, to uint64) (best *view, out uint64) {
	for i := 1; i < len(p.groups); i++ {
		v := &p.groups[i]
		r := v.g.on(from)
		if r == nil || !r.Voter || v.g.on(to) != nil || !p.movable(v) {
			continue
		}
		if zones := p.zones(v, []uint64{r.ID}); zones[p.Nodes[to].Zone] > zones[p.Nodes[from].Zone] {
			continue
		}
		if best == nil || score(v.id, to) > score(best.id, to) {
			best, out = v, r.ID
		}
	}
	return best, out
}

// leads counts the shards that each node leads.
func (p *planner) leads() map[uint64]int {
	leads := map[uint64]int{}
	for i := range p.groups {
		if v := &p.groups[i]; v.leader != nil && v.id != 0 {
			leads[v.node]++
		}
	}
	return leads
}

// lead moves leaderships: away from nodes to be emptied, then to where there are fewer.
func (p *planner) lead() {
	for i := range p.groups {
		v := &p.groups[i]
		if v.leader == nil || v.busy || !p.leaving(v.node) {
			continue
		}
		if to := p.successor(v, nil); to != 0 {
			p.give(v, to)
			v.node, v.busy = to, true
		}
	}
	leads, given := p.leads(), 0
	for given < maxLeads {
		way := p.way(leads)
		if len(way) == 0 {
			return
		}
		for _, s := range way {
			p.give(s.v, s.to)
			leads[s.v.node]--
			leads[s.to]++
			s.v.busy = true
			given++
		}
	}
}

// hop gives one leadership to a node.
type hop struct {
	v  *view
	to uint64
}

// way is a chain of hops from a node to one that leads two fewer at least, the widest gap first.
func (p *planner) way(leads map[uint64]int) []hop {
	var nodes []uint64
	for _, n := range p.ids {
		if p.steady(n) {
			nodes = append(nodes, n)
		}
	}
	slices.SortStableFunc(nodes, func(a, b uint64) int { return cmp.Compare(leads[a], leads[b]) })
	for i := len(nodes) - 1; i > 0; i-- {
		for _, to := range nodes[:i] {
			if leads[nodes[i]]-leads[to] < 2 {
				break
			}
			if way := p.path(nodes, nodes[i], to); way != nil {
				return way
			}
		}
	}
	return nil
}

// path is the shortest chain, by breadth first.
func (p *planner) path(nodes []uint64, from, to uint64) []hop {
	came := map[uint64][]hop{from: {}}
	for queue := []uint64{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, next := range nodes {
			if _, seen := came[next]; seen {
				continue
			}
			v := p.edge(at, next)
			if v == nil {
				continue
			}
			came[next] = append(slices.Clone(came[at]), hop{v, next})
			if next == to {
				return came[next]
			}
			queue = append(queue, next)
		}
	}
	return nil
}

// edge is the group led by a node that another should lead, the one of the highest score there.
func (p *planner) edge(from, to uint64) (best *view) {
	for i := 1; i < len(p.groups); i++ {
		v := &p.groups[i]
		if v.leader == nil || v.busy || v.node != from {
			continue
		}
		r := v.g.on(to)
		if r == nil || !r.Voter || !p.caught(v, r) || best != nil && score(v.id, to) <= score(best.id, to) {
			continue
		}
		best = v
	}
	return best
}
