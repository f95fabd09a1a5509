package edge

import (
	"slices"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

// shard is what this edge holds of one shard: the interest in its users, its rooms, and
// where it is led.
type shard struct {
	term    uint64 // the highest known
	open    bool   // announced on link for term
	link    link.Uplink
	waiting []waiting // until open

	index   map[presence.Key]uint32
	entries []entry
	free    []uint32
	rooms   map[presence.Key]*roomHere // key.User is the room
}

// waiting is a question for when the shard can be reached, if its call lives then.
type waiting struct {
	call uint64
	up   *link.Up
}

func newShard() *shard {
	return &shard{index: make(map[presence.Key]uint32), rooms: make(map[presence.Key]*roomHere)}
}

// entry is a user whom somebody here watches.
type entry struct {
	key     presence.Key
	rows    []row    // by socket
	views   []*shade // current views by mask, while rows are queued
	told    []told   // what rows were last sent, by mask
	version uint64   // of the last change, under the shard's term
	queued  int32    // rows whose socket has yet to be sent the view
	seen    bool     // the last view was not offline
}

// told is the sum of the view that the rows of one mask were sent last, unless they are queued or owed.
type told struct {
	mask uint32
	sum  uint64
}

// row is one socket's watch: 4 bytes of socket number, flags and mask, and 4 of time.
type row struct {
	bits uint32
	sent uint32 // clock ms (truncated) at which the user was last sent to the socket; 0: not yet
}

const (
	maskBits          = uint32(presence.AllFields)
	rowQueued  uint32 = 1 << (iota + 6)
	rowQuiet          // not on the client's screen: 1 s batches
	rowOwed           // the view is to be sent when it comes: it was pending or stale, or is news
	socketBits = 10
)

func (r row) socket() uint32   { return r.bits >> socketBits }
func (r row) mask() uint32     { return r.bits & maskBits }
func (r row) is(f uint32) bool { return r.bits&f != 0 }

func (r *row) set(f uint32, on bool) {
	if r.bits &^= f; on {
		r.bits |= f
	}
}

func (r *row) setMask(m uint32) { r.bits = r.bits&^maskBits | m&maskBits }

// row finds a socket's row.
func (e *entry) row(socket uint32) *row {
	if i, ok := e.find(socket); ok {
		return &e.rows[i]
	}
	return nil
}

func (e *entry) find(socket uint32) (int, bool) {
	return slices.BinarySearchFunc(e.rows, socket, func(r row, s uint32) int { return int(r.socket()) - int(s) })
}

// A ref names an entry in a socket's watch list: shard and index.
const refShift = 26

func refOf(shard, index uint32) uint32 { return shard<<refShift | index }

func (h *hub) entry(ref uint32) *entry {
	return &h.shards[ref>>refShift].entries[ref&(1<<refShift-1)]
}

// lookup finds the ref of a watched user.
func (h *hub) lookup(n uint32, key presence.Key) (ref uint32, ok bool) {
	i, ok := h.shards[n].index[key]
	return refOf(n, i), ok
}

// enter finds or makes the entry of a user.
func (h *hub) enter(n uint32, key presence.Key) uint32 {
	sh := h.shards[n]
	i, ok := sh.index[key]
	if !ok {
		if k := len(sh.free); k > 0 {
			i, sh.free = sh.free[k-1], sh.free[:k-1]
		} else {
			i = uint32(len(sh.entries))
			sh.entries = append(sh.entries, entry{})
		}
		sh.entries[i] = entry{key: key}
		sh.index[key] = i
	}
	return refOf(n, i)
}

// addRow makes s watch ref. fresh is false when it did already.
func (h *hub) addRow(s *socket, ref uint32) (fresh bool) {
	u := s.who
	u.mu.Lock()
	i, ok := slices.BinarySearch(s.watches, ref)
	if !ok {
		s.watches = slices.Insert(s.watches, i, ref)
	}
	u.mu.Unlock()
	if ok {
		return false
	}
	e := h.entry(ref)
	at, _ := e.find(s.idx)
	e.rows = slices.Insert(e.rows, at, row{bits: s.idx << socketBits})
	h.edge.count.watches.Add(1)
	return true
}

// dropRow ends a watch. last reports that no other socket of the user has it.
func (h *hub) dropRow(s *socket, ref uint32) (had, last bool) {
	u := s.who
	u.mu.Lock()
	i, ok := slices.BinarySearch(s.watches, ref)
	if ok {
		s.watches = slices.Delete(s.watches, i, i+1)
		last = !u.watchedByOther(s, ref)
	}
	u.mu.Unlock()
	if ok {
		h.forget(s, ref)
	}
	return ok, last
}

// watchedByOther reports whether another socket of the user watches ref; with u.mu held.
func (u *local) watchedByOther(s *socket, ref uint32) bool {
	for _, o := range u.sockets {
		if o != s {
			if _, ok := slices.BinarySearch(o.watches, ref); ok {
				return true
			}
		}
	}
	return false
}

// forget removes the row of s, what it has queued, and the entry with its last row.
func (h *hub) forget(s *socket, ref uint32) {
	e := h.entry(ref)
	at, ok := e.find(s.idx)
	if !ok {
		return
	}
	if e.rows[at].is(rowQueued) {
		e.unqueue(&e.rows[at])
		if p := h.pend[s.idx]; p != nil {
			p.drop(ref)
		}
	}
	e.rows = slices.Delete(e.rows, at, at+1)
	h.edge.count.watches.Add(-1)
	if n := len(e.rows); n > 0 {
		if cap(e.rows) > 4*n && n > 16 {
			e.rows = slices.Clone(e.rows)
		}
		return
	}
	sh := h.shards[ref>>refShift]
	delete(sh.index, e.key)
	sh.free = append(sh.free, ref&(1<<refShift-1))
	*e = entry{}
}

// unwatchAll drops every row that a socket has in this hub.
func (h *hub) unwatchAll(s *socket) {
	u := s.who
	mine := h.mine(s)
	var ended []uint32
	u.mu.Lock()
	for _, ref := range mine {
		if !u.watchedByOther(s, ref) {
			ended = append(ended, ref)
		}
	}
	s.watches = slices.DeleteFunc(s.watches, func(ref uint32) bool { return h.shards[ref>>refShift] != nil })
	u.mu.Unlock()
	// refs are sorted, so those of one shard come together.
	for len(ended) > 0 {
		n := ended[0] >> refShift
		m := &link.Interest{App: u.key.App, Watcher: u.key.User}
		for len(ended) > 0 && ended[0]>>refShift == n {
			m.Remove = append(m.Remove, h.entry(ended[0]).key.User)
			ended = ended[1:]
		}
		h.up(n, &link.Up{Body: &link.Up_Interest{Interest: m}})
	}
	for _, ref := range mine {
		h.forget(s, ref)
	}
	if p := h.pend[s.idx]; p != nil {
		h.retire(s.idx, p)
	}
}

// watch does this hub's part of a watch or query: changes the rows, asks the shards, and adds what they answer
// to the gathering.
func (h *hub) watch(m *watching) {
	var add, remove [shards][]string
	for _, id := range m.add {
		n := link.ShardOf(m.s.who.key.App, link.KindUser, id)
		add[n] = append(add[n], id)
	}
	for _, id := range m.remove {
		n := link.ShardOf(m.s.who.key.App, link.KindUser, id)
		remove[n] = append(remove[n], id)
	}
	if m.gather.replace {
		h.absent(m.s, m.add, &remove)
	}
	for n := range uint32(shards) {
		if len(add[n]) > 0 || len(remove[n]) > 0 {
			h.watchShard(n, m.s, add[n], remove[n], m.gather)
		}
	}
	if m.gather.visible != nil {
		h.setVisible(m.s, m.gather.visible)
	}
	m.gather.arrive(h)
}

// mine lists the socket's refs in this hub.
func (h *hub) mine(s *socket) (refs []uint32) {
	s.who.mu.Lock()
	defer s.who.mu.Unlock()
	for _, ref := range s.watches {
		if h.shards[ref>>refShift] != nil {
			refs = append(refs, ref)
		}
	}
	return refs
}

// absent adds the watched users that are not in keep to those to remove.
func (h *hub) absent(s *socket, keep []string, remove *[shards][]string) {
	stay := visibleSet(keep)
	for _, ref := range h.mine(s) {
		if user := h.entry(ref).key.User; !stay[user] {
			remove[ref>>refShift] = append(remove[ref>>refShift], user)
		}
	}
}

// setVisible puts the watched users who are not on the client's screen on batches.
func (h *hub) setVisible(s *socket, visible map[string]bool) {
	for _, ref := range h.mine(s) {
		e := h.entry(ref)
		if r := e.row(s.idx); r != nil {
			r.set(rowQuiet, !visible[e.key.User])
		}
	}
	h.wake(s)
}

func (h *hub) watchShard(n uint32, s *socket, add, remove []string, g *gather) {
	if s.phase() >= closing {
		return // a row for it would be nobody's
	}
	key := s.who.key
	in := &link.Interest{App: key.App, Watcher: key.User, Hidden: s.who.hidden.Load(), Add: add}
	if !g.query {
		for _, id := range remove {
			if ref, ok := h.lookup(n, presence.Key{App: key.App, User: id}); ok {
				if had, last := h.dropRow(s, ref); had && last {
					in.Remove = append(in.Remove, id)
				}
			}
		}
		s.who.mu.Lock()
		s.watches = slices.Grow(s.watches, len(add))
		s.who.mu.Unlock()
		for _, id := range add {
			h.addRow(s, h.enter(n, presence.Key{App: key.App, User: id}))
		}
	}
	if len(add) == 0 {
		if len(in.Remove) > 0 {
			h.up(n, &link.Up{Body: &link.Up_Interest{Interest: in}})
		}
		return
	}
	g.depart()
	call := h.expect(n, short, func(d *link.Down) {
		if d == nil {
			h.owe(n, s, add, g.query)
			g.miss(add)
		} else {
			v := d.GetViews()
			h.replied(n, s, v, g.query)
			g.take(d.Term, v)
		}
		g.arrive(h)
	})
	var up *link.Up
	if g.query {
		up = &link.Up{Body: &link.Up_Query{Query: &link.Query{
			Call: call, App: key.App, Watcher: key.User, Hidden: in.Hidden, Users: add,
		}}}
	} else {
		in.Call = call
		up = &link.Up{Body: &link.Up_Interest{Interest: in}}
	}
	if !h.up(n, up) {
		h.answered(call, nil)
	}
}

// renewRows sends the rows of a user again whose reciprocity has changed; the answer brings the new masks.
func (h *hub) renewRows(u *local) {
	var refs []uint32
	u.mu.Lock()
	for _, s := range u.sockets {
		refs = append(refs, s.watches...)
	}
	u.mu.Unlock()
	slices.Sort(refs)
	lists := make(map[uint32][]string)
	for _, ref := range slices.Compact(refs) {
		if n := ref >> refShift; h.shards[n] != nil {
			if user := h.entry(ref).key.User; user != "" {
				lists[n] = append(lists[n], user)
			}
		}
	}
	for n, add := range lists {
		h.up(n, &link.Up{Body: &link.Up_Interest{Interest: &link.Interest{
			App: u.key.App, Watcher: u.key.User, Hidden: u.hidden.Load(), Add: add,
		}}})
	}
}

// owe notes that a socket was told "pending" of users.
func (h *hub) owe(n uint32, s *socket, users []string, query bool) {
	if query {
		return
	}
	for _, id := range users {
		if ref, ok := h.lookup(n, presence.Key{App: s.who.key.App, User: id}); ok {
			if r := h.entry(ref).row(s.idx); r != nil {
				r.set(rowOwed, true)
			}
		}
	}
}

// replied takes over what the answer to a watch of s shows it, and the masks for all sockets of the watcher.
func (h *hub) replied(n uint32, s *socket, v *link.Views, query bool) {
	u := h.edge.users.get(userShard(presence.Key{App: v.App, User: v.Watcher}), presence.Key{App: v.App, User: v.Watcher})
	if query || u == nil {
		return
	}
	for _, lr := range v.Rows {
		ref, ok := h.lookup(n, presence.Key{App: v.App, User: lr.User})
		if !ok {
			continue
		}
		e := h.entry(ref)
		if !lr.Pending {
			h.learn(e, lr)
		}
		for _, other := range u.conns() {
			if r := e.row(other.idx); r != nil {
				owed := lr.Pending || r.is(rowOwed) || r.mask() != lr.Mask
				told := other == s && !lr.Pending
				r.setMask(lr.Mask)
				r.set(rowOwed, owed && !told)
			}
		}
	}
}

// shade is what the watchers with one mask see of a user, encoded at most once.
type shade struct {
	mask    uint32
	user    string
	term    uint64
	version uint64
	view    *link.View // nil: offline with nothing to show
	entry   [codecs][]byte
	frame   [codecs][]byte
}

func (v *shade) encoded(c codec) []byte {
	b := &v.entry[c.number()]
	if *b == nil {
		*b = c.appendPresence(nil, presenceOf(v.user, v.term, v.version, v.view))
	}
	return *b
}

// framed is the frame that carries this view alone.
func (v *shade) framed(c codec) []byte {
	b := &v.frame[c.number()]
	if *b == nil {
		e := v.encoded(c)
		*b = sealFrame(c.appendPresences(newFrame(make([]byte, 0, len(e)+wire.PresencePushOverhead+maxHeader)), e), c.opcode())
	}
	return *b
}
