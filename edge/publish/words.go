package publish

import "muster/actors/presence"

// Words of the wire for the numbers of package presence.
var (
	classes = [...]string{presence.Normal: "normal", presence.Critical: "critical", presence.LowUrgency: "presence"}
	types   = [...]string{presence.MessageEntry: "message", presence.NotifyEntry: "notify_when"}
	reasons = [...]string{
		presence.GapAcked: "acked", presence.GapExpired: "ttl", presence.GapCollapsed: "collapsed",
		presence.GapOverflow: "overflow", presence.GapPurged: "purged",
	}
	actions = [...]string{
		presence.Subscribe: "subscribe", presence.Approve: "approve", presence.Deny: "deny",
		presence.Unsubscribe: "unsubscribe", presence.Remove: "remove",
	}
)

func classOf(w string) (uint32, bool) {
	if w == "" {
		w = classes[presence.Normal]
	}
	return number(classes[:], w)
}

// Action is the number of a change of a contact; false for a word that is none.
func Action(w string) (uint32, bool) { return number(actions[:], w) }

// Class, Type and Reason are the words for an entry's class and type, and for why there is a gap. A number that
// this version does not know is "".
func Class(n uint32) string  { return word(classes[:], n) }
func Type(n uint32) string   { return word(types[:], n) }
func Reason(n uint32) string { return word(reasons[:], n) }

func word(words []string, n uint32) string {
	if int(n) < len(words) {
		return words[n]
	}
	return ""
}

func number(words []string, w string) (uint32, bool) {
	for i, known := range words {
		if known == w && w != "" {
			return uint32(i), true
		}
	}
	return 0, false
}
