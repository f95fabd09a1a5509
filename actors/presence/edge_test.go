package presence

import (
	"slices"
)

// vedge is an edge: a link, sockets, and a hub that keeps what its watchers see.
type vedge struct {
	name        string
	incarnation uint64
	alive       bool
	linked      bool
	draining    bool
	outbox      []GatewayInput
	inbox       []down
	conns       map[uint64]*vconn
	next        uint64
	announceID  uint64
	term        uint64
	hub         map[string]map[string]*seen // watcher → watched
	hidden      map[string]Mask
	versions    map[string]Version
	holdBack    bool // announcements wait (a slow edge)
}

type vconn struct {
	user   string
	attach Attach
	on     bool
}

// seen is what a watcher sees of a user.
type seen struct {
	known   bool // a snapshot has come
	mask    Mask
	pending bool
	view    View
}

type down struct {
	term uint64
	m    any
}

type attached struct {
	in    Attach
	reply Reply
}

type claimed struct{ in SetClaim }

func (e *vedge) id() Edge { return Edge{e.name, e.incarnation} }

// start brings an edge up, as a new incarnation if it was there.
func (w *world) start(name string) *vedge {
	e := w.edges[name]
	if e == nil {
		e = &vedge{name: name}
		w.edges[name] = e
	}
	*e = vedge{
		name: name, incarnation: e.incarnation + 1, alive: true, conns: map[uint64]*vconn{}, next: 100 * (e.incarnation + 1),
		hub: map[string]map[string]*seen{}, hidden: map[string]Mask{}, versions: map[string]Version{},
	}
	e.relink(w)
	return e
}

// relink starts a new epoch and announces.
func (e *vedge) relink(w *world) {
	if !e.alive || e.linked {
		return
	}
	e.linked = true
	e.outbox = append(e.outbox, EdgeUp{e.id()})
	e.term = w.term
	e.announce(w)
}

// cut loses the link with all that is on it.
func (e *vedge) cut(w *world) {
	if !e.linked {
		return
	}
	e.linked = false
	e.outbox, e.inbox = nil, nil
	for _, id := range e.connIDs() {
		if !e.conns[id].on {
			e.giveUp(w, id)
		}
	}
	e.outbox = nil
	w.gateway(EdgeDown{e.id()})
}

// kill ends the process; the core learns of it when told.
func (e *vedge) kill(w *world) {
	e.linked, e.alive = false, false
	e.outbox, e.inbox = nil, nil
	for _, id := range e.connIDs() {
		c := w.clientOf(e, id)
		delete(e.conns, id)
		if c != nil {
			w.lose(c, NodeLost)
		}
	}
}

// newTerm: another leader has opened the shard; what was on its way is lost.
func (e *vedge) newTerm(w *world) {
	e.outbox = nil
	if !e.linked {
		return
	}
	for _, id := range e.connIDs() {
		if !e.conns[id].on {
			e.giveUp(w, id)
		}
	}
	e.term = w.term
	e.outbox = []GatewayInput{EdgeUp{e.id()}}
	if !e.holdBack {
		e.announce(w)
	}
}

