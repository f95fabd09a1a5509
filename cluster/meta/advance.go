package meta

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/cluster"
	"muster/persistence"
)

// advance brings a group's move further: by what the leader's configuration says, never by what was ordered.
func (p *planner) advance(v *view) {
	if v.leader == nil {
		v.busy = true
		return
	}
	conf, m := v.leader.Conf, v.g.Move
	switch {
	case len(conf.GetVotersOutgoing()) > 0:
		v.busy = true // it leaves the joint configuration by itself
	case foreign(v.g, v.leader):
		v.busy = true
		p.take(v)
	case !same(conf.GetVoters(), v.g.voters()):
		v.busy = true
		p.adopt(v)
	case m == nil:
		p.strays(v)
	case len(m.Add) > 0:
		p.swap(v, m)
	default:
		p.remove(v, m)
	}
}

// foreign says that a leader's group has a history that is not the recorded one: see Take. An id that was never given out
// can only be of such a one.
func foreign(g *Group, leader *ReplicaReport) bool {
	if leader.Generation < g.Generation {
		return false
	}
	return slices.ContainsFunc(leader.Members, func(m persistence.Member) bool { return m.Replica >= g.Next })
}

func (p *planner) take(v *view) {
	cmd := Take{Group: v.id, Term: v.leader.Open, Generation: v.leader.Generation}
	for _, m := range v.leader.Members {
		cmd.Next = max(cmd.Next, m.Replica+1)
		if inConf(v.leader.Conf, m.Replica) {
			cmd.Replicas = append(cmd.Replicas, Replica{ID: m.Replica, Node: m.Node, Voter: slices.Contains(v.leader.Conf.GetVoters(), m.Replica)})
		}
	}
	if p.known(v, cmd.Replicas) {
		p.do(cmd)
	}
}

func same(a, b []uint64) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// adopt lists the leader's configuration: what it does not name may be destroyed.
func (p *planner) adopt(v *view) {
	if conf := v.leader.Conf; p.known(v, v.g.Replicas) {
		p.do(Adopt{Group: v.id, Term: v.leader.Open, Voters: conf.GetVoters(), Learners: conf.GetLearners()})
	}
}

// known says that the leader's configuration is on the disks of a majority of its voters, and of all that keep up: as long as one of
// these is in the joint configuration before it, it may have more of the log than those who left that, and then needs votes of the
// replicas that are to go.
func (p *planner) known(v *view, replicas []Replica) bool {
	conf, has := v.leader.Conf, 0
	for _, r := range replicas {
		if !slices.Contains(conf.GetVoters(), r.ID) {
			continue
		}
		own := p.report(v.id, r)
		switch {
		case own != nil && own.Conf != nil && own.Conf.Equivalent(conf) == nil:
			has++
		case p.alive(v, r) == 1:
			return false
		}
	}
	return has > len(conf.GetVoters())/2
}

