package gossip

import (
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls, mostly with its own lock held: it takes g.mu and never calls back.
type delegate struct{ g *Gossip }

// NodeMeta is this node's metadata; Start and Update have checked its size.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	meta, err := encodeMeta(&d.g.table.self, d.g.leaving)
	if err != nil {
		d.g.log.say(slog.LevelError, "meta", "metadata does not fit", "error", err)
	}
	return meta
}

func (d delegate) NotifyMsg([]byte)                {}
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}

// NotifyMerge refuses the whole exchange if anybody of the other side belongs to a foreign cluster.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if n.State == memberlist.StateDead || n.State == memberlist.StateLeft {
			continue
		}
		if err := d.admit(n, "refused to merge"); err != nil {
			return err
		}
	}
	return nil
}

// NotifyAlive refuses a single node: gossip brings it also through a third one.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	return d.admit(n, "refused a node")
}

func (d delegate) admit(n *memberlist.Node, text string) error {
	m, _, err := memberOf(n)
	if err == nil {
		d.g.mu.Lock()
		err = d.g.table.refuse(&m)
		d.g.refresh()
		d.g.mu.Unlock()
	}
	if err != nil && err != errLeft {
		d.g.log.say(slog.LevelWarn, text+n.Name, text, "reason", err)
	}
	return err
}

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.hear(n) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.hear(n) }

func (d delegate) hear(n *memberlist.Node) {
	m, leaving, err := memberOf(n)
	if err != nil {
		return // NotifyAlive has refused it
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if m.process() == d.g.table.self.process() {
		d.g.table.self.Gossip = m.Gossip
	}
	d.g.table.hear(m, leaving)
	d.g.refresh()
}

func (d delegate) NotifyLeave(n *memberlist.Node) {
	name, incarnation, err := splitMemberName(n.Name)
	if err != nil {
		return
	}
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.table.lose(process{name, incarnation}, time.Now())
	d.g.refresh()
}

// NotifyConflict: one process at two addresses.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.log.say(slog.LevelError, "conflict "+existing.Name, "one process is told at two addresses",
		"member", existing.Name, "at", existing.Address(), "other_at", other.Address())
}
