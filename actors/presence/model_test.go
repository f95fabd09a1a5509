package presence

import (
	"maps"
	"slices"
	"sort"
	"time"
)

// model is the naive user: the same rules on plain maps, everything recomputed. It is
// held against User after each step.
type model struct {
	cfg      *Config
	sessions map[string]*modelSession // by device; "" is the presumed one
	born     int
	claims   map[string]modelClaim
	cover    map[string]modelClaim // nil: visible
	rules    map[Mask]FieldRule
	grants   map[string]HeldGrant
	rel      map[string]*modelRelation
	asks     uint64 // serial of the last request for contact
	taken    map[TransferTaken]Code
	waits    map[string]modelWait
	box      *modelBox
	restored bool // no step since
	erased   bool // by this step
	cut      int64
	tokens   map[string]int64
	serial   int
	active   time.Time
	seen     time.Time // last seen for others
	state    State
	since    time.Time
	online   time.Time // since when, before the activation was restored
	reason   Reason
	why      Cause
}

type modelSession struct {
	a        Attach
	born     int
	phase    string // live, grace, over
	off, end time.Time
	cause    Cause
	minute   time.Time
}

type modelClaim struct {
	Claim
	session string
	until   time.Time
	serial  int
}

// result is what the model predicts of a step, besides what others see.
type result struct {
	code    Code
	resumed bool
	closes  []CloseConn

	published *Published
	transfers []TransferOut
	items     []item // of outboxes
}

func newModel(cfg *Config, seen time.Time) *model {
	return &model{
		cfg: cfg, seen: seen, sessions: map[string]*modelSession{}, claims: map[string]modelClaim{},
		rules: map[Mask]FieldRule{}, grants: map[string]HeldGrant{}, tokens: map[string]int64{},
		rel: map[string]*modelRelation{}, taken: map[TransferTaken]Code{}, waits: map[string]modelWait{}, box: newModelBox(),
	}
}

func (m *model) step(owner string, now time.Time, in Input) (r result) {
	now = now.Truncate(time.Millisecond)
	m.why, m.erased = NoCause, false
	if m.restored {
		m.restored = false
		m.tick(now)
	}
	switch in := in.(type) {
	case Attach:
		r = m.attach(now, in, false)
	case Detach:
		r.code = NotAttached
		if s := m.current(in.Session, in.Conn); s != nil && s.a.Attempt == in.Attempt {
			r.code = OK
			s.a.Away, s.a.Inactive = in.Away, in.Inactive
			m.touch(s, in.ActiveAt, now)
			m.detach(now, s, in.Cause)
		}
	case Active:
		r.code = NotAttached
		if s := m.current(in.Session, in.Conn); s != nil {
			r.code = OK
			s.a.Away = in.Away
			m.touch(s, in.ActiveAt, in.ActiveAt)
		}
	case EdgeLost:
		for _, s := range m.ordered() {
			if s.phase == "live" && s.a.Conn.Holder() == in.Edge {
				m.detach(now, s, NodeLost)
			}
		}
	case ExtendGrace:
		for _, s := range m.sessions {
			if s.phase == "grace" && s.end.Before(in.Until) {
				s.end = in.Until
			}
		}
	case Presume:
		m.presume(now, in.Until)
	case Announced:
		r = m.announced(now, in)
	case Kick:
		r = m.kick(in)
	case Tick, Wake:
		m.tick(now)
	default:
		r = m.act(now, in)
	}
	m.stopReading()
	r.items = append(r.items, m.box.pump(now)...)
	m.publish(now)
	r.transfers = append(r.transfers, m.tell(owner)...)
	return r
}

func (m *model) ordered() []*modelSession {
	all := slices.Collect(maps.Values(m.sessions))
	sort.Slice(all, func(i, j int) bool { return all[i].born < all[j].born })
	return all
}

