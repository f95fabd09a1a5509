package main

import (
	"fmt"
	"strings"

	"muster/actors/presence"
)

var audienceFields = map[string]presence.Mask{
	"state": presence.FieldState, "last_seen": presence.FieldLastSeen, "status": presence.FieldStatus,
	"devices": presence.FieldDevices, "activity": presence.FieldActivity, "typing": presence.FieldTyping,
	"receipts": presence.FieldReceipts,
}

var audienceRules = map[string]presence.Rule{
	"everyone": presence.Everyone, "contacts": presence.Contacts, "nobody": presence.Nobody,
}

// defaultAudience reads field=rule pairs; fields that are not named are for everyone.
func defaultAudience(pairs []string) (*presence.Audience, error) {
	var rules []presence.FieldRule
	for _, pair := range pairs {
		name, rule, ok := strings.Cut(pair, "=")
		field, known := audienceFields[name]
		if !ok || !known {
			return nil, fmt.Errorf("default-audience: %q is not field=rule; fields are state, last_seen, status, devices, activity, typing, receipts", pair)
		}
		who, known := audienceRules[rule]
		if !known {
			return nil, fmt.Errorf("default-audience: rule %q is unknown; write everyone, contacts or nobody", rule)
		}
		rules = append(rules, presence.FieldRule{Field: field, Rule: who})
	}
	return presence.NewAudience(rules...)
}
