package presence

import (
	"slices"
	"strings"
)

// session is a device's logical connection. id "" is a presumed one.
type session struct {
	id, device  string
	jti, client string
	conn        Conn // the current or the last
	attempt     uint64
	off         int64 // detached at, Unix ms; 0: live
	end         int64 // of the grace, Unix ms, while off
	iat         int64
	grace       int32  // asked for, ms; negative: the server's
	minute      uint32 // last user input, Unix minutes
	class       Class
	cause       Cause
	flags       sessionFlags
}

type sessionFlags uint8

const (
	flagAway sessionFlags = 1 << iota
	flagInactive
	flagEnded // the grace is over, the session only remembered
)

type phase uint8

const (
	live phase = iota
	inGrace
	resumable
)

func (s *session) phase() phase {
	switch {
	case s.off == 0:
		return live
	case s.flags&flagEnded == 0:
		return inGrace
	}
	return resumable
}

func (s *session) resumeEnd(cfg *Config) int64 { return max(s.end, s.off+cfg.Resumable.Milliseconds()) }

func (s *session) set(flag sessionFlags, on bool) {
	s.flags &^= flag
	if on {
		s.flags |= flag
	}
}

// goodbye reports that the session ends with its conn and cannot be resumed.
func (c Cause) goodbye() bool { return c == Bye || c == Kicked || c == Revoked }

// graceOf is how long, in ms, the session outlives its conn.
func (s *session) graceOf(cfg *Config, c Cause) int64 {
	if c.goodbye() {
		return 0
	}
	grace, most := cfg.GraceSilence, cfg.MaxGrace
	switch c {
	case Gone:
		grace = cfg.GraceGone
	case NodeLost:
		grace = cfg.GraceNodeLost
	}
	if s.class == Mobile && s.flags&flagInactive != 0 {
		grace, most = max(grace, cfg.GraceInactive), max(most, cfg.MaxGraceInactive)
	}
	ms := grace.Milliseconds()
	if s.grace >= 0 {
		ms = min(int64(s.grace), most.Milliseconds())
	}
	if c == Drain {
		ms = max(ms, cfg.GraceDrain.Milliseconds())
	}
	return ms
}

func (u *User) byID(id string) int {
	return slices.IndexFunc(u.sessions, func(s session) bool { return s.id == id && id != "" })
}

func (u *User) byDevice(device string) int {
	return slices.IndexFunc(u.sessions, func(s session) bool { return s.device == device && s.id != "" })
}

// current finds the live session whose conn is meant; -1 if it is not the current one.
func (u *User) current(id string, conn Conn) int {
	i := u.byID(id)
	if i < 0 || u.sessions[i].phase() != live || u.sessions[i].conn != conn {
		return -1
	}
	return i
}

var notAttached = Reply{Code: NotAttached, Message: "the conn is not the session's current one"}

func bad(message string) Reply { return Reply{Code: BadRequest, Message: message} }

// validID reports whether an id is usable: 1 to 128 bytes.
func validID(id string) bool { return id != "" && len(id) <= 128 }

// attach binds a.Conn: a connect, a resume or a takeover.
func (u *User) attach(now int64, a *Attach, out *Output) Reply {
	i, r := u.admit(a)
	if r.Code != OK {
		return r
	}
	if i < 0 {
		if r := u.makeRoom(now, out); r.Code != OK {
			return r
		}
	}
	return u.bind(now, i, a, out)
}

// admit checks an attach and finds the device's session (-1: none).
func (u *User) admit(a *Attach) (int, Reply) {
	if !validID(a.Session) || !validID(a.Device) || a.Class >= classes || a.Conn == (Conn{}) {
		return -1, bad("conn, session, device or class: missing or not known")
	}
	if u.isRevoked(a.IssuedAt, a.JTI) {
		return -1, Reply{Code: RevokedToken, Message: "the token was revoked"}
	}
	i := u.byDevice(a.Device)
	if j := u.byID(a.Session); j >= 0 && j != i {
		return -1, bad("the session belongs to another device")
	}
	if i >= 0 && u.sessions[i].id == a.Session && a.Attempt < u.sessions[i].attempt {
		return i, Reply{Code: StaleAttempt, Message: "a newer attempt of the session is known"}
	}
	return i, Reply{}
}

