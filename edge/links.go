package edge

import (
	"sync"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

// linkState is the edge's end of its link.
type linkState struct {
	mu    sync.Mutex
	up    link.Uplink
	epoch uint64 // 0: down
	heard bool   // the core's first beat of the epoch is in
	lost  int64  // clock ms at which the link was lost; 0: it is not
	told  [shards]uint64
}

// Core is the edge's end of its link with a core, for link.NewPipe and link.NewFar: one link at a time for each node.
func (e *Edge) Core(node string) link.Edge { return e }

// LinkUp begins an epoch.
func (e *Edge) LinkUp(up link.Uplink, epoch uint64) {
	l := &e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up, l.epoch, l.heard, l.told, l.lost = up, epoch, false, [shards]uint64{}, 0
}

// Beat takes the core's beat: which shards it leads, and with which terms. Those that are new on
// this epoch are announced.
func (e *Edge) Beat(b *link.Beat) {
	l := &e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Epoch != l.epoch || l.epoch == 0 {
		return
	}
	l.heard = true
	for i, n := range b.Shards {
		if i >= len(b.Terms) || n >= shards || l.told[n] == b.Terms[i] {
			continue
		}
		l.told[n] = b.Terms[i]
		e.hubOf(n).tell(&linked{shard: n, term: b.Terms[i], epoch: l.epoch, up: l.up})
	}
}

// Down takes one message of the core.
func (e *Edge) Down(m *link.Down) {
	if m.Shard < shards {
		e.hubOf(m.Shard).tell(m)
	}
}

// LinkDown ends an epoch. Sockets, watches and views stay; commands are answered as moving.
func (e *Edge) LinkDown(epoch uint64) {
	l := &e.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		return
	}
	l.up, l.epoch, l.heard = nil, 0, false
	l.lost = e.clock()
	for _, h := range e.hubs {
		h.tell(&unlinked{epoch})
	}
}

// second runs once a second.
func (e *Edge) second(n int64) {
	l := &e.link
	l.mu.Lock()
	up, lost := l.up, l.lost
	if !l.heard {
		up = nil
	}
	l.mu.Unlock()
	if over := n - lost/1000 - cutOffAfter; lost != 0 && over >= 0 {
		e.cutOff(over)
	}
	if up != nil {
		up.Beat(&link.Beat{Sessions: uint64(max(e.count.sessions.Load(), 0)), Draining: e.draining.Load()})
	}
	if n%60 == 0 {
		for _, h := range e.hubs {
			h.tell(minute{})
		}
	}
}

const (
	cutOffAfter  = 10 // s without a link until clients are sent elsewhere
	cutOffSpread = 5  // s over which they are
)

// cutOff closes a part of the sockets in each second after the link has been lost for too long.
func (e *Edge) cutOff(second int64) {
	e.sockets.each(func(s *socket) {
		if s.phase() == live && (second >= cutOffSpread || int64(s.conn>>22%cutOffSpread) == second) {
			s.close(closeCutOff)
		}
	})
}

// linked announces a shard and opens it: nothing else for (shard, term) goes before.
func (h *hub) linked(m *linked) {
	sh := h.shards[m.shard]
	if m.term < sh.term {
		return
	}
	if m.term > sh.term {
		sh.term = m.term
		for i := range sh.entries {
			sh.entries[i].version = 0
		}
	}
	sh.link, sh.epoch, sh.open = m.up, m.epoch, true
	h.edge.count.announced.Add(1)
	if !h.announce(m.shard, "", "") {
		sh.open = false
		return
	}
	waiting := sh.waiting
	sh.waiting = nil
	for _, w := range waiting {
		if h.calls[w.call] != nil {
			h.upSoon(m.shard, w.call, w.up)
		}
	}
}

func (h *hub) unlinked(epoch uint64) {
	for _, sh := range h.shards {
		if sh != nil && sh.epoch == epoch {
			sh.open, sh.link = false, nil
		}
	}
}

// announceAgain announces a shard, or one user of it, whose activation was lost.
func (h *hub) announceAgain(n uint32, a *link.AnnounceAgain) {
	if !h.announce(n, a.App, a.User) {
		h.shards[n].open = false
	}
}

const announceChunk = 1000 // sessions or watches in one message

// announce sends all that this edge holds of a shard, or of one user of it: sessions, then watches and rooms.
func (h *hub) announce(n uint32, app, user string) bool {
	id := h.edge.calls.Add(1)
	send := func(a *link.Announce) bool {
		a.Id, a.Term, a.App, a.User = id, h.shards[n].term, app, user
		return h.up(n, &link.Up{Body: &link.Up_Announce{Announce: a}})
	}
	one := presence.Key{App: app, User: user}
	a := &link.Announce{}
	for _, u := range h.edge.users.all(n) {
		if user != "" && u.key != one {
			continue
		}
		for _, s := range u.conns() {
			if !s.has(isAttached) || s.phase() >= closing {
				continue
			}
			at := s.attach(0, true)
			at.Claims = s.self.claims(h.edge.clock())
			a.Sessions = append(a.Sessions, at)
			if len(a.Sessions) == announceChunk {
				if !send(a) {
					return false
				}
				a = &link.Announce{}
			}
		}
	}
	a.SessionsDone = true
	if !send(a) {
		return false
	}
	return h.announceWatches(n, one, send)
}

