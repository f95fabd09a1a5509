package muster

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"muster/clients/wire"
)

// View is the state of the watched users. It stays right across reconnects.
type View struct {
	mu    sync.Mutex
	users map[string]*entry // exactly the watched ones
	ended map[string]bool   // unwatched since the last connect: their late pushes are not news
	from  *socket           // whose pushes count; nil while there is no connection
	clock uint64            // counts pushes, to tell what came after a request was sent
	feeds map[*feed[Presence]]struct{}
	done  <-chan struct{}
}

type entry struct {
	p       Presence
	granted bool   // not asked for: the token watches the user
	touched uint64 // the clock of the last push
	implied bool   // offline because a snapshot left it out, so the version says less
}

func newView(done <-chan struct{}) *View {
	return &View{users: map[string]*entry{}, ended: map[string]bool{}, feeds: map[*feed[Presence]]struct{}{}, done: done}
}

// Get is the present state of a user. It is Unknown for users that are not watched or not
// known yet, and stale while the connection is down.
func (v *View) Get(user string) Presence {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.get(user)
}

func (v *View) get(user string) Presence {
	e := v.users[user]
	if e == nil {
		return unknown(user)
	}
	p := e.p
	if v.from == nil && p.State != Unknown {
		p.Stale = true
	}
	return p
}

// All is the present state of all watched users, by id.
func (v *View) All() []Presence {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]Presence, 0, len(v.users))
	for _, user := range slices.Sorted(maps.Keys(v.users)) {
		all = append(all, v.get(user))
	}
	return all
}

// Changes goes over the view's changes until ctx or the client ends. It begins with the
// present state of each watched user that is known. Changes of a user that were not read yet are joined
// into one. A lost connection is no change of anyone; see Options.OnConnection.
func (v *View) Changes(ctx context.Context) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		f := newFeed[Presence]()
		v.mu.Lock()
		for _, user := range slices.Sorted(maps.Keys(v.users)) {
			f.add(user)
		}
		v.feeds[f] = struct{}{}
		v.mu.Unlock()
		defer func() {
			v.mu.Lock()
			delete(v.feeds, f)
			v.mu.Unlock()
		}()
		for {
			change, ok := v.next(f)
			if ok && (ctx.Err() != nil || !yield(change)) {
				return
			}
			if !ok && !f.await(ctx, v.done) {
				return
			}
		}
	}
}

func (v *View) next(f *feed[Presence]) (Change, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for {
		user, ok := f.pop()
		if !ok {
			return Change{}, false
		}
		e, before := v.users[user], unknown(user)
		if e == nil { // no longer watched
			delete(f.seen, user)
			continue
		}
		if p, ok := f.seen[user]; ok {
			before = p
		}
		if e.p.equal(before) {
			continue
		}
		f.seen[user] = e.p
		return Change{Kind: kind(before.State, e.p.State), User: user, Presence: e.p, Before: before}, true
	}
}

func kind(before, now State) Kind {
	switch {
	case now.Present() && !before.Present():
		return Enter
	case before.Present() && now == Offline:
		return Leave
	}
	return Update
}

// watch adds users and returns those that are new.
func (v *View) watch(ids []string) (added []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if e := v.users[id]; e == nil {
			v.users[id] = &entry{p: unknown(id)}
			delete(v.ended, id)
			added = append(added, id)
		} else {
			e.granted = false
		}
	}
	return added
}

// unwatch removes users and returns those that were there.
func (v *View) unwatch(ids []string) (removed []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if v.users[id] != nil {
			delete(v.users, id)
			v.ended[id] = true
			v.changed(id)
			removed = append(removed, id)
		}
	}
	return removed
}

// watched lists whom to declare: all but those whom the token watches.
func (v *View) watched() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	ids := make([]string, 0, len(v.users))
	for id, e := range v.users {
		if !e.granted {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// still lists those of ids that are watched.
func (v *View) still(ids []string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return v.users[id] == nil })
}