// bind gives the conn to the session at i, or to a new one if i < 0.
func (u *User) bind(now int64, i int, a *Attach, out *Output) Reply {
	resumed, what := false, didAttach
	if i < 0 {
		if p := slices.IndexFunc(u.sessions, func(s session) bool { return s.id == "" }); a.Resume && p >= 0 {
			u.sessions = slices.Delete(u.sessions, p, p+1)
			resumed, what = true, didAdopt
		}
		u.sessions = append(slices.Grow(u.sessions, 1), session{id: a.Session, device: a.Device})
		i = len(u.sessions) - 1
	}
	s := &u.sessions[i]
	again := s.phase() == live && s.conn == a.Conn && s.id == a.Session
	if s.conn != (Conn{}) {
		if s.phase() == live && s.conn != a.Conn {
			out.Sends = append(out.Sends, CloseConn{s.conn, CloseReplaced, "replaced"})
		}
		resumed, what = s.id == a.Session, didResume
		if !resumed {
			what = didReplace
			u.endClaimsOf(s.id)
		} else if s.phase() == live && s.conn != a.Conn {
			what = didTakeOver
		}
	}
	at := now
	if !a.ActiveAt.IsZero() {
		at = min(a.ActiveAt.UnixMilli(), now)
	}
	minute := uint32(at / 60000)
	if s.id == a.Session {
		minute = max(minute, s.minute)
	}
	grace := int32(-1)
	if a.Grace >= 0 {
		grace = int32(min(a.Grace, u.cfg.MaxGraceInactive).Milliseconds())
	}
	*s = session{
		id: a.Session, device: s.device, conn: a.Conn, attempt: a.Attempt, class: a.Class,
		jti: a.JTI, iat: a.IssuedAt, client: a.Client, grace: grace, minute: minute,
	}
	s.set(flagAway, a.Away)
	s.set(flagInactive, a.Inactive)
	u.active = max(u.active, at)
	u.news = selfNews
	if !again {
		u.note(now, what, NoCause)
	}
	if a.Outbox != nil {
		u.read(now, a, out)
	}
	return Reply{Session: s.id, Resumed: resumed, Hidden: u.audience().hidden(), Self: needSelf}
}

// makeRoom keeps the device limit before a session is added.
func (u *User) makeRoom(now int64, out *Output) Reply {
	alive := 0
	for i := range u.sessions {
		if u.sessions[i].phase() == live {
			alive++
		}
	}
	if u.cfg.RejectDevices && alive >= u.cfg.Devices {
		return Reply{Code: DeviceLimit, Message: "too many devices"}
	}
	for len(u.sessions) >= u.cfg.Devices {
		i := slices.IndexFunc(u.sessions, func(s session) bool { return s.phase() == resumable })
		if i < 0 {
			i = slices.IndexFunc(u.sessions, func(s session) bool { return s.phase() == inGrace && s.id != "" })
		}
		if i < 0 {
			i = slices.IndexFunc(u.sessions, func(s session) bool { return s.phase() == live })
		}
		if i < 0 {
			break
		}
		u.end(now, i, Kicked, CloseConn{Code: CloseDeviceLimit, Reason: "device limit"}, out)
	}
	return Reply{}
}

// end removes the session at i at once and, unless out is nil, orders its conn closed.
func (u *User) end(now int64, i int, why Cause, order CloseConn, out *Output) {
	s := &u.sessions[i]
	if s.phase() == live {
		u.gone = now
		if out != nil {
			order.Conn = s.conn
			out.Sends = append(out.Sends, order)
		}
	}
	if s.phase() != resumable {
		u.why = why
	}
	u.endClaimsOf(s.id)
	u.sessions = slices.Delete(u.sessions, i, i+1)
	u.news = max(u.news, countNews)
	u.note(now, didEnd, why)
}

func (u *User) detachConn(now int64, d *Detach) Reply {
	i := u.current(d.Session, d.Conn)
	if i < 0 || u.sessions[i].attempt != d.Attempt {
		return notAttached
	}
	s := &u.sessions[i]
	s.set(flagAway, d.Away)
	s.set(flagInactive, d.Inactive)
	u.touch(s, d.ActiveAt.UnixMilli(), now)
	u.detach(now, i, d.Cause)
	return Reply{}
}

// touch notes user input at a time; times that are unknown or ahead count as known ones.
func (u *User) touch(s *session, at, now int64) {
	if at > 0 {
		at = min(at, now)
		s.minute = max(s.minute, uint32(at/60000))
		u.active = max(u.active, at)
	}
}

// detach starts the grace of the live session at i, or ends it.
func (u *User) detach(now int64, i int, c Cause) {
	s := &u.sessions[i]
	u.news = max(u.news, countNews)
	u.gone = now
	if c.goodbye() {
		u.end(now, i, c, CloseConn{}, nil)
		return
	}
	if c != Drain {
		u.lost++
	}
	s.off, s.cause = now, c
	s.end = now + s.graceOf(u.cfg, c)
	u.note(now, didDetach, c)
	if s.end <= now {
		u.offline(now, s)
	}
}

// offline ends the grace of a session that stays resumable.
func (u *User) offline(now int64, s *session) {
	s.flags |= flagEnded
	u.why = s.cause
	u.news = max(u.news, countNews)
	u.endClaimsOf(s.id)
	u.note(now, didOffline, s.cause)
}

// expireSessions ends graces, the earliest first, and forgets what is no longer resumable.
func (u *User) expireSessions(now int64) {
	for {
		var first *session
		for i := range u.sessions {
			s := &u.sessions[i]
			if s.phase() == inGrace && s.end <= now && (first == nil || s.end < first.end) {
				first = s
			}
		}
		if first == nil {
			break
		}
		u.offline(now, first)
	}
	kept := len(u.sessions)
	u.sessions = slices.DeleteFunc(u.sessions, func(s session) bool {
		return s.phase() == resumable && (s.id == "" || s.resumeEnd(u.cfg) <= now)
	})
	if len(u.sessions) < kept {
		u.note(now, didForget, NoCause)
	}
	if len(u.sessions) == 0 {
		u.sessions = nil
	}
}

