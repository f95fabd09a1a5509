package cluster

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

// When a voter campaigns without waiting for raft's time-out. A voter that has not yet forgotten its
// leader ignores pre-votes in silence: hence the ranks and the repetition. Each campaign ends the one before, so that
// repetitions come ever more slowly: where votes take their time one of them must live to get them.
const (
	campaignFirst = 20 * time.Millisecond
	campaignRank  = 100 * time.Millisecond
	campaignAgain = 100 * time.Millisecond // and up to half as long on top, both doubled each time
	campaignSlow  = 5                      // times at most
	campaignStart = 200 * time.Millisecond // a restarted voter listens first
)

// Wake says what time it is, since any fixed moment; it never goes back. Other inputs count from the last
// Wake. Campaigns whose time has come begin, leases that are over end:
// true says that one did, and that the turn that tells Closed is to come before other inputs.
func (h *Host) Wake(now time.Duration) (lapsed bool) {
	h.idle()
	if now-h.now > ownStall {
		h.calmAt = now + silence
	}
	h.now = max(h.now, now)
	for _, g := range h.order {
		if g.leading && h.now > g.until {
			lapsed = g.lapse() || lapsed
		}
		if g.campaignAt == 0 || g.campaignAt > h.now {
			continue
		}
		g.campaignAt = 0
		if g.raft.BasicStatus().Lead != raft.None || !g.voter() {
			continue
		}
		_ = g.raft.Campaign()
		again := campaignAgain << g.campaigns
		g.campaigns = min(g.campaigns+1, campaignSlow)
		g.campaignAt = h.now + again + time.Duration(h.cfg.Rand.Int64N(int64(again/2)))
		h.touch(g)
	}
	h.give()
	return lapsed
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
	if at < 0 || g.host.yielding() {
		return time.Duration(len(live)) * campaignRank
	}
	n := len(live)
	return time.Duration((at+int(g.id)%n)%n) * campaignRank
}