// entry is that of a user about whom the server tells something. It tells nothing of users
// that are not watched, so a new one is watched by the token; nil for one unwatched just now.
func (v *View) entry(id string) *entry {
	e := v.users[id]
	if e == nil && !v.ended[id] {
		e = &entry{p: unknown(id), granted: true}
		v.users[id] = e
	}
	return e
}

// adopt makes s the source of pushes. A snapshot asked for before, at s, counts from here:
// s holds its pushes back until it has answered.
func (v *View) adopt(s *socket, first *snapshot) {
	v.mu.Lock()
	v.from, first.from, first.sent = s, s, v.clock
	clear(v.ended)
	v.mu.Unlock()
}

// lost marks everyone stale, if s was the source.
func (v *View) lost(s *socket) {
	v.mu.Lock()
	if v.from == s {
		v.from = nil
	}
	v.mu.Unlock()
}

// push applies what the server sent by itself, unless a newer socket has taken over.
func (v *View) push(s *socket, list []*wire.Presence) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.from != s {
		return
	}
	v.clock++
	for _, p := range list {
		v.apply(p)
		if e := v.entry(p.GetUser()); e != nil {
			e.touched = v.clock
		}
	}
}

// apply replaces a user's state unless it is older. The same version again may only tell
// whether the node still vouches for it.
func (v *View) apply(m *wire.Presence) {
	e := v.entry(m.GetUser())
	if e == nil {
		return
	}
	p := presence(m)
	switch {
	case p.Stale && p.State == Unknown: // the node cannot vouch for what it told before
		q := e.p
		q.Stale, q.AsOf = true, p.AsOf
		v.set(e, q)
	case p.Version == (Version{}) || e.p.State == Unknown || p.Version.Newer(e.p.Version),
		e.implied && p.Version == e.p.Version:
		if p.Version == (Version{}) {
			p.Version = e.p.Version
		}
		e.implied = false
		v.set(e, p)
	case p.Version == e.p.Version:
		q := e.p
		q.Stale, q.AsOf = p.Stale, p.AsOf
		v.set(e, q)
	}
}

func (v *View) set(e *entry, p Presence) {
	if !e.p.equal(p) {
		e.p = p
		v.changed(p.User)
	}
}

func (v *View) changed(user string) {
	for f := range v.feeds {
		f.add(user)
	}
}

// snapshot follows the answer to a request for some users, which may come in parts.
type snapshot struct {
	v    *View
	rest map[string]bool // not answered yet
	from *socket         // that was asked; an answer that comes after a move is void
	sent uint64          // the clock when it was asked
}

func (v *View) snapshot(ids []string) *snapshot {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := &snapshot{v: v, rest: make(map[string]bool, len(ids)), from: v.from, sent: v.clock}
	for _, id := range ids {
		s.rest[id] = true
	}
	return s
}

// part applies one part of the answer. With the last one, who was not named is offline,
// unless a push has told otherwise meanwhile.
func (s *snapshot) part(list []*wire.Presence, pending []string, done bool) {
	v := s.v
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.from != s.from {
		return
	}
	for _, p := range list {
		delete(s.rest, p.GetUser())
		v.apply(p)
	}
	for _, id := range pending {
		delete(s.rest, id)
		if e := v.entry(id); e != nil && e.touched <= s.sent && e.p.State != Unknown {
			p := e.p
			p.Stale = true
			v.set(e, p)
		}
	}
	if !done {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(s.rest)) {
		if e := v.users[id]; e != nil && e.touched <= s.sent {
			e.implied = true
			v.set(e, offline(e.p))
		}
	}
	clear(s.rest)
}

// offline is what is left of a user who was not in a snapshot: there is nothing to show.
func offline(p Presence) Presence {
	q := Presence{User: p.User, State: Offline, Version: p.Version}
	if p.State == Offline {
		q.Since, q.Reason = p.Since, p.Reason
	}
	return q
}