func (u *User) activity(a *Active) Reply {
	i := u.current(a.Session, a.Conn)
	if i < 0 {
		return notAttached
	}
	s := &u.sessions[i]
	if (s.flags&flagAway != 0) != a.Away {
		s.set(flagAway, a.Away)
		u.news = selfNews
	}
	if !a.ActiveAt.IsZero() {
		at := a.ActiveAt.UnixMilli()
		u.touch(s, at, at)
	}
	return Reply{}
}

func (u *User) edgeLost(now int64, e Edge) {
	for i := range u.sessions {
		if s := &u.sessions[i]; s.phase() == live && s.conn.Holder() == e {
			u.detach(now, i, NodeLost)
		}
	}
}

// extendGrace moves the graces of lost sessions, and of a presumed one, to until.
func (u *User) extendGrace(until int64) {
	for i := range u.sessions {
		if s := &u.sessions[i]; s.phase() == inGrace && s.end < until {
			s.end = until
		}
	}
}

func (u *User) presume(now, until int64) {
	p := -1
	for i := range u.sessions {
		if u.sessions[i].phase() == live {
			return
		}
		if u.sessions[i].id == "" {
			p = i
		}
	}
	if until <= now {
		return
	}
	if p < 0 {
		u.sessions = append(u.sessions, session{off: now, cause: NodeLost, grace: -1})
		p = len(u.sessions) - 1
	}
	u.sessions[p].end = max(u.sessions[p].end, until)
	if u.active == 0 {
		u.active = now
	}
	u.news = max(u.news, countNews)
	u.note(now, didPresume, NodeLost)
}

// announced replaces what an edge holds. A conn that is announced but is not the
// session's newest is ordered closed: the first order may have been lost.
func (u *User) announced(now int64, in *Announced, out *Output) {
	for k := range in.Sessions {
		a := &in.Sessions[k]
		i, r := u.admit(a)
		if r.Code == OK && i >= 0 && u.superseded(&u.sessions[i], a) {
			r.Code = StaleAttempt
		}
		if r.Code == OK && i < 0 {
			r = u.makeRoom(now, out)
		}
		switch r.Code {
		case OK:
			known := i >= 0 && u.sessions[i].phase() == live && u.sessions[i].conn == a.Conn
			u.bind(now, i, a, out)
			if !known {
				u.adoptClaims(now, a)
			}
		case RevokedToken:
			out.Sends = append(out.Sends, CloseConn{a.Conn, CloseRevoked, "revoked"})
		case DeviceLimit:
			out.Sends = append(out.Sends, CloseConn{a.Conn, CloseDeviceLimit, "device limit"})
		default:
			out.Sends = append(out.Sends, CloseConn{a.Conn, CloseReplaced, "replaced"})
		}
	}
	for i := 0; i < len(u.sessions); i++ {
		s := &u.sessions[i]
		held := slices.ContainsFunc(in.Sessions, func(a Attach) bool { return a.Conn == s.conn })
		if s.phase() == live && s.conn.Holder() == in.Edge && !held {
			u.detach(now, i, Silence)
		}
	}
	u.news = max(u.news, countNews)
}

// superseded reports that an announced conn is not newer than the one that is live.
func (u *User) superseded(s *session, a *Attach) bool {
	return s.phase() == live && s.conn != a.Conn && a.Attempt <= s.attempt
}

// kick ends sessions by device, by id, or all.
func (u *User) kick(now int64, k *Kick, out *Output) Reply {
	order := CloseConn{Code: k.Close, Reason: k.Reason}
	if order.Code == 0 {
		order.Code = CloseRevoked
	}
	if order.Reason == "" {
		order.Reason = "kicked"
	}
	if n := u.endAll(now, Kicked, order, out, func(s *session) bool {
		return (k.Device == "" || s.device == k.Device) && (k.Session == "" || s.id == k.Session)
	}); n == 0 {
		return Reply{Code: NotFound, Message: "no such session"}
	}
	return Reply{}
}

func (u *User) endAll(now int64, why Cause, order CloseConn, out *Output, which func(*session) bool) (n int) {
	for i := 0; i < len(u.sessions); {
		if !which(&u.sessions[i]) {
			i++
			continue
		}
		u.end(now, i, why, order, out)
		n++
	}
	if len(u.sessions) == 0 {
		u.sessions = nil
	}
	return n
}

func insertEdge(edges []Edge, e Edge) []Edge {
	i, found := slices.BinarySearchFunc(edges, e, compareEdges)
	if found {
		return edges
	}
	return slices.Insert(edges, i, e)
}

func compareEdges(a, b Edge) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	switch {
	case a.Incarnation < b.Incarnation:
		return -1
	case a.Incarnation > b.Incarnation:
		return 1
	}
	return 0
}
