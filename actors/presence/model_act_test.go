package presence

import (
	"maps"
	"slices"
	"sort"
	"time"
)

// act applies commands that change what the user shows.
func (m *model) act(now time.Time, in Input) (r result) {
	switch in := in.(type) {
	case SetClaim:
		if in.Session != "" && m.current(in.Session, in.Conn) == nil {
			return result{code: NotAttached}
		}
		return m.claim(now, in)
	case EndClaim:
		if in.Session != "" && m.current(in.Session, in.Conn) == nil {
			return result{code: NotAttached}
		}
		if _, ok := m.claims[in.ID]; !ok {
			return result{code: NotFound}
		}
		m.endClaim(in.Session, in.ID)
	case SetInvisible:
		if in.Session != "" && m.current(in.Session, in.Conn) == nil {
			return result{code: NotAttached}
		}
		m.invisible(now, in.On)
	case SetAudience:
		for _, f := range in.Rules {
			m.rules[f.Field] = f
		}
		for _, g := range in.Grants {
			delete(m.grants, g.To)
			if g.TTL > 0 {
				m.grants[g.To] = HeldGrant{g.To, g.Fields, now.Add(g.TTL)}
			}
		}
	case Revoke:
		m.cut = max(m.cut, in.Before)
		if in.JTI != "" {
			m.tokens[in.JTI] = in.Until
		}
		for _, s := range m.ordered() {
			if s.a.Device != "" && m.revoked(s.a) {
				if s.phase == "live" {
					r.closes = append(r.closes, CloseConn{s.a.Conn, CloseRevoked, "revoked"})
				}
				m.end(s, Revoked)
			}
		}
	default:
		return m.owned(now, in)
	}
	return r
}

func (m *model) claim(now time.Time, in SetClaim) (r result) {
	c := in.Claim
	if c.TTL != 0 && (c.TTL < m.cfg.MinClaimTTL || c.TTL > m.cfg.MaxClaimTTL) || complete(c).Priority < 1 {
		return result{code: BadRequest}
	}
	if c.ID == Manual && c.State == Online {
		if c.Text+c.Emoji+c.Activity == "" {
			m.endClaim(in.Session, c.ID)
			return r
		}
		c.State = Offline
	}
	c = complete(c)
	if _, have := m.claims[c.ID]; !have && len(m.claims) >= m.cfg.Claims {
		return result{code: Limit}
	}
	m.serial++
	h := modelClaim{Claim: c, serial: m.serial}
	if c.TTL > 0 {
		h.until = now.Add(c.TTL)
	}
	if in.Session != "" && !c.Durable && c.TTL <= m.cfg.DurableTTL {
		h.session = in.Session
	}
	m.claims[c.ID] = h
	if m.cover != nil && in.Session == "" {
		m.cover[c.ID] = h
	}
	return r
}

// complete fills in what the source decides.
func complete(c Claim) Claim {
	if c.Source == "" {
		c.Source = Manual
	}
	if c.Priority < 0 {
		c.Priority = map[string]int{"manual": 90, "call": 70, "api": 60, "calendar": 50, "game": 30}[c.Source]
	}
	return c
}

func (m *model) endClaim(session, id string) {
	if _, have := m.claims[id]; !have {
		return
	}
	delete(m.claims, id)
	if session == "" {
		delete(m.cover, id)
	}
}

func (m *model) invisible(now time.Time, on bool) {
	switch {
	case !on:
		m.cover = nil
	case m.cover == nil:
		m.cover = maps.Clone(m.claims)
		maps.DeleteFunc(m.cover, func(_ string, c modelClaim) bool { return c.session != "" })
		if m.state != Offline {
			m.seen, m.why = now, Bye
		}
	}
}

// best is the winning claim.
func best(claims map[string]modelClaim, owned bool) (w modelClaim) {
	w.Priority = -1
	for _, c := range claims {
		if (c.session == "" || !owned) && (c.Priority > w.Priority || c.Priority == w.Priority && c.serial > w.serial) {
			w = c
		}
	}
	return w
}

// device state of the sessions that count.
func (m *model) there() (State, []DeviceRow) {
	state, classes := Offline, map[Class]State{}
	minutes := map[Class]time.Time{}
	for _, s := range m.sessions {
		if s.phase == "over" {
			continue
		}
		st := Online
		if s.a.Away {
			st = Away
		}
		state = max(state, st)
		if c := s.a.Class; c != NoClass {
			classes[c] = max(classes[c], st)
			if s.minute.After(minutes[c]) {
				minutes[c] = s.minute
			}
		}
	}
	var rows []DeviceRow
	for c, s := range classes {
		rows = append(rows, DeviceRow{c, s})
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i].Class, rows[j].Class
		if !minutes[a].Equal(minutes[b]) {
			return minutes[a].After(minutes[b])
		}
		return a < b
	})
	return state, rows
}

// now is what is shown at best, without times.
func (m *model) raw() (v View) {
	if m.cover != nil {
		w := best(m.cover, true)
		v.Text, v.Emoji = w.Text, w.Emoji
		return v
	}
	state, devices := m.there()
	w := best(m.claims, state == Offline)
	v = View{State: state, Text: w.Text, Emoji: w.Emoji}
	if state != Offline {
		v.Activity, v.Devices = w.Activity, devices
		if w.State != Offline {
			v.State = w.State
		}
	}
	return v
}

