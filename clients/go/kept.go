package muster

import (
	"slices"
	"time"

	"muster/clients/wire"
)

// kept is a claim that belongs to the session, to be set again if another session has to begin. A claim of more than
// sessionTTL, a status without end and being invisible belong to the user: they outlive the session.
type kept struct {
	claim *wire.Claim
	until time.Time // zero: until ended
}

const sessionTTL = 5 * time.Minute

// manual is the claim that SetStatus sets.
const manual = "manual"

// hold notes a claim that the server has taken.
func (c *Client) hold(claim *wire.Claim) {
	k, ttl := kept{claim: claim}, millis(claim.GetTtlMs())
	if ttl != 0 {
		k.until = time.Now().Add(ttl)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.kept, claim.GetId())
	if ttl <= sessionTTL {
		c.kept[claim.GetId()] = k
	}
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	delete(c.kept, id)
	c.mu.Unlock()
}

// stillSet drops what the user's own view no longer shows: it was ended elsewhere.
func (c *Client) stillSet(m *wire.Self) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.kept {
		if !claimed(m, id) {
			delete(c.kept, id)
		}
	}
}

func claimed(m *wire.Self, id string) bool {
	return slices.ContainsFunc(m.GetClaims(), func(claim *wire.Claim) bool { return claim.GetId() == id })
}

// restore lists the claims to set in a session that began anew; those that another device or the user has are newer.
// c.mu is held.
func (c *Client) restore(m *wire.Self) (again []*wire.Claim) {
	for id, k := range c.kept {
		claim := &wire.Claim{
			Id: id, Source: k.claim.Source, State: k.claim.State, Text: k.claim.Text, Emoji: k.claim.Emoji,
			Activity: k.claim.Activity, Priority: k.claim.Priority,
		}
		if !k.until.IsZero() {
			left := time.Until(k.until)
			claim.TtlMs = uint64(max(left, 0).Milliseconds())
			if left < wire.MinTTL {
				delete(c.kept, id)
				continue
			}
		}
		if !claimed(m, id) {
			again = append(again, claim)
		}
	}
	slices.SortFunc(again, func(a, b *wire.Claim) int {
		if a.Id < b.Id {
			return -1
		}
		return 1
	})
	return again
}
