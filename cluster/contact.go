package cluster

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

const (
	silence   = 700 * time.Millisecond // how long a node may not be heard of
	ownStall  = 200 * time.Millisecond // a gap between two Wakes in which nothing of others could be heard
	caughtFor = 2 * time.Second        // how long a learner was caught up and answering when it is promoted
)

// hear notes that a follower answered this leader in its term.
func (g *group) hear(m *raftpb.Message) {
	answer := m.GetType() == raftpb.MsgHeartbeatResp || m.GetType() == raftpb.MsgAppResp
	if answer && g.leading && m.GetTerm() == g.term {
		g.heard[m.GetFrom()] = g.host.now
	}
}

// live says that a replica answered this leader lately and is no suspect.
func (g *group) live(id uint64) bool {
	at, ok := g.heard[id]
	return id == g.state.Replica || ok && g.host.now-at <= silence && !g.host.suspects[g.node(id)]
}

// elected begins the lease: a quorum has just voted.
func (g *group) elected() {
	g.heard, g.caught, g.until = map[uint64]time.Duration{}, map[uint64]time.Duration{}, g.host.now+g.host.cfg.Lease
}

// renew moves the lease's end to where the answers of a quorum put it.
func (g *group) renew() {
	g.until = min(g.quorum(g.state.Conf.GetVoters()), g.quorum(g.state.Conf.GetVotersOutgoing())) + g.host.cfg.Lease
}

// quorum is the latest moment since which a majority of the voters has answered.
func (g *group) quorum(voters []uint64) time.Duration {
	if len(voters) == 0 {
		return g.host.now
	}
	at := make([]time.Duration, 0, len(voters))
	for _, id := range voters {
		when, ok := g.heard[id]
		switch {
		case id == g.state.Replica:
			when = g.host.now
		case !ok:
			when = -g.host.cfg.Lease
		}
		at = append(at, when)
	}
	slices.Sort(at)
	return at[(len(at)-1)/2]
}

// lapse ends the term of a leader that may have been deposed without hearing of it: it stops serving
// what it holds in memory. Raft's own check of the quorum takes up to twice the election time-out.
func (g *group) lapse() bool {
	if g.renew(); g.host.now <= g.until || g.host.cfg.bugs.noLease {
		return false
	}
	for range 2 { // the first forgets who answered since raft's own last check
		_ = g.raft.Step(&raftpb.Message{Type: raftpb.MsgCheckQuorum.Enum(), From: new(uint64(raft.LocalAppendThread))})
	}
	g.forget()
	return true
}

// near says that a learner has nearly all that is committed, and answers.
func (g *group) near(id uint64, p *progress, commit uint64) bool {
	return g.live(id) && p.State == tracker.StateReplicate && p.Match+maxBehind >= commit
}

// trail notes since when each learner has been near without a break.
func (g *group) trail() {
	if !g.leading || len(g.state.Conf.GetLearners()) == 0 {
		return
	}
	commit := g.raft.BasicStatus().GetCommit()
	g.raft.WithProgress(func(id uint64, typ raft.ProgressType, p progress) {
		_, known := g.caught[id]
		switch {
		case typ != raft.ProgressTypeLearner || !g.near(id, &p, commit):
			delete(g.caught, id)
		case !known:
			g.caught[id] = g.host.now
		}
	})
}

func (g *group) caughtUp(id uint64) bool {
	since, ok := g.caught[id]
	return ok && g.host.now-since >= caughtFor
}

// Suspect says that a node seems dead: its messages are dropped until Trust, followers of it forget it and
// campaign one after the other.
func (h *Host) Suspect(node uint64) {
	h.idle()
	h.suspects[node] = true
	for _, g := range h.order {
		g.suspect(node)
	}
}

// Trust ends Suspect and Silent: there is a new stream, or an answer.
func (h *Host) Trust(node uint64) {
	h.idle()
	delete(h.suspects, node)
	h.silent = slices.DeleteFunc(h.silent, func(n uint64) bool { return n == node })
}

// Silent says that a node has not answered pings for 700 ms. It is suspected once this node's own loop has run
// without a stall for as long: else the silence may be its own.
func (h *Host) Silent(node uint64) {
	h.idle()
	if !slices.Contains(h.silent, node) {
		h.silent = append(h.silent, node)
	}
	h.judge()
}

func (h *Host) judge() {
	if h.now < h.calmAt {
		return
	}
	for _, node := range h.silent {
		h.Suspect(node)
	}
	h.silent = nil
}

func (g *group) suspect(node uint64) {
	status := g.raft.BasicStatus()
	if status.RaftState == raft.StateLeader {
		for _, id := range g.replicas(node) {
			g.raft.ReportUnreachable(id)
		}
		return
	}
	if status.Lead == raft.None || g.node(status.Lead) == node {
		g.forget()
	}
}

// forget makes a follower forget its leader and plan to campaign.
func (g *group) forget() {
	_ = g.raft.ForgetLeader()
	if g.voter() && g.campaignAt == 0 {
		g.campaignAt = g.host.now + campaignFirst + g.rank()
	}
	g.host.touch(g)
}
