package cluster

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"muster/persistence"
)

type progress = tracker.Progress

// maxBehind is how many committed entries a learner may lack when it is promoted.
const maxBehind = 64

// Change is one planned step of a group's configuration: learners to add, or learners to
// promote and replicas to remove in one joint change.
type Change struct {
	From    *raftpb.ConfState    // the plan starts from it and is refused on another
	Add     []persistence.Member // as learners, with ids the group never had
	Promote []uint64             // replica ids of learners
	Remove  []uint64             // replica ids
}

// Change proposes a step. It is refused unless this node leads the open group, no other change is in
// flight, learners to promote have caught up, and a majority of the new voters is alive.
func (h *Host) Change(group uint32, c Change) error {
	h.idle()
	g := h.groups[group]
	if g == nil || g.open == 0 {
		return ErrNotLeader
	}
	if g.change != 0 || joint(g.state.Conf) {
		return ErrPending
	}
	if c.From == nil || c.From.Equivalent(g.state.Conf) != nil {
		return ErrStalePlan
	}
	if err := g.check(&c); err != nil {
		return err
	}
	g.flush()
	if len(g.batches) > 0 {
		return ErrPending // the leadership is being given away
	}
	if err := g.raft.ProposeConfChange(c.raft()); err != nil {
		return ErrPending
	}
	g.change = 1
	h.touch(g)
	return nil
}

// Create makes an empty replica that waits for its leader's snapshot.
func (h *Host) Create(group uint32, replica uint64) error {
	h.idle()
	if replica < h.retired[group] && !h.cfg.bugs.reuseReplica {
		return ErrRetired // I5
	}
	if g := h.groups[group]; g != nil {
		if g.state.Replica == replica {
			return nil
		}
		return ErrRetired
	}
	state := persistence.State{Replica: replica, Conf: &raftpb.ConfState{}}
	g, err := h.add(group, nil, state, 0)
	if err != nil {
		return err
	}
	h.extra = append(h.extra, persistence.Update{Group: group, Hard: g.hard, State: &state})
	return nil
}

// Destroy removes the replica here and forbids all ids below min from coming back. A replica that was removed from its
// group must stay until a majority of the new voters has the final configuration: others may need its vote to get there.
func (h *Host) Destroy(group uint32, min uint64) {
	h.idle()
	if g := h.groups[group]; g != nil {
		min = max(min, g.state.Replica+1)
		g.gone = true
		h.touch(g)
	}
	h.retired[group] = max(h.retired[group], min)
	h.extra = append(h.extra, persistence.Update{Group: group, Destroy: h.retired[group]})
}

// check is the gate (I6).
func (g *group) check(c *Change) error {
	if (len(c.Add) > 0) == (len(c.Promote)+len(c.Remove) > 0) {
		return ErrBadPlan
	}
	conf := g.state.Conf
	var highest uint64
	for _, m := range g.state.Members {
		highest = max(highest, m.Replica)
	}
	for _, m := range c.Add {
		if m.Node == 0 || len(g.replicas(m.Node)) > 0 {
			return ErrBadPlan
		}
		if m.Replica <= highest && !g.host.cfg.bugs.reuseReplica {
			return ErrRetired
		}
		highest = max(highest, m.Replica)
	}
	for _, id := range c.Promote {
		if !slices.Contains(conf.GetLearners(), id) {
			return ErrBadPlan
		}
	}
	voters := append(slices.Clone(conf.GetVoters()), c.Promote...)
	for _, id := range c.Remove {
		if !inConf(conf, id) || id == g.state.Replica || slices.Contains(c.Promote, id) {
			return ErrBadPlan // a leader gives its leadership away first
		}
		voters = slices.DeleteFunc(voters, func(v uint64) bool { return v == id })
	}
	if len(c.Add) > 0 {
		return nil
	}
	return g.ready(c.Promote, voters)
}

// ready: those to promote have been caught up for long enough, and a majority of the new voters is alive.
func (g *group) ready(promote, voters []uint64) error {
	commit := g.raft.BasicStatus().GetCommit()
	alive, caught := 0, 0
	g.raft.WithProgress(func(id uint64, _ raft.ProgressType, p progress) {
		if g.live(id) && slices.Contains(voters, id) {
			alive++
		}
		if slices.Contains(promote, id) && g.near(id, &p, commit) && g.caughtUp(id) {
			caught++
		}
	})
	switch {
	case caught < len(promote) && !g.host.cfg.bugs.promoteUncaught:
		return ErrNotCaught
	case alive <= len(voters)/2 && !g.host.cfg.bugs.promoteUncaught:
		return ErrNoQuorum
	}
	return nil
}

func (c *Change) raft() *raftpb.ConfChangeV2 {
	cc := &raftpb.ConfChangeV2{}
	single := func(t raftpb.ConfChangeType, id uint64) {
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: t.Enum(), NodeId: new(id)})
	}
	for _, m := range c.Add {
		single(raftpb.ConfChangeAddLearnerNode, m.Replica)
	}
	for _, id := range c.Promote {
		single(raftpb.ConfChangeAddNode, id)
	}
	for _, id := range c.Remove {
		single(raftpb.ConfChangeRemoveNode, id)
	}
	if len(c.Add) > 0 {
		cc.Context = appendMembers(nil, c.Add)
	}
	return cc
}
