package meta

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// score is the rendezvous hash: of equal candidates the highest is taken, so that groups differ.
func score(group uint32, node uint64) uint64 {
	var b [12]byte
	binary.BigEndian.PutUint32(b[:], group)
	binary.BigEndian.PutUint64(b[4:], node)
	return xxhash.Sum64(b[:])
}

// Why a group wants a move; the smaller goes first.
const (
	replaceLost = iota
	rise
	empty // a node that is drained
	lower
	second // a learner on the second of two nodes
	wants
)

// place begins moves: first those that groups need, then those that spread them better.
func (p *planner) place() {
	var begins [wants][]Begin
	needed := false
	for i := range p.groups {
		if v := &p.groups[i]; !v.busy {
			if b, why := p.want(v); why < wants {
				begins[why] = append(begins[why], b)
				needed = needed || why < second
			}
		}
	}
	for _, of := range begins {
		for _, b := range of {
			p.refresh(&b)
			p.begin(b)
		}
	}
	if !needed {
		p.spread()
	}
}

// refresh picks a Begin's nodes anew: those before it took some.
func (p *planner) refresh(b *Begin) {
	if len(b.Nodes) > 0 && !b.Learner {
		b.Nodes = p.pick(&p.groups[b.Group], len(b.Nodes), b.Remove)
	}
}

// begin starts a move unless too many learners are on their way.
func (p *planner) begin(b Begin) bool {
	for _, n := range b.Nodes {
		if p.inbound[n] >= perNode {
			return false
		}
	}
	if p.coming+len(b.Nodes) > perCluster && len(b.Nodes) > 0 {
		return false
	}
	v := &p.groups[b.Group]
	for _, n := range b.Nodes {
		p.inbound[n]++
		p.coming++
		if v.id != 0 {
			p.load[n]++
		}
	}
	for _, id := range b.Remove {
		if v.id != 0 {
			p.load[v.g.find(id).Node]--
		}
	}
	v.busy = true
	p.do(b)
	return true
}

// want says which move a group needs; wants: none.
func (p *planner) want(v *view) (Begin, int) {
	var going, staying []Replica
	var learners, useless []uint64
	full := p.full(v.id)
	for _, r := range v.g.Replicas {
		switch {
		case r.Voter && p.leaving(r.Node):
			going = append(going, r)
		case r.Voter:
			staying = append(staying, r)
		case p.usable(r.Node) && !p.leaving(r.Node):
			learners = append(learners, r.ID)
		case p.leaving(r.Node):
			useless = append(useless, r.ID)
		}
	}
	voters := len(going) + len(staying)
	if len(going) > 0 {
		slices.SortStableFunc(going, func(a, b Replica) int { return cmp.Compare(p.alive(v, a), p.alive(v, b)) })
		return p.replace(v, going, learners, full)
	}
	for _, to := range []int{full, min(full, fullCount)} {
		k := to - voters
		if k <= 0 {
			continue
		}
		promote := learners[:min(k, len(learners))]
		nodes := p.pick(v, k-len(promote), nil)
		if len(promote)+len(nodes) == k && p.healthy(v) {
			return Begin{Group: v.id, Promote: promote, Nodes: nodes}, rise
		}
	}
	if voters < full {
		return Begin{}, wants
	}
	if voters%2 == 0 {
		return p.fewer(v, nil, voters-1)
	}
	if full >= fullCount {
		useless = append(useless, learners...)
	}
	if len(useless) > 0 {
		return Begin{Group: v.id, Remove: useless}, lower
	}
	if full == 1 && len(learners) == 0 && p.healthy(v) {
		if nodes := p.pick(v, 1, nil); len(nodes) > 0 {
			return Begin{Group: v.id, Nodes: nodes, Learner: true}, second
		}
	}
	return Begin{}, wants
}

// alive is 0 for a replica that does not keep up.
func (p *planner) alive(v *view, r Replica) int {
	if p.within(v, &r, keepsUp) {
		return 1
	}
	return 0
}

