package presence

import (
	"slices"
	"time"
)

// cover is what others see while the user is invisible: what a goodbye at that moment
// would have left, and what happens to it without the user.
type cover struct {
	claims []claim // that belong to the user
}

func (u *User) covered() *cover {
	if u.more == nil {
		return nil
	}
	return u.more.cover
}

// setInvisible hides the user or ends that. Nothing of what the user does meanwhile
// shows: last seen stays at the moment of hiding, claims that a session sets or ends are
// withheld, a later loss of all conns changes nothing.
func (u *User) setInvisible(now int64, in *SetInvisible, out *Output) Reply {
	if in.Session != "" && u.current(in.Session, in.Conn) < 0 {
		return notAttached
	}
	m := u.extra()
	if in.On == (m.cover != nil) {
		return Reply{}
	}
	u.news = selfNews
	if !in.On {
		m.cover = nil
		out.Records = append(out.Records, InvisibleSet{})
		u.note(now, didReveal, NoCause)
		return Reply{}
	}
	m.cover = &cover{}
	for _, c := range m.claims {
		if c.session == "" {
			m.cover.claims = append(m.cover.claims, c)
		}
	}
	if u.view.State != Offline {
		u.last, u.why = now, Bye
	}
	out.Records = append(out.Records, u.coverRecord())
	u.note(now, didHide, NoCause)
	return Reply{}
}

func (u *User) coverRecord() InvisibleSet {
	r := InvisibleSet{On: true, LastSeen: instant(u.last)}
	for i := range u.more.cover.claims {
		r.Claims = append(r.Claims, u.more.cover.claims[i].held())
	}
	return r
}

// audience is the snapshot that decides what others see.
func (u *User) audience() *Audience {
	if u.more != nil && u.more.audience != nil {
		return u.more.audience
	}
	return u.cfg.audience()
}

// rebuild makes the audience anew after a change of what it is made of.
func (u *User) rebuild() {
	m := u.more
	u.news = selfNews
	if len(m.rules) == 0 && len(m.grants) == 0 && len(m.relations) == 0 && m.graph == nil {
		m.audience = nil
		return
	}
	m.audience = u.cfg.audience().with(m.rules, m.grants, m.relations, m.graph)
}

func (u *User) setAudience(now int64, in *SetAudience, out *Output) Reply {
	m := u.extra()
	rules := slices.Clone(m.rules)
	for _, r := range in.Rules {
		if wrong := r.check(u.cfg.Listed); wrong != "" {
			return bad(wrong)
		}
		r.Users = union(nil, r.Users)
		rules = slices.DeleteFunc(rules, func(old FieldRule) bool { return old.Field == r.Field })
		rules = append(rules, r)
	}
	grants := slices.Clone(m.grants)
	for _, g := range in.Grants {
		if !validID(g.To) || g.Fields&^AllFields != 0 || g.Fields == 0 || g.TTL < 0 || g.TTL > u.cfg.MaxGrantTTL {
			return bad("grant: a user, known fields, and a ttl of at most 24h")
		}
		grants = slices.DeleteFunc(grants, func(old HeldGrant) bool { return old.To == g.To })
		if g.TTL > 0 {
			grants = append(grants, HeldGrant{g.To, g.Fields, instant(now).Add(g.TTL)})
		}
	}
	if len(grants) > u.cfg.Listed {
		return Reply{Code: Limit, Message: "grants"}
	}
	slices.SortFunc(rules, func(a, b FieldRule) int { return int(a.Field) - int(b.Field) })
	m.rules, m.grants = rules, grants
	u.rebuild()
	out.Records = append(out.Records, RulesSet{rules, grants})
	u.note(now, didRules, NoCause)
	return Reply{}
}

// endGrants ends some grants.
func (u *User) endGrants(which func(HeldGrant) bool, out *Output) {
	m := u.more
	kept := slices.DeleteFunc(slices.Clone(m.grants), which)
	if len(kept) == len(m.grants) {
		return
	}
	m.grants = kept
	u.rebuild()
	out.Records = append(out.Records, RulesSet{m.rules, m.grants})
}

// revoke notes the cut or the token and ends the sessions that came with what is revoked.
func (u *User) revoke(now int64, in *Revoke, out *Output) Reply {
	if in.Before <= 0 && in.JTI == "" || len(in.JTI) > 256 {
		return bad("revoke: needs before or jti")
	}
	if in.JTI != "" && in.Until*1000 <= now {
		return bad("revoke: until must lie ahead")
	}
	r := &u.extra().revoked
	r.Before = max(r.Before, in.Before)
	if in.JTI != "" {
		tokens := slices.DeleteFunc(slices.Clone(r.Tokens), func(t RevokedJTI) bool { return t.JTI == in.JTI })
		if len(tokens) >= u.cfg.Listed {
			return Reply{Code: Limit, Message: "revoked tokens"}
		}
		r.Tokens = append(tokens, RevokedJTI{in.JTI, in.Until})
	}
	out.Records = append(out.Records, *r)
	u.endAll(now, Revoked, CloseConn{Code: CloseRevoked, Reason: "revoked"}, out, func(s *session) bool {
		return s.id != "" && u.isRevoked(s.iat, s.jti)
	})
	u.news = max(u.news, countNews)
	return Reply{}
}

func (u *User) isRevoked(iat int64, jti string) bool {
	if u.more == nil {
		return false
	}
	r := &u.more.revoked
	return iat < r.Before || jti != "" && slices.ContainsFunc(r.Tokens, func(t RevokedJTI) bool { return t.JTI == jti })
}

func (u *User) expireTokens(now int64, out *Output) {
	r := &u.more.revoked
	kept := slices.DeleteFunc(slices.Clone(r.Tokens), func(t RevokedJTI) bool { return t.Until*1000 <= now })
	if len(kept) < len(r.Tokens) {
		r.Tokens = kept
		out.Records = append(out.Records, *r)
	}
}

func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// union works on sorted lists of ids and never changes what it was given.
func union(sorted, add []string) []string {
	if len(add) == 0 {
		return sorted
	}
	all := append(slices.Clone(sorted), add...)
	slices.Sort(all)
	return slices.Compact(all)
}