func (e *vedge) connIDs() []uint64 {
	ids := make([]uint64, 0, len(e.conns))
	for id := range e.conns {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// announce sends all that the edge holds, in chunks of two.
func (e *vedge) announce(w *world) {
	e.announceID++
	msg := func() Announce { return Announce{Edge: e.id(), ID: e.announceID, Term: e.term} }
	a := msg()
	for _, id := range e.connIDs() {
		c := e.conns[id]
		a.Sessions = append(a.Sessions, UserAttach{Key{testApp, c.user}, c.attach})
		if len(a.Sessions) == 2 {
			e.outbox = append(e.outbox, a)
			a = msg()
		}
	}
	for _, watcher := range sortedKeys(e.hub) {
		for _, user := range sortedKeys(e.hub[watcher]) {
			if s := e.hub[watcher][user]; s.known && s.view.State != Offline {
				a.Seen = append(a.Seen, Key{testApp, user})
			}
		}
	}
	a.SessionsDone = true
	e.outbox = append(e.outbox, a)
	a = msg()
	for _, watcher := range sortedKeys(e.hub) {
		a.Watches = append(a.Watches, Interest{
			App: testApp, Watcher: Watcher{watcher, e.hidden[watcher]}, Add: sortedKeys(e.hub[watcher]),
		})
	}
	a.Done = true
	e.outbox = append(e.outbox, a)
}

// announceOne answers AnnounceAgain.
func (e *vedge) announceOne(k Key) {
	a := Announce{Edge: e.id(), ID: e.announceID, Term: e.term, Only: k, SessionsDone: true, Done: true}
	for _, id := range e.connIDs() {
		if c := e.conns[id]; c.user == k.User {
			a.Sessions = append(a.Sessions, UserAttach{k, c.attach})
		}
	}
	e.outbox = append(e.outbox, a)
}

func (e *vedge) send(in GatewayInput) {
	if e.linked {
		e.outbox = append(e.outbox, in)
	}
}

// giveUp: an attach was not answered in time.
func (e *vedge) giveUp(w *world, id uint64) {
	if e.conns[id] == nil {
		return
	}
	c := w.clientOf(e, id)
	e.hangUp(id, Gone)
	if c != nil {
		c.state = "off"
	}
}

// hangUp ends a conn. The core is told even if it ordered that: an announcement may have
// crossed the order.
func (e *vedge) hangUp(id uint64, why Cause) {
	v := e.conns[id]
	if v == nil {
		return
	}
	delete(e.conns, id)
	e.send(Deliver{Key{testApp, v.user}, e.id(), Detach{
		Conn: v.attach.Conn, Session: v.attach.Session, Attempt: v.attach.Attempt, Cause: why, Away: v.attach.Away,
	}})
}

func (w *world) clientOf(e *vedge, id uint64) *client {
	if v := e.conns[id]; v != nil {
		if c := w.clients[v.user+"/"+v.attach.Device]; c.edge == e.name && c.conn == id {
			return c
		}
		return nil
	}
	for _, n := range sortedKeys(w.clients) {
		if c := w.clients[n]; c.edge == e.name && c.conn == id {
			return c
		}
	}
	return nil
}

// receive handles what the core says.
func (e *vedge) receive(w *world, d down) {
	if d.term < e.term {
		return
	}
	switch m := d.m.(type) {
	case attached:
		e.attached(w, m)
	case claimed:
		if c := e.conns[m.in.Conn.ID]; c != nil && !m.in.Claim.Durable && m.in.Claim.TTL == 0 {
			claims := slices.DeleteFunc(slices.Clone(c.attach.Claims), func(h Claim) bool { return h.ID == m.in.Claim.ID })
			c.attach.Claims = append(claims, m.in.Claim)
		}
	case CloseConn:
		c := w.clientOf(e, m.Conn.ID)
		e.hangUp(m.Conn.ID, Kicked)
		if c != nil {
			c.state, c.safe = "off", w.now
			if m.Code != CloseReplaced {
				c.session = ""
			}
		}
	case push:
		e.pushed(w, m)
	case *AnnounceAgain:
		e.announceOne(m.Key)
	case *Views:
		for _, r := range m.Rows {
			e.snapshot(w, m.Watcher, r)
		}
	case *Change:
		if e.fresh(w, m.User, m.Version) {
			for _, watcher := range sortedKeys(e.hub) {
				for _, v := range m.Views {
					if s := e.hub[watcher][m.User]; s != nil && s.known && s.mask == v.Mask {
						e.show(w, watcher, m.User, s, *v.View)
					}
				}
			}
		}
	case *Remask:
		if e.fresh(w, m.User, m.Version) {
			e.remask(w, m)
		}
	}
}

func (e *vedge) attached(w *world, m attached) {
	v := e.conns[m.in.Conn.ID]
	c := w.clientOf(e, m.in.Conn.ID)
	if v == nil || c == nil {
		return
	}
	w.log("%s/%s attached to %s: code %d resumed %v", c.user, c.device, e.name, m.reply.Code, m.reply.Resumed)
	if m.reply.Code != OK {
		e.hangUp(m.in.Conn.ID, Kicked)
		c.state = "off"
		if m.reply.Code == StaleAttempt || m.reply.Code == BadRequest {
			c.session = ""
		}
		return
	}
	v.on = true
	c.state = "on"
	c.session = m.reply.Session
}

// fresh reports a version above the last one seen of a user.
func (e *vedge) fresh(w *world, user string, version uint64) bool {
	v := Version{e.term, version}
	if last := e.versions[user]; !last.Less(v) {
		if w.checked {
			w.fail("%s: version of %s not raised: %v after %v", e.name, user, v, last)
		}
		return false
	}
	e.versions[user] = v
	return true
}

func (e *vedge) snapshot(w *world, watcher string, r Row) {
	v := Version{e.term, r.Version}
	if w.checked && v.Less(e.versions[r.User]) {
		w.fail("%s: snapshot of %s goes back: %v after %v", e.name, r.User, v, e.versions[r.User])
	}
	e.versions[r.User] = v
	s := e.hub[watcher][r.User]
	if s == nil {
		return
	}
	s.known, s.mask = true, r.Mask
	if r.Pending {
		if !s.pending {
			w.log("%s@%s: %s is pending", watcher, e.name, r.User)
		}
		s.pending = true
		return
	}
	var view View
	if r.View != nil {
		view = *r.View
	}
	e.show(w, watcher, r.User, s, view)
}

func (e *vedge) remask(w *world, m *Remask) {
	for i, watcher := range m.Watchers {
		s := e.hub[watcher][m.User]
		if s == nil || !s.known {
			continue
		}
		s.mask = m.Masks[i]
		for _, v := range m.Views {
			if v.Mask == s.mask {
				e.show(w, watcher, m.User, s, *v.View)
			}
		}
	}
}

// show gives a watcher a view; nothing is written if it shows the same.
func (e *vedge) show(w *world, watcher, user string, s *seen, v View) {
	if !s.view.Equal(&v) || s.pending {
		if !s.view.Equal(&v) {
			w.log("%s@%s sees %s %s", watcher, e.name, user, v.text())
		}
	}
	s.pending, s.view = false, v
}
