package presence

import (
	"slices"
	"strings"
	"testing"

	"muster/cluster/injected"
)

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
	{name: "settle skipped", open: func(o *Open) { o.Barrier, o.Online = nil, nil }},
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

// checkers are by what w.fail says.
var checkers = injected.Checkers{
	{Name: "ghost", Says: "is a ghost"}, {Name: "ghost", Says: "still sees"}, {Name: "settling", Says: "while settling"},
	{Name: "false offline", Says: "is said to be offline"}, {Name: "false offline", Says: "goes offline but was there"},
	{Name: "monotone presence", Says: "not raised"}, {Name: "convergence", Says: "but the truth is"}, {Name: "convergence", Says: "the core has others"}, {Name: "convergence", Says: "is on but the core does not know"},
	{Name: "rows restore", Says: "restore"}, {Name: "one offset per id", Says: " and now is "}, {Name: "both sides agree", Says: " says of "},
	{Name: "leaks", Says: "left behind"}, {Name: "no input lost", Says: "inputs on their way"}, {Name: "model of outboxes", Says: "delivers"},
	{Name: "model of outboxes", Says: "keeps"}, {Name: "model of outboxes", Says: "published"}, {Name: "model of outboxes", Says: "device"},
	{Name: "model of relations", Says: "relations"}, {Name: "model of relations", Says: "transfers"}, {Name: "model", Says: "the model says"}, {Name: "model", Says: "resumed "}, {Name: "idle", Says: "idle"},
}

func defect(b bug) injected.Bug {
	return injected.Bug{Name: b.name, In: "core", Within: 60, Sample: 100, Try: func(_ *testing.T, seed uint64) (checker, said string) {
		if _, said := run(int64(seed), 250, b); said != "" {
			said, _, _ = strings.Cut(said, "\n")
			return checkers.Of(said), said
		}
		return "", ""
	}}
}

func defects() (all []injected.Bug) {
	for _, b := range slices.Concat(bugs, ownedBugs) {
		all = append(all, defect(b))
	}
	return all
}

// TestSimTurnsRed shows that each turns a checker red.
func TestSimTurnsRed(t *testing.T) { injected.Found(t, defects()) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects()) }
