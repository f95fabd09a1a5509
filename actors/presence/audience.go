package presence

import (
	"errors"
	"math/bits"
	"slices"
)

// Audience decides which fields a watcher sees. It is immutable: a change of rules,
// grants or relations makes a new one.
type Audience struct {
	rules     [fields]FieldRule // by bit; Users sorted
	grants    []HeldGrant
	relations relations
	graph     *graph // who is a contact instead; nil: relations say
	everyone  Mask   // of a stranger without reciprocity
}

var defaultAudience = mustAudience(
	FieldRule{Field: FieldLastSeen, Rule: Contacts},
	FieldRule{Field: FieldDevices, Rule: Contacts},
)

func mustAudience(rules ...FieldRule) *Audience {
	a, err := NewAudience(rules...)
	if err != nil {
		panic(err)
	}
	return a
}

// DefaultAudience: last seen and devices for contacts, the rest for everyone.
func DefaultAudience() *Audience { return defaultAudience }

// NewAudience returns an application's audience for users without rules of their own:
// everyone sees the fields that have no rule here.
func NewAudience(rules ...FieldRule) (*Audience, error) {
	base := &Audience{}
	for i := range base.rules {
		base.rules[i].Field = 1 << i
	}
	for _, r := range rules {
		if wrong := r.check(1000); wrong != "" {
			return nil, errors.New("presence: audience: " + wrong)
		}
	}
	return base.with(rules, nil, nil, nil), nil
}

func (c *Config) audience() *Audience {
	if c.Audience != nil {
		return c.Audience
	}
	return defaultAudience
}

// check names what is wrong with a rule.
func (r *FieldRule) check(most int) string {
	switch {
	case bits.OnesCount8(uint8(r.Field)) != 1 || r.Field&^AllFields != 0:
		return "field: one of state, last_seen, status, devices, activity, typing, receipts"
	case r.Rule > Nobody:
		return "rule: everyone, contacts, contacts_except, only or nobody"
	case len(r.Users) > most:
		return "too many users in a rule"
	case len(r.Users) > 0 && r.Rule != ContactsExcept && r.Rule != Only:
		return "this rule takes no users"
	case slices.ContainsFunc(r.Users, func(id string) bool { return !validID(id) }):
		return "users: an id is 1 to 128 of A-Za-z0-9._@+=-"
	}
	return ""
}

// with returns a copy with the given rules in place of those of the same field.
func (a *Audience) with(rules []FieldRule, grants []HeldGrant, relations relations, graph *graph) *Audience {
	b := &Audience{rules: a.rules, grants: grants, relations: relations, graph: graph}
	for _, r := range rules {
		r.Users = union(nil, r.Users)
		b.rules[bits.TrailingZeros8(uint8(r.Field))] = r
	}
	b.everyone = b.Mask(Watcher{}, 0)
	return b
}

// Mask returns the fields that w sees. reciprocal are the fields that those who hide
// them from everyone do not see. A block, either way, overrides everything; a grant
// everything else. One who may not see the state sees nothing that depends on it.
func (a *Audience) Mask(w Watcher, reciprocal Mask) Mask {
	if len(a.relations) == 0 && a.graph == nil && len(a.grants) == 0 && a.everyone != 0 && a.plain() {
		return a.close(a.everyone &^ (w.Hidden & reciprocal))
	}
	rel := a.relations.of(w.User).bits
	if rel&(RelationBlocked|RelationBlockedBy) != 0 {
		return NoFields
	}
	contact := a.contact(w.User, rel)
	var m Mask
	for i := range a.rules {
		if allowed, _ := a.allows(i, w.User, contact); allowed {
			m |= 1 << i
		}
	}
	m &^= w.Hidden & reciprocal
	for i := range a.grants {
		if a.grants[i].To == w.User {
			m |= a.grants[i].Fields
		}
	}
	return a.close(m)
}

// plain reports that no rule names users, so that all strangers are equal.
func (a *Audience) plain() bool {
	for i := range a.rules {
		if len(a.rules[i].Users) > 0 {
			return false
		}
	}
	return true
}

func (a *Audience) close(m Mask) Mask {
	if m&FieldState == 0 {
		return m & FieldReceipts
	}
	return m
}

// contact reports that a user counts as one: the owner lets it see.
func (a *Audience) contact(user string, rel Relation) bool {
	if a.graph != nil {
		return has(a.graph.contacts, user)
	}
	return rel&RelationFrom != 0
}

// allows evaluates the rule of field i for a user, and says why.
func (a *Audience) allows(i int, user string, contact bool) (bool, string) {
	r := &a.rules[i]
	switch r.Rule {
	case Everyone:
		return true, "rule everyone"
	case Contacts:
		if contact {
			return true, "rule contacts: a contact"
		}
		return false, "rule contacts: not a contact"
	case ContactsExcept:
		switch {
		case !contact:
			return false, "rule contacts_except: not a contact"
		case has(r.Users, user):
			return false, "rule contacts_except: excepted"
		}
		return true, "rule contacts_except: a contact"
	case Only:
		if has(r.Users, user) {
			return true, "rule only: listed"
		}
		return false, "rule only: not listed"
	}
	return false, "rule nobody"
}

// Rules returns the rule of every field, in the order of the bits. It must not be changed.
func (a *Audience) Rules() []FieldRule { return a.rules[:] }

// hidden are the fields that nobody may see.
func (a *Audience) hidden() (m Mask) {
	for i := range a.rules {
		if a.rules[i].Rule == Nobody {
			m |= 1 << i
		}
	}
	return m
}

func has(sorted []string, id string) bool {
	_, found := slices.BinarySearch(sorted, id)
	return found && id != ""
}
