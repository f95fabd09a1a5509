package cluster

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
)

const (
	maxTransfers = 4                      // at a time, when a node gives away all it leads
	giveEvery    = 50 * time.Millisecond  // one begins: who takes a shard has work to do before it is open
	farewellTime = 100 * time.Millisecond // a transfer waits so long for Left
)

// farewell is a transfer that waits for Left; to 0: there is none.
type farewell struct {
	to uint64 // replica
	by time.Duration
}

// Transfer begins to give the shard's leadership to a node, or to the best one for node 0. With
// HostConfig.Farewell it waits for Left first. From then on proposals wait, a second at most.
func (h *Host) Transfer(shard uint32, node uint64) error {
	h.idle()
	g := h.groups[shard+1]
	if g == nil || g.open == 0 {
		return ErrNotLeader
	}
	return g.transfer(node)
}

// Left says that nothing more need be done before the shard's leadership goes.
func (h *Host) Left(shard uint32, term uint64) {
	h.idle()
	if g := h.groups[shard+1]; g != nil && g.open == term && g.leave.to != 0 {
		g.depart()
	}
}

// Yield has the node give away all that it leads, four groups at a time and 20 a second, and campaign last, until it
// is told otherwise.
func (h *Host) Yield(on bool) {
	h.idle()
	h.yield = on
	h.give()
}

// Refuse stops proposals and received snapshots, and yields in haste, while a reason is set; "" resumes.
func (h *Host) Refuse(reason string) {
	h.idle()
	h.refusing = reason
	h.give()
}

func (h *Host) yielding() bool { return h.yield || h.refusing != "" }

// Led counts the groups that this node leads and that another voter could lead.
func (h *Host) Led() (n int) {
	for _, g := range h.order {
		if g.leading && len(g.state.Conf.GetVoters()) > 1 {
			n++
		}
	}
	return n
}

// give goes on with transfers: those that waited long enough, and, while the node yields, new ones.
func (h *Host) give() {
	for _, g := range h.order {
		if g.leave.to != 0 && h.now >= g.leave.by {
			g.depart()
		}
	}
	if !h.yielding() {
		return
	}
	under := 0
	for _, g := range h.order {
		if g.departing() {
			under++
		}
	}
	for _, g := range h.order {
		if under < maxTransfers && g.open != 0 && !g.departing() && h.paced() && g.transfer(0) == nil {
			under++
			h.gaveAt = h.now
		}
	}
}

// paced says whether another transfer may begin now. A node that can write nothing does not wait.
func (h *Host) paced() bool { return h.refusing != "" || h.now >= h.gaveAt+giveEvery }

func (g *group) departing() bool {
	return g.leading && (g.leave.to != 0 || g.raft.BasicStatus().LeadTransferee != raft.None)
}

// transfer gives the leadership to a node's voter, or to the live one with the longest log.
func (g *group) transfer(node uint64) error {
	var best, match uint64
	g.raft.WithProgress(func(id uint64, typ raft.ProgressType, p progress) {
		if id == g.state.Replica || typ != raft.ProgressTypePeer || !g.live(id) || node != 0 && g.node(id) != node {
			return
		}
		if best == 0 || p.Match > match || p.Match == match && g.host.cfg.Rand.IntN(2) == 0 {
			best, match = id, p.Match
		}
	})
	if best == 0 {
		return ErrNoTarget
	}
	if g.leave.to != 0 {
		return nil // one is under way
	}
	g.leave = farewell{to: best, by: g.host.now + farewellTime}
	if !g.host.cfg.Farewell {
		g.depart()
		return nil
	}
	g.host.early = append(g.host.early, Leaving{Shard: g.shard(), Term: g.open, To: g.node(best)})
	g.host.touch(g)
	return nil
}

func (g *group) depart() {
	g.flush()
	g.raft.TransferLeader(g.leave.to)
	g.leave = farewell{}
	g.host.touch(g)
}

// Leaver is a Leading that has something to send before a leadership goes.
type Leaver interface {
	// Leaving says that the shard's leadership is to go to a node. The transfer begins when ready is called, by
	// any goroutine, or after 100 ms; until Closed the shard is open as before. A transfer that fails is
	// followed by another Leaving of the same term, or by none.
	Leaving(shard uint32, term, to uint64, ready func())
}

// handOverPoll is how often HandOver looks.
const handOverPoll = 10 * time.Millisecond

// HandOver gives all leaderships away, 20 a second, and returns when this node leads no group that another
// voter could lead, or when ctx is over. The node takes no part in leading afterwards: Stop is to follow.
func (e *Engine) HandOver(ctx context.Context) error {
	poll := time.NewTicker(handOverPoll)
	defer poll.Stop()
	for left := 0; ; {
		err := e.ask(func() error {
			if !e.leaving.Swap(true) {
				e.yield()
			}
			left = e.host.Led()
			return nil
		})
		if err != nil || left == 0 {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("cluster: %d leaderships are not given away: %w", left, ctx.Err())
		}
	}
}

// yield tells the host whether there is a reason to lead nothing.
func (e *Engine) yield() { e.host.Yield(e.leaving.Load() || e.wrong.Load() != nil) }

// farewell passes Leaving on.
func (e *Engine) farewell(ev Leaving) {
	ready := func() { e.post(func() { e.host.Left(ev.Shard, ev.Term) }) }
	if l, ok := e.cfg.Leading.(Leaver); ok && ev.Shard != MetaShard {
		l.Leaving(ev.Shard, ev.Term, ev.To, ready)
		return
	}
	ready()
}