func (m *model) current(id string, c Conn) *modelSession {
	for _, s := range m.sessions {
		if s.a.Session == id && id != "" && s.phase == "live" && s.a.Conn == c {
			return s
		}
	}
	return nil
}

func (m *model) touch(s *modelSession, at, now time.Time) {
	if at.IsZero() {
		return
	}
	if at.After(now) {
		at = now
	}
	if at.After(m.active) {
		m.active = at
	}
	if t := at.Truncate(time.Minute); t.After(s.minute) {
		s.minute = t
	}
}

func (m *model) revoked(a Attach) bool {
	return a.IssuedAt < m.cut || a.JTI != "" && m.tokens[a.JTI] != 0
}

func (m *model) attach(now time.Time, a Attach, announced bool) (r result) {
	old := m.sessions[a.Device]
	switch {
	case m.revoked(a):
		return result{code: RevokedToken}
	case old != nil && old.a.Session == a.Session && a.Attempt < old.a.Attempt:
		return result{code: StaleAttempt}
	}
	for d, s := range m.sessions {
		if s.a.Session == a.Session && d != a.Device {
			return result{code: BadRequest}
		}
	}
	if announced && old != nil && old.phase == "live" && old.a.Conn != a.Conn && a.Attempt <= old.a.Attempt {
		return result{code: StaleAttempt}
	}
	s := &modelSession{a: a, phase: "live"}
	switch {
	case old != nil:
		s.born = old.born
		if old.phase == "live" && old.a.Conn != a.Conn {
			r.closes = append(r.closes, CloseConn{old.a.Conn, CloseReplaced, "replaced"})
		}
		if old.a.Session == a.Session {
			r.resumed, s.minute = true, old.minute
		} else {
			m.endClaims(old.a.Session)
		}
	default:
		if r = m.limit(); r.code != OK {
			return r
		}
		m.born++
		s.born = m.born
		if m.sessions[""] != nil && a.Resume {
			delete(m.sessions, "")
			r.resumed = true
		}
	}
	if a.ActiveAt.IsZero() {
		a.ActiveAt = now
	}
	m.touch(s, a.ActiveAt, now)
	m.sessions[a.Device] = s
	if a.Outbox != nil {
		r.items = append(r.items, m.box.attach(now, a)...)
	}
	return r
}

// limit makes room for one more device.
func (m *model) limit() (r result) {
	lives := 0
	for _, s := range m.sessions {
		if s.phase == "live" {
			lives++
		}
	}
	if m.cfg.RejectDevices && lives >= m.cfg.Devices {
		return result{code: DeviceLimit}
	}
	for _, phase := range []string{"over", "grace", "live"} {
		for _, s := range m.ordered() {
			if len(m.sessions) < m.cfg.Devices || s.phase != phase || s.a.Device == "" {
				continue
			}
			if phase == "live" {
				r.closes = append(r.closes, CloseConn{s.a.Conn, CloseDeviceLimit, "device limit"})
			}
			m.end(s, Kicked)
		}
	}
	return r
}

func (m *model) end(s *modelSession, why Cause) {
	if s.phase != "over" {
		m.why = why
	}
	delete(m.sessions, s.a.Device)
	m.endClaims(s.a.Session)
}

func (m *model) endClaims(session string) {
	for id, c := range m.claims {
		if c.session == session && session != "" {
			delete(m.claims, id)
		}
	}
}

func (m *model) detach(now time.Time, s *modelSession, c Cause) {
	if c == Bye || c == Kicked || c == Revoked {
		m.end(s, c)
		return
	}
	s.phase, s.off, s.cause = "grace", now, c
	d := map[Cause]time.Duration{Gone: m.cfg.GraceGone, NodeLost: m.cfg.GraceNodeLost}[c]
	if c != Gone && c != NodeLost {
		d = m.cfg.GraceSilence
	}
	most := m.cfg.MaxGrace
	if s.a.Class == Mobile && s.a.Inactive {
		d, most = max(d, m.cfg.GraceInactive), m.cfg.MaxGraceInactive
	}
	if s.a.Grace >= 0 {
		d = min(s.a.Grace, most)
	}
	if c == Drain {
		d = max(d, m.cfg.GraceDrain)
	}
	if s.end = now.Add(d); d == 0 {
		m.over(s)
	}
}

