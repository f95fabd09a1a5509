package presence

import "slices"

// ownedBugs break one rule each of what a user owns for good.
var ownedBugs = []bug{
	{name: "an offset is left out", output: func(w *world, _ *actor, _ Input, out *Output) {
		for i, r := range out.Records {
			if e, ok := r.(EntryPut); ok && e.Entry.Offset > 1 && w.pick(8) == 0 {
				e.Entry.Offset++
				out.Records[i] = e
			}
		}
	}},
	{name: "an id is not looked up", input: func(_ *world, _ *actor, in Input) Input {
		if p, ok := in.(Publish); ok {
			p.Known = nil
			return p
		}
		return in
	}},
	{name: "client ids are not stored", keep: func(r Record) bool { _, id := r.(DedupeSet); return !id }, input: nil},
	{name: "a sender is forgotten with its last entry", keep: func(r Record) bool { _, sender := r.(SenderSet); return !sender }},
	{name: "the head is forgotten with the last entry", keep: func(r Record) bool { o, ok := r.(OutboxSet); return !ok || !o.Lazy }},
	{name: "acknowledged entries are not stored", keep: func(r Record) bool { _, entry := r.(EntryPut); return !entry }},
	{name: "gaps are not told", output: func(_ *world, _ *actor, _ Input, out *Output) {
		for i := range out.Deliver {
			out.Deliver[i].Gap = nil
		}
		if out.Reply.Outbox != nil {
			out.Reply.Outbox.Gap = nil
		}
	}},
	{name: "entries go with the first ack", input: func(_ *world, _ *actor, in Input) Input {
		if p, ok := in.(Publish); ok {
			p.AnyDevice = true
			return p
		}
		return in
	}},
	{name: "acks count for what was not delivered", input: func(_ *world, a *actor, in Input) Input {
		if k, ok := in.(AckOutbox); ok && a.u.box() != nil {
			k.Offset = a.u.box().head
			for i := range a.u.box().readers {
				a.u.box().readers[i].next = k.Offset
			}
			return k
		}
		return in
	}},
	{name: "nothing is delivered again", input: func(_ *world, a *actor, in Input) Input {
		if o := a.u.box(); o != nil {
			for i := range o.readers {
				o.readers[i].at = 0
			}
		}
		return in
	}},
	{name: "denials are not told", keep: func(r Record) bool {
		t, ok := r.(TransferOut)
		h, _ := t.What.(Handshake)
		return !ok || h.Stanza != StanzaUnsubscribed
	}},
	{name: "answers name no request", input: func(_ *world, a *actor, in Input) Input {
		if r, ok := in.(Received); ok {
			if h, ok := r.What.(Handshake); ok && h.Stanza != StanzaSubscribe {
				h.Serial = a.u.relations().of(r.From).asked
				r.What = h
				return r
			}
		}
		return in
	}},
	{name: "blocks are not told", keep: func(r Record) bool {
		t, ok := r.(TransferOut)
		_, block := t.What.(BlockedBy)
		return !ok || !block
	}},
	{name: "notify_when sees the invisible", output: func(_ *world, a *actor, _ Input, out *Output) {
		if m := a.u.more; m != nil && m.cover != nil && len(a.u.sessions) > 0 {
			for _, x := range m.waiters {
				out.Records = append(out.Records, NotifyEnded{x.asker}, TransferOut{x.asker, Publish{Type: NotifyEntry}})
			}
		}
	}},
	{name: "a blocked sender is told", output: func(_ *world, a *actor, in Input, out *Output) {
		if p, ok := in.(Publish); ok && a.u.relations().of(p.Sender).bits&RelationBlocked != 0 && out.Reply.Code == OK {
			out.Reply = Reply{Code: Blocked}
		}
	}},
	{name: "a blocked sender's message is stored", input: func(_ *world, _ *actor, in Input) Input {
		if p, ok := in.(Publish); ok {
			p.Sender = ""
			return p
		}
		return in
	}},
	{name: "cursors go to the wrong device", keep: func(r Record) bool { _, cursor := r.(CursorSet); return !cursor }},
	{name: "relations are not stored", keep: func(r Record) bool { _, relation := r.(RelationSet); return !relation }},
	{name: "erasure leaves rows", keep: func(r Record) bool { _, erased := r.(Erased); return !erased }},
	{name: "transfers count twice", input: func(_ *world, a *actor, in Input) Input {
		if _, ok := in.(Received); ok && a.u.more != nil {
			a.u.more.taken.rows = nil
		}
		return in
	}},
	{name: "a purge is not told", output: func(_ *world, _ *actor, in Input, out *Output) {
		if _, ok := in.(Purge); ok {
			out.Deliver = slices.DeleteFunc(out.Deliver, func(d Delivery) bool { return d.Reset })
		}
	}},
}
