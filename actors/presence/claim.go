package presence

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// claim is one source's word, held. session "": it belongs to the user.
type claim struct {
	Claim
	session string
	until   int64 // Unix ms; 0: no end
	at      int64 // set at, Unix ms
}

// Manual is the id of the claim that the user sets by hand.
const Manual = "manual"

// priorities of the sources.
var priorities = map[string]int{Manual: 90, "call": 70, "api": 60, "calendar": 50, "game": 30}

// winner is the claim with the highest priority, the newest of equals; nil if none.
// owned: only those that belong to the user.
func winner(claims []claim, owned bool) *claim {
	var best *claim
	for i := range claims {
		c := &claims[i]
		if (!owned || c.session == "") && (best == nil || c.Priority >= best.Priority) {
			best = c
		}
	}
	return best
}

// checkClaim fills in what the source decides and names what is wrong.
func (u *User) checkClaim(c *Claim) (wrong string) {
	if c.Source == "" && c.ID == Manual {
		c.Source = Manual
	}
	priority, known := priorities[c.Source]
	if c.Priority < 0 {
		c.Priority = priority
	}
	switch {
	case c.ID == "" || len(c.ID) > 64 || !utf8.ValidString(c.ID):
		return "id: 1 to 64 bytes"
	case !known:
		return "source: manual, call, calendar, game or api"
	case c.State > Online:
		return "state: online, away or dnd"
	case utf8.RuneCountInString(c.Text) > 128 || !utf8.ValidString(c.Text):
		return "text: at most 128 characters"
	case len(c.Emoji) > 32 || !utf8.ValidString(c.Emoji):
		return "emoji: at most 32 bytes"
	case len(c.Activity) > 2048:
		return "activity: at most 2 KiB"
	case c.Priority > 100:
		return "priority: 0 to 100"
	case c.TTL != 0 && (c.TTL < u.cfg.MinClaimTTL || c.TTL > u.cfg.MaxClaimTTL):
		return fmt.Sprintf("ttl: %v to %v, or none", u.cfg.MinClaimTTL, u.cfg.MaxClaimTTL)
	}
	return ""
}

func (u *User) setClaim(now int64, in *SetClaim, out *Output) Reply {
	if in.Session != "" && u.current(in.Session, in.Conn) < 0 {
		return notAttached
	}
	c := in.Claim
	if wrong := u.checkClaim(&c); wrong != "" {
		return bad(wrong)
	}
	if c.ID == Manual && c.State == Online {
		if c.Text == "" && c.Emoji == "" && c.Activity == "" {
			u.endClaim(&EndClaim{Session: in.Session, Conn: in.Conn, ID: c.ID}, out)
			return Reply{}
		}
		c.State = Offline
	}
	h := claim{Claim: c, at: now}
	if c.TTL != 0 {
		h.until = now + c.TTL.Milliseconds()
	}
	if in.Session != "" && !c.Durable && c.TTL <= u.cfg.DurableTTL {
		h.session = in.Session
	}
	for _, old := range u.claims() { // what is stored is ordered by it
		h.at = max(h.at, old.at+1)
	}
	if others := without(u.claims(), c.ID); len(others) >= u.cfg.Claims {
		return Reply{Code: Limit, Message: fmt.Sprintf("at most %d claims at once", u.cfg.Claims)}
	}
	u.putClaim(h, out)
	if m := u.more; m.cover != nil && in.Session == "" {
		m.cover.claims = append(without(m.cover.claims, c.ID), h)
		out.Records = append(out.Records, u.coverRecord())
	}
	u.note(now, didClaim, NoCause)
	return Reply{}
}

// putClaim adds or replaces a claim.
func (u *User) putClaim(h claim, out *Output) {
	m := u.extra()
	for i := range m.claims {
		if m.claims[i].ID == h.ID && m.claims[i].session == "" && h.session != "" {
			out.Records = append(out.Records, ClaimEnded{h.ID})
		}
	}
	m.claims = append(without(m.claims, h.ID), h)
	if h.session == "" {
		out.Records = append(out.Records, ClaimSet{h.held()})
	}
	u.news = selfNews
}

// adoptClaims takes over the claims of an announced session that was not known.
func (u *User) adoptClaims(now int64, a *Attach) {
	for _, c := range a.Claims {
		if u.checkClaim(&c) != "" || len(u.claims()) >= u.cfg.Claims ||
			slices.ContainsFunc(u.claims(), func(h claim) bool { return h.ID == c.ID }) {
			continue
		}
		h := claim{Claim: c, session: a.Session, at: now}
		if c.TTL != 0 {
			h.until = now + c.TTL.Milliseconds()
		}
		u.putClaim(h, &Output{})
	}
}

func (u *User) endClaim(in *EndClaim, out *Output) Reply {
	if in.Session != "" && u.current(in.Session, in.Conn) < 0 {
		return notAttached
	}
	i := slices.IndexFunc(u.claims(), func(c claim) bool { return c.ID == in.ID })
	if i < 0 {
		return Reply{Code: NotFound, Message: "no such claim"}
	}
	m := u.more
	if m.claims[i].session == "" {
		out.Records = append(out.Records, ClaimEnded{in.ID})
	}
	m.claims = without(m.claims, in.ID)
	if m.cover != nil && in.Session == "" {
		m.cover.claims = without(m.cover.claims, in.ID)
		out.Records = append(out.Records, u.coverRecord())
	}
	u.news = selfNews
	return Reply{}
}

func (u *User) endClaimsOf(session string) {
	if session == "" || u.more == nil {
		return
	}
	m := u.more
	kept := slices.DeleteFunc(slices.Clone(m.claims), func(c claim) bool { return c.session == session })
	if len(kept) < len(m.claims) {
		m.claims = kept
		u.news = selfNews
	}
}

// expireClaims drops what has ended from one of the lists; out is nil for the cover's.
func (u *User) expireClaims(claims []claim, now int64, out *Output) []claim {
	return slices.DeleteFunc(claims, func(c claim) bool {
		if c.until == 0 || c.until > now {
			return false
		}
		if out != nil && c.session == "" {
			out.Records = append(out.Records, ClaimEnded{c.ID})
		}
		u.news = selfNews
		u.note(now, didExpireClaim, NoCause)
		return true
	})
}

func (u *User) claims() []claim {
	if u.more == nil {
		return nil
	}
	return u.more.claims
}

func without(claims []claim, id string) []claim {
	return slices.DeleteFunc(slices.Clone(claims), func(c claim) bool { return c.ID == id })
}

func (c *claim) held() HeldClaim {
	return HeldClaim{Claim: c.Claim, Until: instant(c.until), At: instant(c.at)}
}

func (h *HeldClaim) claim() claim {
	c := claim{Claim: h.Claim, at: h.At.UnixMilli()}
	if !h.Until.IsZero() {
		c.until = h.Until.UnixMilli()
	}
	return c
}