// strays are learners that an order added after its move had been given up. Nobody creates them.
func (p *planner) strays(v *view) {
	var ids []uint64
	for _, id := range v.leader.Conf.GetLearners() {
		if v.g.find(id) == nil {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		v.busy = true
		p.change(v, cluster.Change{Remove: ids})
	}
}

// swap adds learners, waits until they have caught up, and makes them voters in place of those who leave.
func (p *planner) swap(v *view, m *Move) {
	conf := v.leader.Conf
	var missing []persistence.Member
	var failed []uint64
	there, ready := true, true
	for _, id := range m.Add {
		r := v.g.find(id)
		in := slices.Contains(conf.GetLearners(), id)
		if p.hopeless(r.Node) || p.now.Sub(time.UnixMilli(m.Since)) > stuckFor && !p.caught(v, r) {
			failed = append(failed, id)
		}
		if !in {
			missing = append(missing, persistence.Member{Replica: id, Node: r.Node})
		}
		there = there && in && p.caught(v, r)
		ready = ready && in && slices.Contains(v.leader.CaughtUp, id) && p.caught(v, r)
	}
	switch {
	case len(failed) > 0:
		p.do(Cancel{Group: v.id, Remove: failed})
	case len(missing) > 0:
		p.change(v, cluster.Change{Add: missing})
	case m.Learner && there:
		p.adopt(v)
	case m.Learner:
	case ready:
		p.promote(v, m)
	}
}

func (p *planner) hopeless(node uint64) bool {
	s := p.Nodes[node].State
	return s != Joining && s != Active
}

// promote makes the joint change, or what must come before it.
func (p *planner) promote(v *view, m *Move) {
	remove := m.Remove
	if !p.touchable(v, remove) {
		if p.lostOne(v) {
			p.do(Cancel{Group: v.id}) // its learners can replace the lost one
		}
		return
	}
	if slices.Contains(remove, v.leader.ID) {
		if to := p.successor(v, remove); to != 0 {
			p.give(v, to)
			return
		}
		remove = nil // the sole voter: it leaves when another can lead
	}
	voters := slices.Concat(v.g.voters(), m.Add)
	voters = slices.DeleteFunc(voters, func(id uint64) bool { return slices.Contains(remove, id) })
	if p.majority(v, voters) {
		p.change(v, cluster.Change{Promote: m.Add, Remove: remove})
	}
}

func (p *planner) lostOne(v *view) bool {
	return slices.ContainsFunc(v.g.Replicas, func(r Replica) bool { return r.Voter && p.leaving(r.Node) && p.alive(v, r) == 0 })
}

// majority says that most of these replicas are alive and keep up.
func (p *planner) majority(v *view, ids []uint64) bool {
	alive := 0
	for _, id := range ids {
		if r := v.g.find(id); r != nil && p.within(v, r, keepsUp) {
			alive++
		}
	}
	return alive > len(ids)/2
}

// remove is a move without new voters.
func (p *planner) remove(v *view, m *Move) {
	var left []uint64
	for _, id := range m.Remove {
		if inConf(v.leader.Conf, id) {
			left = append(left, id)
		}
	}
	switch {
	case len(left) == 0:
		p.adopt(v)
	case p.now.Sub(time.UnixMilli(m.Since)) > stuckFor:
		p.do(Cancel{Group: v.id})
	case slices.Contains(left, v.leader.ID):
		if to := p.successor(v, left); to != 0 {
			p.give(v, to)
		}
	default:
		voters := slices.DeleteFunc(v.g.voters(), func(id uint64) bool { return slices.Contains(left, id) })
		if len(voters) > 0 && p.majority(v, voters) {
			p.change(v, cluster.Change{Remove: left})
		}
	}
}

func inConf(c *raftpb.ConfState, id uint64) bool {
	return slices.Contains(c.GetVoters(), id) || slices.Contains(c.GetLearners(), id)
}

// successor is the node to lead next: of the voters that stay and have caught up, one that leads few.
func (p *planner) successor(v *view, without []uint64) (to uint64) {
	leads := p.leads()
	for i := range v.g.Replicas {
		r := &v.g.Replicas[i]
		if !r.Voter || r.ID == v.leader.ID || slices.Contains(without, r.ID) || !p.mayLead(r.Node) || !p.caught(v, r) {
			continue
		}
		if to == 0 || leads[r.Node] < leads[to] || leads[r.Node] == leads[to] && score(v.id, r.Node) > score(v.id, to) {
			to = r.Node
		}
	}
	return to
}

func (p *planner) change(v *view, c cluster.Change) {
	c.From = v.leader.Conf
	p.orders = append(p.orders, Order{Node: v.node, Group: v.id, Term: v.leader.Open, Change: &c})
}

func (p *planner) give(v *view, to uint64) {
	p.orders = append(p.orders, Order{Node: v.node, Group: v.id, Term: v.leader.Open, Lead: to})
}
