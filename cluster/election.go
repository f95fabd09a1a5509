package cluster

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

// When a voter campaigns without waiting for raft's time-out. A voter that has not yet forgotten its
// leader ignores pre-votes in silence: hence the ranks and the repetition.
const (
	campaignFirst  = 20 * time.Millisecond
	campaignRank   = 100 * time.Millisecond
	campaignAgain  = 100 * time.Millisecond
	campaignSpread = 50 * time.Millisecond
	campaignStart  = 200 * time.Millisecond // a restarted voter listens first
)

// Wake says what time it is, since any fixed moment; it never goes back. Other inputs count from the last
// Wake. Campaigns whose time has come begin.
func (h *Host) Wake(now time.Duration) {
	h.idle()
	h.now = max(h.now, now)
	for _, g := range h.order {
		if g.campaignAt == 0 || g.campaignAt > h.now {
			continue
		}
		g.campaignAt = 0
		if g.raft.BasicStatus().Lead != raft.None || !g.voter() {
			continue
		}
		_ = g.raft.Campaign()
		g.campaignAt = h.now + campaignAgain + time.Duration(h.cfg.Rand.Int64N(int64(campaignSpread)))
		h.touch(g)
	}
}

// Deadline is when Wake must be called at the latest; false when nothing is due.
func (h *Host) Deadline() (at time.Duration, ok bool) {
	for _, g := range h.order {
		if g.campaignAt != 0 && (!ok || g.campaignAt < at) {
			at, ok = g.campaignAt, true
		}
	}
	return at, ok
}

// Transfer begins to give the shard's leadership to a node, or to the best one for node 0.
// Proposals wait meanwhile, a second at most.
func (h *Host) Transfer(shard uint32, node uint64) error {
	h.idle()
	g := h.groups[shard+1]
	if g == nil || g.open == 0 {
		return ErrNotLeader
	}
	return g.transfer(node)
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

// Trust ends Suspect: there is a new stream.
func (h *Host) Trust(node uint64) {
	h.idle()
	delete(h.suspects, node)
}

// Refuse stops proposals and received snapshots, and gives leaderships away while a reason
// is set; "" resumes.
func (h *Host) Refuse(reason string) {
	h.idle()
	h.refusing = reason
	for _, g := range h.order {
		if reason != "" {
			g.giveAway()
		}
	}
}

// rank spreads the campaigns of one group over time and those of all groups over nodes.
func (g *group) rank() time.Duration {
	var live []uint64
	for _, id := range g.state.Conf.GetVoters() {
		if !g.host.suspects[g.node(id)] {
			live = append(live, id)
		}
	}
	slices.Sort(live)
	at := slices.Index(live, g.state.Replica)
	if at < 0 {
		return time.Duration(len(live)) * campaignRank
	}
	n := len(live)
	return time.Duration((at+int(g.id)%n)%n) * campaignRank
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

// transfer gives the leadership to a node's voter, or to the live one with the longest log.
func (g *group) transfer(node uint64) error {
	var best, match uint64
	g.raft.WithProgress(func(id uint64, typ raft.ProgressType, p progress) {
		if id == g.state.Replica || typ != raft.ProgressTypePeer || !p.RecentActive || g.host.suspects[g.node(id)] {
			return
		}
		if node != 0 && g.node(id) != node {
			return
		}
		if best == 0 || p.Match > match || p.Match == match && g.host.cfg.Rand.IntN(2) == 0 {
			best, match = id, p.Match
		}
	})
	if best == 0 {
		return ErrNoTarget
	}
	g.flush()
	g.raft.TransferLeader(best)
	g.host.touch(g)
	return nil
}

func (g *group) giveAway() {
	if g.leading && g.raft.BasicStatus().LeadTransferee == raft.None {
		_ = g.transfer(0)
	}
}