// publish keeps the times that depend on the past.
func (m *model) publish(now time.Time) {
	state := m.raw().State
	if m.erased {
		m.state, m.reason = state, map[bool]Reason{true: ReasonKicked}[m.state != Offline]
		return
	}
	if state == m.state {
		return
	}
	m.since = now.Truncate(time.Millisecond)
	if m.state == Offline && !m.online.IsZero() {
		m.since, m.online = m.online, time.Time{}
	}
	if state == Offline {
		if m.cover == nil {
			m.seen = m.active
		}
		m.reason = map[Cause]Reason{Bye: ReasonExplicit, Kicked: ReasonKicked, Revoked: ReasonKicked, NodeLost: ReasonNodeLost, Expired: ReasonExpired}[m.why]
		if m.reason == NoReason {
			m.reason = ReasonTimeout
		}
	}
	m.state = state
}

// view is what the user shows at best.
func (m *model) view() View {
	v := m.raw()
	v.Since = m.since
	if v.State == Offline {
		v.LastSeen, v.Reason = m.seen, m.reason
	}
	return v
}

// mask is the naive audience.
func (m *model) mask(owner string, w Watcher) (mask Mask) {
	if w.User == owner {
		return AllFields
	}
	rel := modelRelation{}
	if x := m.rel[w.User]; x != nil {
		rel = *x
	}
	if rel.blocked || rel.blockedBy {
		return 0
	}
	for i := range fields {
		field := Mask(1) << i
		r, ok := m.rules[field]
		if !ok {
			r = m.cfg.Audience.Rules()[i]
		}
		listed, contact := slices.Contains(r.Users, w.User), rel.from
		see := map[Rule]bool{Everyone: true, Contacts: contact, ContactsExcept: contact && !listed, Only: listed}[r.Rule]
		if w.Hidden&m.cfg.Reciprocal&field != 0 {
			see = false
		}
		if see || m.grants[w.User].Fields&field != 0 {
			mask |= field
		}
	}
	if mask&FieldState == 0 {
		mask &= FieldReceipts
	} else if m.cfg.Buckets && mask&FieldLastSeen == 0 {
		mask |= FieldBucket
	}
	return mask
}

// restore folds records, as Restore does.
func (m *model) restore(records []Record) {
	m.restored = len(records) > 0
	defer m.box.restored(records)
	held := func(h HeldClaim) modelClaim {
		m.serial++
		return modelClaim{Claim: h.Claim, until: h.Until, serial: m.serial}
	}
	for _, r := range records {
		switch r := r.(type) {
		case ClaimSet:
			m.claims[r.Claim.ID] = held(r.HeldClaim)
		case ClaimEnded:
			delete(m.claims, r.ID)
		case InvisibleSet:
			m.cover = nil
			if r.On {
				m.cover, m.seen = map[string]modelClaim{}, r.LastSeen
				for _, h := range r.Claims {
					m.cover[h.Claim.ID] = held(h)
				}
			}
		case RulesSet:
			clear(m.rules)
			clear(m.grants)
			for _, f := range r.Rules {
				m.rules[f.Field] = f
			}
			for _, g := range r.Grants {
				m.grants[g.To] = g
			}
		case RelationSet:
			m.rel[r.Other] = relationOf(r.Relation, r.Asked, r.Heard)
		case NotifySet:
			m.waits[r.Asker] = modelWait{r.Until, r.Hidden}
		case OutboxSet:
			m.box.epoch, m.box.head = r.Epoch, max(m.box.head, r.Head)
			for _, g := range r.Gaps {
				for o := g.From; o <= g.To; o++ {
					m.box.gone[o] = g.Reason
				}
			}
		case EntryPut:
			m.box.entries[r.Entry.Offset] = &modelEntry{r.Entry, r.Body}
			m.box.head = max(m.box.head, r.Entry.Offset)
		case DedupeSet:
			m.box.ids[sentID{r.Sender, r.ID}] = Known{r.Epoch, r.Offset, r.At, r.Digest}
		case DeviceSet:
			m.box.devices[r.Device] = &modelDevice{provider: r.Provider, token: r.Token, day: int64(r.Seen)}
		case Revocations:
			m.cut, m.tokens = r.Before, map[string]int64{}
			for _, t := range r.Tokens {
				m.tokens[t.JTI] = t.Until
			}
		case Marker:
			m.seen, m.online, m.since, m.reason = r.LastSeen, time.Time{}, r.Since, r.Reason
			if r.Online {
				m.online, m.since, m.reason = r.Since, time.Time{}, NoReason
			}
		}
	}
}

// counts are live sessions and those in grace.
func (m *model) counts() (lives, graces int) {
	for _, s := range m.sessions {
		switch s.phase {
		case "live":
			lives++
		case "grace":
			graces++
		}
	}
	return lives, graces
}

// knows reports whether the session is one of the activation's.
func (m *model) knows(id string) bool {
	for _, s := range m.sessions {
		if s.a.Session == id {
			return true
		}
	}
	return false
}
