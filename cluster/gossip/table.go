package gossip

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Status is what is known of one process.
type Status uint8

// The statuses.
const (
	Unknown Status = iota // never heard of, or forgotten
	Alive
	Dead // probes failed, or a newer process took its place
	Left // it said goodbye
)

func (s Status) String() string {
	return [...]string{"unknown", "alive", "dead", "left"}[s]
}

const (
	maxGone  = 1024
	goneKept = 24 * time.Hour
)

type process struct {
	name        string
	incarnation uint64
}

func (m *Member) process() process { return process{m.Name, m.Incarnation} }

type heard struct {
	Member
	leaving bool
}

type gone struct {
	Member
	left bool
	at   time.Time
}

// table is what memberlist told, and what is shown of it. It has no lock, clock or I/O.
type table struct {
	self  Member
	live  map[process]heard
	shown map[process]Member
	gone  map[process]gone
}

func newTable(self Member) *table {
	return &table{self: self, live: map[process]heard{}, shown: map[process]Member{}, gone: map[process]gone{}}
}

// cluster is the id of the cluster that this node belongs to, or else of the one it sees.
func (t *table) cluster() string {
	if t.self.Cluster != "" {
		return t.self.Cluster
	}
	for _, h := range t.live {
		if h.Cluster != "" {
			return h.Cluster
		}
	}
	return ""
}

// refuse says why m must not become a member. A member that turns out to be foreign is one no more.
func (t *table) refuse(m *Member) error {
	if own := t.cluster(); foreign(own, m) {
		if h, ok := t.live[m.process()]; ok {
			h.Cluster = m.Cluster
			t.live[m.process()] = h
		}
		return fmt.Errorf("gossip: node %s at %s belongs to cluster %s, this one to %s", m.Name, m.Gossip, m.Cluster, own)
	}
	if t.gone[m.process()].left {
		return errLeft
	}
	return nil
}

// errLeft is no news: copies of what the process said before its goodbye are still on their way.
var errLeft = errors.New("gossip: a process that said goodbye does not come back")

func foreign(own string, m *Member) bool { return own != "" && m.Cluster != "" && m.Cluster != own }

// hear takes news of a live process.
func (t *table) hear(m Member, leaving bool) { t.live[m.process()] = heard{m, leaving} }

// lose takes the news that a process is dead or has left.
func (t *table) lose(p process, now time.Time) {
	if h, ok := t.live[p]; ok && h.leaving {
		t.forget(h.Member, true, now)
	}
	delete(t.live, p)
}

type place struct{ name, addr string }

// view is the live processes less those that leave, belong to another cluster or were superseded.
func (t *table) view() map[process]Member {
	byNode, byPlace := map[uint64]uint64{}, map[place]uint64{}
	for p, h := range t.live {
		byNode[h.Node] = max(byNode[h.Node], p.incarnation)
		at := place{h.Name, h.Gossip}
		byPlace[at] = max(byPlace[at], p.incarnation)
	}
	own := t.cluster()
	view := make(map[process]Member, len(t.live))
	for p, h := range t.live {
		if h.leaving || foreign(own, &h.Member) || byNode[h.Node] > p.incarnation || byPlace[place{h.Name, h.Gossip}] > p.incarnation {
			continue
		}
		view[p] = h.Member
	}
	return view
}

// refresh brings what is shown up to date and returns who departed, and whether anything changed.
func (t *table) refresh(now time.Time) (departed []gone, changed bool) {
	view := t.view()
	for p, m := range t.shown {
		if _, ok := view[p]; ok {
			continue
		}
		g := gone{m, t.live[p].leaving || t.gone[p].left, now}
		t.forget(g.Member, g.left, now)
		departed = append(departed, g)
	}
	for p, m := range view {
		if old, ok := t.shown[p]; !ok || old != m {
			changed = true
		}
		delete(t.gone, p)
	}
	t.shown = view
	slices.SortFunc(departed, func(a, b gone) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return departed, changed || len(departed) > 0
}

func (t *table) forget(m Member, left bool, now time.Time) {
	t.gone[m.process()] = gone{m, left, now}
	for len(t.gone) > maxGone {
		var oldest process
		first := true
		for p, g := range t.gone {
			if first || g.at.Before(t.gone[oldest].at) {
				oldest, first = p, false
			}
		}
		delete(t.gone, oldest)
	}
}

func (t *table) members() []Member {
	out := make([]Member, 0, len(t.shown))
	for _, m := range t.shown {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Incarnation, b.Incarnation))
	})
	return out
}

func (t *table) status(p process) Status {
	if _, ok := t.shown[p]; ok {
		return Alive
	}
	if g, ok := t.gone[p]; ok {
		if g.left {
			return Left
		}
		return Dead
	}
	return Unknown
}

// lost is where members were that died within goneKept and whose address nobody has taken.
func (t *table) lost(now time.Time) []string {
	taken := map[string]bool{}
	for _, m := range t.shown {
		taken[m.Gossip] = true
	}
	var out []string
	for _, g := range t.gone {
		if !g.left && now.Sub(g.at) < goneKept && !taken[g.Gossip] {
			taken[g.Gossip] = true
			out = append(out, g.Gossip)
		}
	}
	return out
}

// conflict is a name or a node id that two live processes at different addresses claim.
type conflict struct{ a, b Member }

// conflicts come sorted, each pair once, the smaller address first.
func (t *table) conflicts() []conflict {
	var live []Member
	for _, h := range t.live {
		if !h.leaving {
			live = append(live, h.Member)
		}
	}
	slices.SortFunc(live, func(a, b Member) int { return cmp.Compare(a.Gossip, b.Gossip) })
	byName, byNode := map[string]Member{}, map[uint64]Member{}
	var out []conflict
	for _, m := range live {
		if other, ok := byName[m.Name]; ok && other.Gossip != m.Gossip {
			out = append(out, conflict{other, m})
		} else if other, ok := byNode[m.Node]; ok && other.Gossip != m.Gossip {
			out = append(out, conflict{other, m})
		}
		byName[m.Name], byNode[m.Node] = m, m
	}
	return out
}
