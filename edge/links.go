package edge

import (
	"hash/maphash"
	"slices"

	"google.golang.org/protobuf/proto"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

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
		if !lr.Pending {
			h.learn(e, lr)
			e.show(&shade{mask: lr.Mask, user: e.key.User, term: m.Term, version: lr.Version, view: lr.View})
		}
		for _, s := range u.conns() {
			r := e.row(s.idx)
			if r == nil {
				continue
			}
			r.set(rowOwed, r.is(rowOwed) || r.mask() != lr.Mask)
			r.setMask(lr.Mask)
			if !lr.Pending {
				h.offer(ref, e, r, now)
			}
		}
		if e.queued == 0 {
			e.views = nil
		}
	}
}

// learn takes over a view that came to one watcher. What the others see comes in messages of their own.
func (h *hub) learn(e *entry, lr *link.Row) {
	e.version = max(e.version, lr.Version)
	e.seen = e.seen || lr.View.GetState() != uint32(presence.Offline)
	e.tell(lr.Mask, h.sum(lr.View))
}

// tell takes over the sum of a view. If it is news, the rows of its mask are owed it.
func (e *entry) tell(mask uint32, sum uint64) {
	i := slices.IndexFunc(e.told, func(t told) bool { return t.mask == mask })
	switch {
	case i < 0:
		e.told = append(e.told, told{mask, sum})
	case e.told[i].sum == sum:
		return
	default:
		e.told[i].sum = sum
	}
	for i := range e.rows {
		if r := &e.rows[i]; r.mask() == mask {
			r.set(rowOwed, true)
		}
	}
}

// sum stands for what a view shows. Its version is not part of it.
func (h *hub) sum(v *link.View) uint64 {
	h.summed, _ = proto.MarshalOptions{Deterministic: true}.MarshalAppend(h.summed[:0], v)
	return maphash.Bytes(h.seed, h.summed)
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
		e.tell(v.Mask, h.sum(v))
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