func (h *hub) announceWatches(n uint32, one presence.Key, send func(*link.Announce) bool) bool {
	sh := h.shards[n]
	lists := make(map[*local]*link.Interest)
	seen := make(map[string]*link.Seen)
	for i := range sh.entries {
		e := &sh.entries[i]
		if len(e.rows) == 0 || one.User != "" && e.key != one {
			continue
		}
		if e.seen {
			if seen[e.key.App] == nil {
				seen[e.key.App] = &link.Seen{App: e.key.App}
			}
			seen[e.key.App].Users = append(seen[e.key.App].Users, e.key.User)
		}
		for _, r := range e.rows {
			s := h.edge.sockets.get(r.socket())
			if s == nil || s.who == nil {
				continue
			}
			in := lists[s.who]
			if in == nil {
				in = &link.Interest{App: s.who.key.App, Watcher: s.who.key.User, Hidden: s.who.hidden.Load()}
				lists[s.who] = in
			}
			if k := len(in.Add); k == 0 || in.Add[k-1] != e.key.User {
				in.Add = append(in.Add, e.key.User)
			}
		}
	}
	a, size := &link.Announce{}, 0
	for _, in := range lists {
		a.Watches = append(a.Watches, in)
		if size += len(in.Add); size >= announceChunk {
			if !send(a) {
				return false
			}
			a, size = &link.Announce{}, 0
		}
	}
	for _, s := range seen {
		a.Seen = append(a.Seen, s)
	}
	if one.User == "" {
		for key, r := range sh.rooms {
			for i := range r.seats {
				a.Rooms = append(a.Rooms, r.seats[i].command(key.App, key.User, 0))
			}
		}
	}
	a.Done = true
	return send(a)
}

// views takes an answer to interest, or the views the core sends after an announcement or when users are no longer
// pending: those go to the watcher's sockets as pushes.
func (h *hub) views(m *link.Down, v *link.Views) {
	if v.Call != 0 && h.answered(v.Call, m) {
		return
	}
	key := presence.Key{App: v.App, User: v.Watcher}
	u := h.edge.users.get(userShard(key), key)
	if u == nil {
		return
	}
	now := h.edge.clock()
	for _, lr := range v.Rows {
		ref, ok := h.lookup(m.Shard, presence.Key{App: v.App, User: lr.User})
		if !ok {
			continue
		}
		e := h.entry(ref)
		newer := lr.Version > e.version
		if newer && !lr.Pending {
			e.version = lr.Version
		}
		for _, s := range u.conns() {
			r := e.row(s.idx)
			if r == nil {
				continue
			}
			changed := r.mask() != lr.Mask
			r.setMask(lr.Mask)
			if lr.Pending {
				continue
			}
			e.seen = e.seen || lr.View.GetState() != uint32(presence.Offline)
			if newer || changed || r.is(rowOwed) {
				e.show(&shade{mask: lr.Mask, user: e.key.User, term: m.Term, version: lr.Version, view: lr.View})
				h.mark(ref, e, r, now)
			}
		}
		if e.queued == 0 {
			e.views = nil
		}
	}
}

// remask takes over new masks of rows and what they now show.
func (h *hub) remask(n uint32, m *link.Remask) {
	ref, ok := h.lookup(n, presence.Key{App: m.App, User: m.User})
	if !ok {
		return
	}
	e := h.entry(ref)
	e.version = max(e.version, m.Version)
	now := h.edge.clock()
	for _, v := range m.Views {
		e.show(&shade{mask: v.Mask, user: e.key.User, term: h.shards[n].term, version: m.Version, view: v})
	}
	for i, watcher := range m.Watchers {
		key := presence.Key{App: m.App, User: watcher}
		u := h.edge.users.get(userShard(key), key)
		if u == nil || i >= len(m.Masks) {
			continue
		}
		for _, s := range u.conns() {
			if r := e.row(s.idx); r != nil {
				r.setMask(m.Masks[i])
				h.mark(ref, e, r, now)
			}
		}
	}
	if e.queued == 0 {
		e.views = nil
	}
}

// note takes over what a user shows itself: what everyone may see goes on to its rooms.
func (h *hub) note(u *local, term uint64, v *link.SelfView) {
	if u.hidden.Swap(v.Hidden) != v.Hidden {
		for _, other := range h.edge.hubs {
			h.pass(other, &rehidden{u})
		}
	}
	was, hid := u.shown, u.invisible
	u.invisible = v.Invisible
	u.shown = shown{term: term, version: v.Version}
	if v.View != nil && v.Everyone&uint32(presence.FieldState) != 0 && !v.Invisible {
		u.shown.state = v.View.State
	}
	if was.state != u.shown.state || hid != u.invisible {
		h.relay(u)
	}
}

// self tells a user's own devices what it shows.
func (h *hub) self(term uint64, v *link.SelfView) {
	key := presence.Key{App: v.App, User: v.User}
	u := h.edge.users.get(userShard(key), key)
	if u == nil {
		return
	}
	h.note(u, term, v)
	var all *cast
	for _, s := range u.conns() {
		if !s.has(isAttached) {
			continue // its reply to connect says it
		}
		if all == nil {
			all = newCast(&wire.Push{Self: selfOf(term, v)})
		}
		h.post(s, all.frame(s.codec))
	}
}

// closeConn ends a socket at the core's order: taken over, kicked, revoked.
func (h *hub) closeConn(c *link.CloseConn) {
	s := h.edge.sockets.byConn(c.Conn)
	if s == nil || s.phase() == fresh || s.who.key != (presence.Key{App: c.App, User: c.User}) {
		return
	}
	code := wire.CloseCode(c.Code)
	end := ending{code: code, cause: link.Cause_KICKED}
	switch code {
	case wire.CloseReplaced:
		end.cause = link.Cause_REPLACED
	case wire.CloseRevoked:
		end.cause = link.Cause_REVOKED_TOKEN
		s.push(&wire.Push{SessionRevoked: &wire.SessionRevokedPush{Reason: c.Reason}})
	}
	s.closeWith(end, c.Reason)
}