func (m *model) over(s *modelSession) {
	s.phase, m.why = "over", s.cause
	m.endClaims(s.a.Session)
}

func (m *model) presume(now, until time.Time) {
	for _, s := range m.sessions {
		if s.phase == "live" {
			return
		}
	}
	if !until.After(now) {
		return
	}
	s := m.sessions[""]
	if s == nil {
		m.born++
		s = &modelSession{phase: "grace", born: m.born, off: now, cause: NodeLost}
		m.sessions[""] = s
	}
	if until.After(s.end) {
		s.end = until
	}
	if m.active.IsZero() {
		m.active = now
	}
}

func (m *model) announced(now time.Time, in Announced) (r result) {
	for _, a := range in.Sessions {
		was := m.sessions[a.Device]
		known := was != nil && was.phase == "live" && was.a.Conn == a.Conn
		one := m.attach(now, a, true)
		switch one.code {
		case OK:
			r.closes = append(r.closes, one.closes...)
			r.items = append(r.items, one.items...)
		case RevokedToken:
			r.closes = append(r.closes, CloseConn{a.Conn, CloseRevoked, "revoked"})
		case DeviceLimit:
			r.closes = append(r.closes, CloseConn{a.Conn, CloseDeviceLimit, "device limit"})
		default:
			r.closes = append(r.closes, CloseConn{a.Conn, CloseReplaced, "replaced"})
		}
		if one.code != OK || known {
			continue
		}
		for _, c := range a.Claims {
			if _, have := m.claims[c.ID]; !have && len(m.claims) < m.cfg.Claims {
				m.serial++
				h := modelClaim{Claim: complete(c), session: a.Session, serial: m.serial}
				if c.TTL > 0 {
					h.until = now.Add(c.TTL)
				}
				m.claims[c.ID] = h
			}
		}
	}
	for _, s := range m.ordered() {
		held := slices.ContainsFunc(in.Sessions, func(a Attach) bool { return a.Conn == s.a.Conn })
		if s.phase == "live" && s.a.Conn.Holder() == in.Edge && !held {
			m.detach(now, s, Silence)
		}
	}
	return r
}

func (m *model) kick(in Kick) (r result) {
	r.code = NotFound
	for _, s := range m.ordered() {
		if (in.Device == "" || in.Device == s.a.Device) && (in.Session == "" || in.Session == s.a.Session) {
			r.code = OK
			if s.phase == "live" {
				r.closes = append(r.closes, CloseConn{s.a.Conn, CloseRevoked, "kicked"})
			}
			m.end(s, Kicked)
		}
	}
	return r
}

func (m *model) tick(now time.Time) {
	all := m.ordered()
	sort.SliceStable(all, func(i, j int) bool { return all[i].end.Before(all[j].end) })
	for _, s := range all {
		if s.phase == "grace" && !s.end.After(now) {
			m.over(s)
		}
	}
	for d, s := range m.sessions {
		until := s.off.Add(m.cfg.Resumable)
		if s.end.After(until) {
			until = s.end
		}
		if s.phase == "over" && (d == "" || !until.After(now)) {
			delete(m.sessions, d)
		}
	}
	for _, claims := range []map[string]modelClaim{m.claims, m.cover} {
		maps.DeleteFunc(claims, func(_ string, c modelClaim) bool { return !c.until.IsZero() && !c.until.After(now) })
	}
	maps.DeleteFunc(m.grants, func(_ string, g HeldGrant) bool { return !g.Until.After(now) })
	m.ends(now)
	maps.DeleteFunc(m.tokens, func(_ string, until int64) bool { return !time.Unix(until, 0).After(now) })
}
