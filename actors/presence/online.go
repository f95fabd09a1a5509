package presence

import (
	"slices"
	"strings"
	"time"
)

// index is a sorted list of entries in chunks, so that insertion and removal cost the
// square root of its length.
type index struct{ chunks [][]*entry }

const chunkSize = 256

// at finds the chunk of a user id and the place in it.
func (x *index) at(user string) (chunk, place int, found bool) {
	chunk, _ = slices.BinarySearchFunc(x.chunks, user, func(c []*entry, user string) int {
		return strings.Compare(c[len(c)-1].key.User, user)
	})
	if chunk == len(x.chunks) {
		return chunk, 0, false
	}
	place, found = slices.BinarySearchFunc(x.chunks[chunk], user, func(e *entry, user string) int {
		return strings.Compare(e.key.User, user)
	})
	return chunk, place, found
}

func (x *index) insert(e *entry) {
	c, p, found := x.at(e.key.User)
	if found {
		return
	}
	if c == len(x.chunks) {
		if c == 0 {
			x.chunks = append(x.chunks, nil)
			c = 1
		}
		c--
		p = len(x.chunks[c])
	}
	chunk := slices.Insert(x.chunks[c], p, e)
	x.chunks[c] = chunk
	if len(chunk) > chunkSize {
		half := len(chunk) / 2
		right := slices.Clone(chunk[half:])
		x.chunks[c] = slices.Clone(chunk[:half])
		x.chunks = slices.Insert(x.chunks, c+1, right)
	}
}

func (x *index) remove(e *entry) {
	c, p, found := x.at(e.key.User)
	if !found {
		return
	}
	x.chunks[c] = slices.Delete(x.chunks[c], p, p+1)
	if len(x.chunks[c]) == 0 {
		x.chunks = slices.Delete(x.chunks, c, c+1)
	}
}

// from visits entries in order, beginning at the first id not less than user, until
// visit says no.
func (x *index) from(user string, visit func(*entry) bool) {
	c, p, _ := x.at(user)
	for ; c < len(x.chunks); c, p = c+1, 0 {
		for _, e := range x.chunks[c][p:] {
			if !visit(e) {
				return
			}
		}
	}
}

func (a *app) count(s State, d int) {
	if s != Offline {
		a.states[s] = uint64(int64(a.states[s]) + int64(d))
	}
}

// Online returns up to limit users of app who are not offline, in id order, whose id
// begins with prefix and is greater than after. Views are exact.
func (g *Gateway) Online(app, prefix, after string, limit int) []Row {
	a := g.apps[app]
	if a == nil || limit <= 0 {
		return nil
	}
	var rows []Row
	a.online.from(max(prefix, after), func(e *entry) bool {
		if !strings.HasPrefix(e.key.User, prefix) {
			return false
		}
		if e.key.User > after || after == "" {
			v := *e.view
			rows = append(rows, Row{User: e.key.User, Mask: AllFields, Version: e.version, Pending: g.pending(e), View: &v})
		}
		return len(rows) < limit
	})
	return rows
}

// Counts are the totals of a shard.
type Counts struct {
	Online, Away, DND uint64 // users by what others see at best
	Sessions          uint64 // with a live conn
	Detached          uint64 // in grace
	Rows              uint64 // watches: (edge, watcher, watched)
	Entries           uint64 // users that are watched, active or have something to show
	Settling          bool   // edges are still expected to announce
	Storm             bool   // the storm guard is on
}

// Counts returns the totals, those by state of one application, or of all if app is
// empty.
func (g *Gateway) Counts(app string) Counts {
	c := Counts{
		Sessions: uint64(g.live), Detached: uint64(g.detached), Rows: uint64(g.rows),
		Entries: uint64(len(g.entries)), Settling: g.settling, Storm: g.storm,
	}
	for name, a := range g.apps {
		if app == "" || app == name {
			c.Online += a.states[Online]
			c.Away += a.states[Away]
			c.DND += a.states[DND]
		}
	}
	return c
}

// Load returns the shard's part of the storm guard's counts: live sessions and sessions
// lost within 5 s. The node sums them over its gateways and sends Cluster.
func (g *Gateway) Load(now time.Time) (sessions, lost uint64) {
	for _, b := range g.lost {
		if age := now.UnixMilli()/1000 - b.second; age >= 0 && age < 5 {
			lost += uint64(b.n)
		}
	}
	return uint64(g.live), lost
}

// Term is the shard's.
func (g *Gateway) Term() uint64 { return g.term }

// Version is the counter of visible changes.
func (g *Gateway) Version() uint64 { return g.version }

// Settling reports that edges are still expected to announce.
func (g *Gateway) Settling() bool { return g.settling }

// LastSeen is what is known of a user without an activation, for NewUser; zero: nothing.
func (g *Gateway) LastSeen(k Key) time.Time {
	if e := g.entries[k]; e != nil && e.view != nil {
		return e.view.LastSeen
	}
	return time.Time{}
}

// Look is what a watcher sees of a user now. An empty watcher sees everything, exactly.
func (g *Gateway) Look(now time.Time, k Key, w Watcher) Row {
	e := g.entries[k]
	if e == nil {
		e = &entry{key: k, version: g.version}
	}
	if w.User != "" {
		return g.row(now.UnixMilli(), e, g.maskOf(e, w))
	}
	r := Row{User: k.User, Mask: AllFields, Version: e.version, Pending: g.pending(e)}
	if !r.Pending && e.view != nil {
		v := *e.view
		r.View = &v
	}
	return r
}

// Verdict is the decision about one field.
type Verdict struct {
	Field string `json:"field"`
	Seen  bool   `json:"seen"`
	Why   string `json:"why"` // "rule contacts: not a contact", "blocked", "grant" …
}

// Hides says which rule decides what the watcher sees of each field of a user.
func (g *Gateway) Hides(k Key, w Watcher) []Verdict {
	a := g.cfg.audience()
	if e := g.entries[k]; e != nil && e.audience != nil {
		a = e.audience
	}
	verdicts := make([]Verdict, 0, fields)
	for i := range a.rules {
		verdicts = append(verdicts, a.verdict(i, k.User, w, g.cfg.Reciprocal))
	}
	return verdicts
}

func (a *Audience) verdict(i int, owner string, w Watcher, reciprocal Mask) Verdict {
	v := Verdict{Field: fieldNames[i]}
	bit := Mask(1) << i
	granted := false
	for _, g := range a.grants {
		granted = granted || g.To == w.User && g.Fields&bit != 0
	}
	rel := a.relations.of(w.User).bits
	switch {
	case owner == w.User:
		v.Seen, v.Why = true, "oneself"
	case rel&RelationBlocked != 0:
		v.Why = "blocked"
	case rel&RelationBlockedBy != 0:
		v.Why = "blocked by the watcher"
	case granted:
		v.Seen, v.Why = true, "grant"
	case w.Hidden&reciprocal&bit != 0:
		v.Why = "the watcher hides its own"
	default:
		v.Seen, v.Why = a.allows(i, w.User, a.contact(w.User, rel))
	}
	if v.Seen && a.Mask(w, reciprocal)&bit == 0 && owner != w.User {
		v.Seen, v.Why = false, "the state is hidden"
	}
	return v
}
