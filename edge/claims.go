package edge

import (
	"slices"
	"strings"
	"unicode/utf8"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

// ownClaim is a claim that ends with its session. The core forgets it with an activation, so
// the edge keeps it for announcements.
type ownClaim struct {
	claim *link.Claim
	until int64 // clock ms; 0: as long as the session
}

// setClaim sets a claim of the session or, if durable, of the user.
func (h *hub) setClaim(s *socket, c *wire.Command, m *link.Claim) {
	h.act(s, c, &link.Act{What: &link.Act_Claim{Claim: m}}, func() {
		s.self.dropClaim(m.Id)
		if m.Durable {
			return
		}
		own := ownClaim{claim: m}
		if m.TtlMs != 0 {
			own.until = h.edge.clock() + m.TtlMs
		}
		x := s.self.extra()
		x.claims = append(x.claims, own)
	})
}

func (h *hub) endClaim(s *socket, c *wire.Command, id string) {
	h.act(s, c, &link.Act{What: &link.Act_EndClaim{EndClaim: id}}, func() { s.self.dropClaim(id) })
}

func (s *session) dropClaim(id string) {
	if s.rare != nil {
		s.rare.claims = slices.DeleteFunc(s.rare.claims, func(o ownClaim) bool { return o.claim.Id == id })
	}
}

// claims are the session's own, with what is left of their time.
func (s *session) claims(now int64) (list []*link.Claim) {
	if s.rare == nil {
		return nil
	}
	s.rare.claims = slices.DeleteFunc(s.rare.claims, func(o ownClaim) bool { return o.until != 0 && o.until <= now })
	for _, o := range s.rare.claims {
		c := &link.Claim{
			Id: o.claim.Id, Source: o.claim.Source, State: o.claim.State, Text: o.claim.Text, Emoji: o.claim.Emoji,
			Activity: o.claim.Activity, Priority: o.claim.Priority,
		}
		if o.until != 0 {
			c.TtlMs = o.until - now
		}
		list = append(list, c)
	}
	return list
}

// manual is the id of the claim that status sets.
const manual = "manual"

const (
	minTTL     = 10_000                   // ms
	maxTTL     = 30 * 24 * 60 * 60 * 1000 // ms
	durableTTL = 5 * 60 * 1000            // ms; a claim of a longer life belongs to the user
)

// stateWord reads a state as clients write it.
func stateWord(w string) (state presence.State, ok bool) {
	switch strings.ToLower(w) {
	case "online", "chat":
		return presence.Online, true
	case "away", "idle", "xa", "unavailable":
		return presence.Away, true
	case "dnd", "busy":
		return presence.DND, true
	}
	return presence.Offline, false
}

// status sets or ends the manual claim, and the invisible flag with it.
func (h *hub) status(s *socket, c *wire.Command, m *wire.Status) (why string) {
	if strings.EqualFold(m.State, "invisible") {
		h.act(s, c, &link.Act{What: &link.Act_Invisible{Invisible: true}})
		return ""
	}
	state, ok := stateWord(m.State)
	if m.State == "" {
		state, ok = presence.Online, m.Text != "" || m.Emoji != ""
	}
	switch {
	case !ok:
		return "status.state: want online, away, dnd or invisible"
	case badText(m.Text):
		return "status.text: more than 128 characters"
	case len(m.Emoji) > wire.MaxEmoji:
		return "status.emoji: more than 32 bytes"
	case m.TtlMs != 0 && (m.TtlMs < minTTL || m.TtlMs > maxTTL):
		return "status.ttl_ms: want 10000 to 2592000000, or 0"
	}
	if s.who.invisible {
		// Any other status ends it; the claim below is what is answered.
		h.sendAct(s, &link.Act{What: &link.Act_Invisible{}})
	}
	if state == presence.Online && m.Text == "" && m.Emoji == "" {
		h.endClaim(s, c, manual)
		return ""
	}
	h.setClaim(s, c, &link.Claim{
		Id: manual, Source: manual, State: uint32(state), Text: m.Text, Emoji: m.Emoji, Priority: -1,
		TtlMs: int64(m.TtlMs), Durable: m.TtlMs == 0 || m.TtlMs > durableTTL,
	})
	return ""
}

func badText(s string) bool { return utf8.RuneCountInString(s) > wire.MaxText }

func badClaimID(id string) string {
	if !wire.ValidID(id) {
		return "claim id: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -"
	}
	return ""
}

func (h *hub) claim(s *socket, c *wire.Command, m *wire.Claim) (why string) {
	state, ok := stateWord(m.State)
	switch m.Source {
	case "manual", "call", "calendar", "game", "api":
	case "":
		m.Source = "api"
	default:
		return "claim.source: want manual, call, calendar, game or api"
	}
	switch {
	case badClaimID(m.Id) != "":
		return badClaimID(m.Id)
	case !ok:
		return "claim.state: want online, away or dnd"
	case badText(m.Text):
		return "claim.text: more than 128 characters"
	case len(m.Emoji) > wire.MaxEmoji:
		return "claim.emoji: more than 32 bytes"
	case len(m.Activity) > wire.MaxActivity:
		return "claim.activity: more than 2 KiB"
	case m.Priority != nil && *m.Priority > 100:
		return "claim.priority: want 0 to 100"
	case m.TtlMs != 0 && (m.TtlMs < minTTL || m.TtlMs > maxTTL):
		return "claim.ttl_ms: want 10000 to 2592000000, or 0"
	}
	lc := &link.Claim{
		Id: m.Id, Source: m.Source, State: uint32(state), Text: m.Text, Emoji: m.Emoji, Activity: m.Activity,
		Priority: -1, TtlMs: int64(m.TtlMs), Durable: m.TtlMs > durableTTL,
	}
	if m.Priority != nil {
		lc.Priority = int32(*m.Priority)
	}
	h.setClaim(s, c, lc)
	return ""
}

const maxListed = 1000 // users in one rule

func (h *hub) audience(s *socket, c *wire.Command, m *wire.Audience) (why string) {
	a := &link.Audience{}
	for _, r := range rules(m) {
		if *r.rule == nil {
			continue
		}
		lr := &link.Rule{Field: uint32(r.field), Users: (*r.rule).Users}
		known := false
		for i, name := range ruleNames {
			if name == (*r.rule).Rule {
				lr.Rule, known = uint32(i), true
			}
		}
		if !known {
			return "audience: a rule is everyone, contacts, contacts_except, only or nobody"
		}
		if len(lr.Users) > maxListed {
			return "audience: more than 1000 users in one rule"
		}
		if why := badIDs("audience.users", lr.Users); why != "" {
			return why
		}
		a.Rules = append(a.Rules, lr)
	}
	for _, g := range m.Grant {
		lg := &link.Grant{To: g.To, TtlMs: int64(g.TtlMs)}
		for _, f := range g.Fields {
			if fieldNames[f] == 0 {
				return "audience.grant.fields: unknown field"
			}
			lg.Fields |= uint32(fieldNames[f])
		}
		if !wire.ValidID(g.To) || g.TtlMs == 0 || g.TtlMs > 86_400_000 {
			return "audience.grant: want a user and a ttl_ms up to 86400000"
		}
		a.Grants = append(a.Grants, lg)
	}
	h.act(s, c, &link.Act{What: &link.Act_Audience{Audience: a}})
	return ""
}
