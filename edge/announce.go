package edge

import (
	"muster/actors/link"
	"muster/actors/presence"
)

// linked announces a shard to the core that leads it and opens it: nothing else for (shard, term) goes before.
func (h *hub) linked(m *linked) {
	h.expire(h.edge.clock()) // after a standstill nothing overdue is sent again
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
	h.unlinked(m.shard)
	sh.link, sh.open = m.up, true
	h.edge.count.announced.Add(1)
	if !h.announce(m.shard, presence.Key{}) {
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

// unlinked closes a shard whose core has gone. Calls in flight that may be sent twice wait for the next core, the others
// are over: their outcome is not known.
func (h *hub) unlinked(n uint32) {
	sh := h.shards[n]
	if !sh.open {
		return
	}
	sh.open, sh.link = false, nil
	for call, c := range h.calls {
		switch {
		case c.shard != n || c.waits:
		case c.again == nil:
			h.answered(call, nil)
		default:
			h.wait(n, call, c.again)
		}
	}
}

// announceAgain announces a shard, or one user of it, whose activation was lost.
func (h *hub) announceAgain(n uint32, a *link.AnnounceAgain) {
	sh := h.shards[n]
	if !h.announce(n, presence.Key{App: a.App, User: a.User}) {
		sh.open = false
		return
	}
	// Sessions whose attach is not answered yet were not announced.
	for call, c := range h.calls {
		if c.shard == n && !c.waits && c.again.GetAttach() != nil {
			h.upSoon(n, call, c.again)
		}
	}
}

const announceBytes = 64 << 10 // of a message of an announcement, about

// announcement is what this edge holds of a shard, or of one user of it, in messages of bounded size.
type announcement struct {
	h    *hub
	n    uint32
	id   uint64
	one  presence.Key // empty: all
	next *link.Announce
	size int
	down bool
}

// room makes sure that the next message has room for so many bytes.
func (a *announcement) room(bytes int) *link.Announce {
	if a.size += bytes; a.size > announceBytes && a.size > bytes {
		a.send()
		a.size = bytes
	}
	return a.next
}

func (a *announcement) send() {
	m := a.next
	m.Id, m.Term, m.App, m.User = a.id, a.h.shards[a.n].term, a.one.App, a.one.User
	a.next, a.size = &link.Announce{}, 0
	if !a.down && !a.h.up(a.n, &link.Up{Body: &link.Up_Announce{Announce: m}}) {
		a.down = true
	}
}

// announce sends all that this edge holds of a shard, or of one user of it: sessions, then watches and rooms. It
// reports false when the link is down.
func (h *hub) announce(n uint32, one presence.Key) bool {
	a := &announcement{h: h, n: n, id: h.edge.calls.Add(1), one: one, next: &link.Announce{}}
	for _, u := range h.edge.users.all(n) {
		if one.User == "" || u.key == one {
			a.sessions(u)
		}
	}
	a.seen()
	a.next.SessionsDone = true
	a.send()
	a.watches()
	if one.User == "" {
		a.rooms()
	}
	a.next.Done = true
	a.send()
	return !a.down
}

func (a *announcement) sessions(u *local) {
	for _, s := range u.conns() {
		if !s.has(isAttached) || s.phase() >= closing {
			continue
		}
		at := s.attach(0, true)
		at.Claims = s.self.claims(a.h.edge.clock())
		bytes := 128 + len(at.App) + len(at.User) + len(at.Device) + len(at.Session) + len(at.Client) + len(at.Jti) + len(at.Node)
		for _, c := range at.Claims {
			bytes += 64 + len(c.Id) + len(c.Text) + len(c.Emoji) + len(c.Activity)
		}
		m := a.room(bytes)
		m.Sessions = append(m.Sessions, at)
	}
}

// seen adds the watched users whose last view here was not offline. They go before the end of the sessions, with which
// the shard may have settled.
func (a *announcement) seen() {
	entries := a.h.shards[a.n].entries
	for i := range entries {
		e := &entries[i]
		if !e.seen || len(e.rows) == 0 || a.one.User != "" && e.key != a.one {
			continue
		}
		m := a.room(8 + len(e.key.App) + len(e.key.User))
		if k := len(m.Seen); k == 0 || m.Seen[k-1].App != e.key.App {
			m.Seen = append(m.Seen, &link.Seen{App: e.key.App})
		}
		seen := m.Seen[len(m.Seen)-1]
		seen.Users = append(seen.Users, e.key.User)
	}
}

// watches adds the interest, by watcher.
func (a *announcement) watches() {
	h, sh := a.h, a.h.shards[a.n]
	lists := make(map[*local][]string)
	for i := range sh.entries {
		e := &sh.entries[i]
		if len(e.rows) == 0 || a.one.User != "" && e.key != a.one {
			continue
		}
		for _, r := range e.rows {
			s := h.edge.sockets.get(r.socket())
			if s == nil || s.who == nil {
				continue
			}
			list := lists[s.who]
			if k := len(list); k == 0 || list[k-1] != e.key.User {
				lists[s.who] = append(list, e.key.User)
			}
		}
	}
	for u, list := range lists {
		in := &link.Interest{App: u.key.App, Watcher: u.key.User, Hidden: u.hidden.Load()}
		var to *link.Announce
		for _, user := range list {
			m := a.room(8 + len(user))
			if m != to {
				to = m
				in = &link.Interest{App: in.App, Watcher: in.Watcher, Hidden: in.Hidden}
				m.Watches = append(m.Watches, in)
				a.size += 16 + len(in.App) + len(in.Watcher)
			}
			in.Add = append(in.Add, user)
		}
	}
}

func (a *announcement) rooms() {
	for key, r := range a.h.shards[a.n].rooms {
		for i := range r.seats {
			c := r.seats[i].command(key.App, key.User, 0)
			m := a.room(128 + len(c.App) + len(c.Room) + len(c.User) + len(c.Session) + len(r.seats[i].info))
			m.Rooms = append(m.Rooms, c)
		}
	}
}
