package presence

import "testing"

// bugs break one rule each, at the border of the core; the checkers must notice.
var bugs = []bug{
	{name: "takeover by arrival", input: func(_ *world, _ *actor, in Input) Input {
		if a, ok := in.(Attach); ok {
			a.Attempt = 0
			return a
		}
		return in
	}},
	{name: "no grace", input: func(_ *world, _ *actor, in Input) Input {
		if d, ok := in.(Detach); ok {
			d.Cause = Bye
			return d
		}
		return in
	}},
	{name: "a detach ends whatever conn is there", input: func(_ *world, a *actor, in Input) Input {
		if d, ok := in.(Detach); ok {
			if i := a.u.byID(d.Session); i >= 0 {
				d.Conn, d.Attempt = a.u.sessions[i].conn, a.u.sessions[i].attempt
				return d
			}
		}
		return in
	}},
	{name: "version not raised", edge: func(_ *world, m ToEdge) (ToEdge, bool) {
		if c, ok := m.Message.(*Change); ok {
			d := *c
			d.Version--
			m.Message = &d
		}
		return m, true
	}},
	{name: "settling skipped", open: func(o *Open) { o.Barrier, o.Online = nil, nil }},
	{name: "markers ignored", open: func(o *Open) { o.Online = nil }, gin: func(_ *world, in GatewayInput) GatewayInput {
		if a, ok := in.(Announce); ok {
			a.Seen = nil
			return a
		}
		return in
	}},
	{name: "edge death not told", input: func(_ *world, _ *actor, in Input) Input {
		if _, ok := in.(EdgeLost); ok {
			return nil
		}
		return in
	}},
	{name: "announcements do not replace sessions", input: func(_ *world, _ *actor, in Input) Input {
		if a, ok := in.(Announced); ok && len(a.Sessions) == 0 {
			return nil
		}
		return in
	}},
	{name: "announcements do not replace watches", gin: func(_ *world, in GatewayInput) GatewayInput {
		if a, ok := in.(Announce); ok && a.Only == (Key{}) {
			a.Done = false
			return a
		}
		return in
	}},
	{name: "lost activations presume nothing", input: func(_ *world, _ *actor, in Input) Input {
		if _, ok := in.(Presume); ok {
			return nil
		}
		return in
	}},
	{name: "remask lost", edge: func(_ *world, m ToEdge) (ToEdge, bool) {
		_, lost := m.Message.(*Remask)
		return m, !lost
	}},
	{name: "one mask per change", edge: func(_ *world, m ToEdge) (ToEdge, bool) {
		if c, ok := m.Message.(*Change); ok && len(c.Views) > 1 {
			d := *c
			d.Views = d.Views[:1]
			m.Message = &d
		}
		return m, true
	}},
	{name: "invisible shows", gin: func(_ *world, in GatewayInput) GatewayInput {
		if s, ok := in.(Stepped); ok && s.Publish != nil && s.Publish.Self != nil && s.Publish.Self.Invisible {
			p := *s.Publish
			p.View = &p.Self.View
			s.Publish = &p
			return s
		}
		return in
	}},
	{name: "timers never fire", noTick: true},
	{name: "idle activations stop unasked", hasty: true},
}

func TestSimTurnsRed(t *testing.T) {
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			for seed := range int64(60) {
				if _, failure := run(seed, 250, b); failure != "" {
					t.Logf("seed %d: %s", seed, failure)
					return
				}
			}
			t.Error("60 seeds pass with the bug")
		})
	}
}
