package presence

import (
	"slices"
	"time"
)

// client returns the device, made if need be.
func (w *world) client(user, device string) *client {
	k := user + "/" + device
	c := w.clients[k]
	if c == nil {
		c = &client{user: user, device: device, state: "off", grace: -1, class: map[string]Class{
			"phone": Mobile, "laptop": Desktop, "tab": Web, "tv": TV, "bot": Bot,
		}[device]}
		w.clients[k] = c
	}
	return c
}

// connect opens a socket; a client that has a session resumes it.
func (w *world) connect(c *client, edge string) {
	e := w.edges[edge]
	if e == nil || !e.linked {
		return
	}
	e.next++
	c.attempt++
	a := Attach{
		Conn: Conn{edge, e.incarnation, e.next}, Session: c.session, Resume: c.session != "", Device: c.device,
		Class: c.class, Attempt: c.attempt, ActiveAt: w.now, Grace: c.grace, IssuedAt: w.now.Unix(), Inactive: c.inactive,
	}
	if c.session == "" {
		w.floods++
		a.Session = c.user + "-" + c.device + "-" + string(rune('a'+w.floods%26)) + string(rune('0'+w.floods/26%10)) + string(rune('0'+w.floods/260%10))
	}
	if c.box != nil {
		pos := c.box.pos
		if c.box.jump {
			pos = Position{}
			*c.box = inbox{}
		}
		a.Outbox = &pos
		w.acks(pos)
	}
	e.conns[e.next] = &vconn{user: c.user, attach: a}
	e.send(Deliver{Key{testApp, c.user}, e.id(), a})
	c.edge, c.conn, c.state = edge, e.next, "connecting"
}

// vconn of a client that believes to be on.
func (w *world) vconn(c *client) (*vedge, *vconn) {
	e := w.edges[c.edge]
	if c.state != "on" || e == nil {
		return nil, nil
	}
	v := e.conns[c.conn]
	if v == nil {
		return nil, nil
	}
	return e, v
}

// lose ends the client's socket for a cause, from its own side.
func (w *world) lose(c *client, why Cause) {
	d := w.cfg.GraceSilence
	switch why {
	case Gone:
		d = w.cfg.GraceGone
	case NodeLost:
		d = w.cfg.GraceNodeLost
	}
	if c.class == Mobile && c.inactive {
		d = max(d, w.cfg.GraceInactive)
	}
	if c.grace >= 0 {
		d = c.grace
	}
	if why == Drain {
		d = max(d, w.cfg.GraceDrain)
	}
	if c.state == "on" {
		c.safe = w.now.Add(d)
	}
	if why.goodbye() {
		c.safe = w.now
		c.session = ""
	}
	c.state = "off"
}

// disconnect ends a live socket and tells the core.
func (w *world) disconnect(c *client, why Cause) {
	e, v := w.vconn(c)
	if v == nil {
		return
	}
	a := &v.attach
	e.send(Deliver{Key{testApp, c.user}, e.id(), Detach{
		Conn: a.Conn, Session: a.Session, Attempt: a.Attempt, Cause: why, Away: a.Away, Inactive: c.inactive, ActiveAt: a.ActiveAt,
	}})
	delete(e.conns, c.conn)
	w.lose(c, why)
}

// activity reports input or idleness.
func (w *world) activity(c *client, away bool) {
	e, v := w.vconn(c)
	if v == nil {
		return
	}
	v.attach.Away = away
	if !away {
		v.attach.ActiveAt = w.now
	}
	e.send(Deliver{Key{testApp, c.user}, e.id(), Active{v.attach.Conn, v.attach.Session, away, v.attach.ActiveAt}})
}

// act sends a command from the client's session, or from the HTTP API if it is not on.
func (w *world) act(user, device string, in func(session string, conn Conn) Input) {
	c := w.clients[user+"/"+device]
	if c != nil {
		if e, v := w.vconn(c); v != nil {
			if end, ok := in(v.attach.Session, v.attach.Conn).(EndClaim); ok {
				v.attach.Claims = slices.DeleteFunc(slices.Clone(v.attach.Claims), func(h Claim) bool { return h.ID == end.ID })
			}
			e.send(Deliver{Key{testApp, user}, e.id(), in(v.attach.Session, v.attach.Conn)})
			return
		}
	}
	w.gateway(Deliver{Key: Key{testApp, user}, In: in("", Conn{})})
}

// watch declares that a watcher at an edge wants to see users.
func (w *world) watch(watcher, edge string, users ...string) {
	e := w.edges[edge]
	if e == nil || !e.alive {
		return
	}
	if e.hub[watcher] == nil {
		e.hub[watcher] = map[string]*seen{}
	}
	for _, u := range users {
		if e.hub[watcher][u] == nil {
			e.hub[watcher][u] = &seen{}
		}
	}
	e.send(Interest{Call: 1, Edge: e.id(), App: testApp, Watcher: Watcher{watcher, e.hidden[watcher]}, Add: users})
}

func (w *world) unwatch(watcher, edge string, users ...string) {
	e := w.edges[edge]
	if e == nil || !e.alive {
		return
	}
	for _, u := range users {
		delete(e.hub[watcher], u)
	}
	if len(e.hub[watcher]) == 0 {
		delete(e.hub, watcher)
	}
	e.send(Interest{Edge: e.id(), App: testApp, Watcher: Watcher{watcher, e.hidden[watcher]}, Remove: users})
}

// missed reports that the user has a session that its activation, new since a loss, has
// not heard of, and that is to be presumed: only of users without any other, and not for
// long.
func (w *world) missed(user string) bool {
	a := w.actors[user]
	if w.met[user] || a != nil && a.m.cover != nil {
		return false
	}
	if !w.marked[user] {
		return false
	}
	for _, lost := range []time.Time{w.silent[user], w.opened} {
		if !lost.IsZero() && !w.now.Before(lost.Add(w.cfg.Presume)) {
			return false
		}
	}
	for _, n := range sortedKeys(w.clients) {
		c := w.clients[n]
		_, v := w.vconn(c)
		if c.user == user && (v != nil || c.state == "off" && w.now.Before(c.safe)) && (a == nil || !a.m.knows(c.session)) {
			return true
		}
	}
	return false
}