// touchable says that a change may be made: all voters are healthy, or it removes one that is not.
func (p *planner) touchable(v *view, remove []uint64) bool {
	for _, id := range remove {
		if r := v.g.find(id); r != nil && r.Voter && p.alive(v, *r) == 0 {
			return true
		}
	}
	return p.healthy(v, remove...)
}

// replace puts another voter in the place of the first of those going, or lowers their number.
func (p *planner) replace(v *view, going []Replica, learners []uint64, full int) (Begin, int) {
	out, why := going[0], empty
	if p.alive(v, out) == 0 {
		why = replaceLost
	}
	remove := []uint64{out.ID}
	voters := len(v.g.voters())
	if !p.touchable(v, remove) {
		return Begin{}, wants
	}
	if voters%2 == 0 && voters > full {
		return p.fewer(v, remove, voters-1)
	}
	if len(learners) > 0 {
		return Begin{Group: v.id, Promote: learners[:1], Remove: remove}, why
	}
	if nodes := p.pick(v, 1, remove); len(nodes) > 0 {
		return Begin{Group: v.id, Nodes: nodes, Remove: remove}, why
	}
	if voters > full && (full >= fullCount || p.Nodes[out.Node].Reduce) {
		return p.fewer(v, remove, full)
	}
	return Begin{}, wants
}

// fewer removes voters until so many remain: the given ones, then those on nodes to be emptied, then others. The
// leader is the last to go.
func (p *planner) fewer(v *view, remove []uint64, remain int) (Begin, int) {
	var others []Replica
	for _, r := range v.g.Replicas {
		if r.Voter && !slices.Contains(remove, r.ID) {
			others = append(others, r)
		}
	}
	rank := func(r Replica) int {
		switch {
		case p.leaving(r.Node):
			return 0
		case p.alive(v, r) == 0:
			return 1
		case r.ID != v.leader.ID:
			return 2
		}
		return 3
	}
	slices.SortFunc(others, func(a, b Replica) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(p.load[b.Node], p.load[a.Node]), cmp.Compare(score(v.id, a.Node), score(v.id, b.Node)))
	})
	for len(others) > remain {
		remove, others = append(remove, others[0].ID), others[1:]
	}
	var stay []uint64
	for _, r := range others {
		stay = append(stay, r.ID)
	}
	if !p.majority(v, stay) || !p.touchable(v, remove) {
		return Begin{}, wants
	}
	return Begin{Group: v.id, Remove: remove}, lower
}

// pick finds nodes for k more replicas: in zones that the group is not in, with few replicas, by score.
// It returns fewer if there are no more.
func (p *planner) pick(v *view, k int, remove []uint64) (nodes []uint64) {
	zones := p.zones(v, remove)
	for range k {
		var best uint64
		for _, n := range p.ids {
			if !p.usable(n) || p.leaving(n) || v.g.on(n) != nil || slices.Contains(nodes, n) {
				continue
			}
			if best == 0 || p.better(v.id, zones, n, best) {
				best = n
			}
		}
		if best == 0 {
			break
		}
		nodes = append(nodes, best)
		zones[p.Nodes[best].Zone]++
	}
	return nodes
}

func (p *planner) better(group uint32, zones map[string]int, a, b uint64) bool {
	return cmp.Or(
		cmp.Compare(zones[p.Nodes[a].Zone], zones[p.Nodes[b].Zone]),
		cmp.Compare(p.load[a], p.load[b]),
		cmp.Compare(score(group, b), score(group, a)),
	) < 0
}

// zones counts a group's voters that stay in each zone. Nodes without one are all in the zone "".
func (p *planner) zones(v *view, remove []uint64) map[string]int {
	zones := map[string]int{}
	for _, r := range v.g.Replicas {
		if r.Voter && !slices.Contains(remove, r.ID) {
			zones[p.Nodes[r.Node].Zone]++
		}
	}
	return zones
}
