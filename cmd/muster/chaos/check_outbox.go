package chaos

import (
	"cmp"
	"slices"
)

// ackedSet: what was acknowledged arrived on every device of its user, or lies in a gap
// that the device was told; nothing arrived that was not sent, and nothing twice.
func ackedSet(sends []send, devices []device, steps []step) verdict {
	v := verdict{Checker: "acked set", Of: "acknowledged messages"}
	sent := map[string]send{}
	offsets := map[string]uint64{}
	for _, s := range sends {
		sent[s.id] = s
		if s.offset > 0 {
			offsets[s.id] = s.offset
		}
	}
	got := map[device]map[string]bool{}
	gaps := map[device][]step{}
	for _, st := range steps {
		switch {
		case st.reset:
			v.fail("%s/%s: the outbox was reset (epoch %s): history was lost", st.user, st.name, st.epoch)
		case !st.entry():
			gaps[st.device] = append(gaps[st.device], st)
		default:
			v.take(sent, got, st)
			offsets[st.id] = st.from
		}
	}
	for _, s := range sends {
		if !s.acked {
			continue
		}
		v.Examined++
		for _, d := range devices {
			if d.user == s.user && !got[d][s.id] && !inGap(gaps[d], offsets[s.id]) {
				v.fail("lost: %s for %s was acknowledged (offset %d) at %v and never came to device %s", s.id, s.user, offsets[s.id], s.back, d.name)
			}
		}
	}
	return v.done()
}

func (v *verdict) take(sent map[string]send, got map[device]map[string]bool, st step) {
	if got[st.device] == nil {
		got[st.device] = map[string]bool{}
	}
	s, known := sent[st.id]
	switch {
	case !known:
		v.fail("unexpected: %s/%s got %s, which nobody sent", st.user, st.name, st.id)
	case s.user != st.user || s.body != st.body:
		v.fail("unexpected: %s for %s (%s) came to %s as %s", st.id, s.user, s.body, st.user, st.body)
	case got[st.device][st.id]:
		v.fail("duplicate: %s came to %s/%s again, at offset %d", st.id, st.user, st.name, st.from)
	}
	got[st.device][st.id] = true
}

func inGap(gaps []step, offset uint64) bool {
	return offset > 0 && slices.ContainsFunc(gaps, func(g step) bool { return g.from <= offset && offset <= g.to })
}

// streamOrder: the offsets of each device are dense in one epoch, an offset is the same message for
// all devices and for its sender, and a message sent after another was acknowledged comes after it.
func streamOrder(sends []send, steps []step) verdict {
	v := verdict{Checker: "stream order", Of: "deliveries"}
	last := map[device]step{}
	at := map[string]map[uint64]string{} // user → offset → id
	epochs := map[string]string{}
	name := func(user string, offset uint64, id, who string) {
		if at[user] == nil {
			at[user] = map[uint64]string{}
		}
		if other, ok := at[user][offset]; ok && other != id {
			v.fail("offset %d of %s is %s for %s and %s for another", offset, user, id, who, other)
		}
		at[user][offset] = id
	}
	for _, st := range steps {
		if st.reset {
			delete(last, st.device)
			continue
		}
		v.Examined++
		if e, ok := epochs[st.user]; ok && e != st.epoch {
			v.fail("%s/%s: epoch %s after %s", st.user, st.name, st.epoch, e)
		}
		epochs[st.user] = st.epoch
		if before := last[st.device].to; st.from != before+1 {
			v.fail("%s/%s: offset %d after %d", st.user, st.name, st.from, before)
		}
		last[st.device] = st
		if st.entry() {
			name(st.user, st.from, st.id, st.name)
		}
	}
	for _, s := range sends {
		if s.acked && s.offset > 0 {
			name(s.user, s.offset, s.id, "its sender")
		}
	}
	v.realTime(sends, at)
	return v.done()
}

// realTime walks a user's stream backwards: no send may have been acknowledged before one
// with a lower offset was begun.
func (v *verdict) realTime(sends []send, at map[string]map[uint64]string) {
	sent := map[string]send{}
	for _, s := range sends {
		sent[s.id] = s
	}
	for user, ids := range at {
		offsets := make([]uint64, 0, len(ids))
		for o := range ids {
			offsets = append(offsets, o)
		}
		slices.SortFunc(offsets, func(a, b uint64) int { return cmp.Compare(b, a) })
		var first send // of those with higher offsets, the one acknowledged first
		for _, o := range offsets {
			s, ok := sent[ids[o]]
			if !ok || s.user != user {
				continue
			}
			if first.acked && first.back < s.call {
				v.fail("%s: %s was begun at %v, after %s was acknowledged at %v, and has the lower offset %d", user, s.id, s.call, first.id, first.back, o)
			}
			if s.acked && (!first.acked || s.back < first.back) {
				first = s
			}
		}
	}
}
