package edge

import (
	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

var states = [...]wire.State{
	presence.Offline: wire.State_STATE_OFFLINE,
	presence.Away:    wire.State_STATE_AWAY,
	presence.DND:     wire.State_STATE_DND,
	presence.Online:  wire.State_STATE_ONLINE,
}

func stateOf(s uint32) wire.State {
	if int(s) < len(states) {
		return states[s]
	}
	return wire.State_STATE_UNKNOWN
}

// presenceOf is a view as clients see it. A nil view is offline with nothing to show.
func presenceOf(user string, term, version uint64, v *link.View) *wire.Presence {
	p := &wire.Presence{User: user, State: wire.State_STATE_OFFLINE, Ver: []uint64{term, version}}
	if v == nil {
		return p
	}
	p.State = stateOf(v.State)
	p.SinceAt = millis(v.Since)
	p.LastSeenAt = millis(v.LastSeen)
	p.LastSeen = wire.Bucket(v.Bucket)
	p.Text, p.Emoji, p.Activity = v.Text, v.Emoji, v.Activity
	p.Reason = wire.LeaveReason(v.Reason)
	for _, d := range v.Devices {
		p.Devices = append(p.Devices, &wire.DeviceState{Class: wire.DeviceClass(d.Class), State: stateOf(d.State)})
	}
	return p
}

func millis(ms int64) uint64 { return uint64(max(ms, 0)) }

// blank reports whether a view is offline with nothing to show, and so left out of snapshots.
func blank(v *link.View) bool {
	return v == nil || v.State == uint32(presence.Offline) && v.Text == "" && v.Emoji == "" && v.Activity == "" &&
		len(v.Devices) == 0 && v.LastSeen == 0 && v.Bucket == 0
}

func selfOf(term uint64, v *link.SelfView) *wire.Self {
	s := &wire.Self{Presence: presenceOf(v.User, term, v.Version, v.View), Invisible: v.Invisible}
	for _, c := range v.Claims {
		s.Claims = append(s.Claims, claimOf(c))
	}
	s.Audience = audienceOf(v.Audience)
	return s
}

func claimOf(c *link.Claim) *wire.Claim {
	w := &wire.Claim{
		Id: c.Id, Source: c.Source, State: stateOf(c.State).Name(), Text: c.Text, Emoji: c.Emoji, Activity: c.Activity, TtlMs: millis(c.TtlMs),
	}
	if c.Priority >= 0 {
		p := uint32(c.Priority)
		w.Priority = &p
	}
	return w
}

var fieldNames = map[string]presence.Mask{
	"state": presence.FieldState, "last_seen": presence.FieldLastSeen, "status": presence.FieldStatus, "devices": presence.FieldDevices,
	"activity": presence.FieldActivity, "typing": presence.FieldTyping, "receipts": presence.FieldReceipts,
}

var ruleNames = [...]string{
	presence.Everyone: "everyone", presence.Contacts: "contacts", presence.ContactsExcept: "contacts_except",
	presence.Only: "only", presence.Nobody: "nobody",
}

// rules pairs the fields of a client's audience with their masks.
func rules(a *wire.Audience) []struct {
	field presence.Mask
	rule  **wire.Rule
} {
	return []struct {
		field presence.Mask
		rule  **wire.Rule
	}{
		{presence.FieldState, &a.State}, {presence.FieldLastSeen, &a.LastSeen}, {presence.FieldStatus, &a.Status},
		{presence.FieldDevices, &a.Devices}, {presence.FieldActivity, &a.Activity}, {presence.FieldTyping, &a.Typing},
		{presence.FieldReceipts, &a.Receipts},
	}
}

func audienceOf(a *link.Audience) *wire.Audience {
	if a == nil {
		return nil
	}
	w := &wire.Audience{}
	for _, r := range rules(w) {
		for _, lr := range a.Rules {
			if lr.Field == uint32(r.field) && int(lr.Rule) < len(ruleNames) {
				*r.rule = &wire.Rule{Rule: ruleNames[lr.Rule], Users: lr.Users}
			}
		}
	}
	for _, g := range a.Grants {
		wg := &wire.Grant{To: g.To, TtlMs: millis(g.TtlMs)}
		for name, f := range fieldNames {
			if g.Fields&uint32(f) != 0 {
				wg.Fields = append(wg.Fields, name)
			}
		}
		w.Grant = append(w.Grant, wg)
	}
	return w
}
