package room

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/actors/presence"
	"muster/cluster/injected"
)

// model is the rules once more, without indexes, counts or versions.
type model struct {
	seats map[string]seat // by session
	shows map[string]Update
}

type seat struct {
	Enter
	until time.Time // zero: it has its conn
}

// occupants is who is visible at time now.
func (m *model) occupants(now time.Time) []string {
	for s, p := range m.seats {
		if !p.until.IsZero() && !p.until.After(now) {
			delete(m.seats, s)
		}
	}
	var who []string
	held := map[string]bool{}
	for _, p := range m.seats {
		if p.Occupy {
			held[p.User] = true
		}
	}
	for user := range m.shows {
		if !held[user] {
			delete(m.shows, user)
		} else if u := m.shows[user]; !u.Hidden {
			who = append(who, fmt.Sprintf("%s/%d", user, u.State))
		}
	}
	slices.Sort(who)
	return who
}

func (m *model) apply(now time.Time, in Input, refused bool) {
	m.occupants(now) // lets graces run out
	switch in := in.(type) {
	case Enter:
		if !refused {
			m.enter(in)
		}
	case Leave:
		if p, ok := m.seats[in.Session]; ok && p.User == in.User && p.Conn == in.Conn && p.until.IsZero() {
			m.lose(now, in.Session, in.Cause)
		}
	case Update:
		if u, ok := m.shows[in.User]; ok && u.Version.Less(in.Version) {
			m.shows[in.User] = in
		}
	case EdgeLost:
		m.loseAll(now, in.Edge, nil, presence.NodeLost)
	case Announce:
		m.loseAll(now, in.Edge, in.Places, presence.Silence)
		for _, e := range in.Places {
			m.enter(e)
		}
	case ExtendGrace:
		for s, p := range m.seats {
			if !p.until.IsZero() && p.until.Before(in.Until) {
				p.until = in.Until
				m.seats[s] = p
			}
		}
	}
	m.occupants(now)
}

func (m *model) enter(in Enter) {
	old, ok := m.seats[in.Session]
	if ok && (old.User != in.User || old.until.IsZero() && in.Attempt < old.Attempt) {
		return
	}
	m.seats[in.Session] = seat{Enter: in}
	if !in.Occupy {
		return
	}
	if u, ok := m.shows[in.User]; !ok || u.Version.Less(in.Version) {
		m.shows[in.User] = Update{in.User, in.State, in.Version, in.Hidden}
	}
}

func (m *model) lose(now time.Time, session string, c presence.Cause) {
	grace := map[presence.Cause]time.Duration{presence.Gone: 5 * time.Second, presence.Silence: 15 * time.Second,
		presence.NodeLost: 15 * time.Second, presence.Drain: time.Minute}[c]
	p := m.seats[session]
	if grace == 0 || !p.Occupy {
		delete(m.seats, session)
		return
	}
	p.until = now.Add(grace)
	m.seats[session] = p
}

func (m *model) loseAll(now time.Time, e presence.Edge, kept []Enter, c presence.Cause) {
	for s, p := range m.seats {
		held := slices.ContainsFunc(kept, func(k Enter) bool { return k.Session == s })
		if p.Conn.Edge == e.Name && p.until.IsZero() && !held {
			m.lose(now, s, c)
		}
	}
}

// sim drives a room, the model, and a replica per edge that lives on what it is sent.
type sim struct {
	bug      bug
	rng      *rand.Rand
	room     *Room
	model    *model
	now      time.Time
	replicas map[presence.Edge]map[string]string
	versions map[presence.Edge]uint64
	torn     map[presence.Edge]bool // a message was lost: it must announce
	trace    strings.Builder
}

const simUsers, simEdges = 6, 3

// bug breaks one rule.
type bug struct {
	handed func(Handed) (Handed, bool) // what of a place that moves arrives; nil: all of it
}

// violation is what a run ends with that breaks a rule.
type violation string

func (s *sim) fail(format string, args ...any) { panic(violation(fmt.Sprintf(format, args...))) }

func (s *sim) edge(i int) presence.Edge {
	return presence.Edge{Name: fmt.Sprintf("e%d", i), Incarnation: 1}
}

func (s *sim) place() Enter {
	u := s.rng.IntN(simUsers)
	session := u*2 + s.rng.IntN(2)
	e := s.edge(s.rng.IntN(simEdges))
	flags := 1 + s.rng.IntN(3)
	return Enter{User: fmt.Sprint("u", u), Session: fmt.Sprint("s", session), Occupy: flags&1 != 0, Subscribe: flags&2 != 0,
		Conn:    presence.Conn{Edge: e.Name, Incarnation: 1, ID: uint64(s.rng.IntN(3))},
		Attempt: uint64(s.rng.IntN(4)), State: presence.State(s.rng.IntN(4)), Hidden: s.rng.IntN(4) == 0,
		Version: presence.Version{Term: 1, Number: uint64(s.rng.IntN(50))}}
}

func (s *sim) input() Input {
	p := s.place()
	switch s.rng.IntN(12) {
	case 0, 1, 2, 3:
		return p
	case 4, 5:
		causes := []presence.Cause{presence.Bye, presence.Gone, presence.Silence, presence.Drain, presence.Kicked}
		if old, ok := s.room.places[p.Session]; ok {
			p.Conn = old.conn
		}
		return Leave{p.User, p.Session, p.Conn, causes[s.rng.IntN(len(causes))]}
	case 6, 7:
		return Update{p.User, p.State, p.Version, p.Hidden}
	case 8:
		return EdgeLost{s.edge(s.rng.IntN(simEdges))}
	case 9:
		return s.announcement(s.edge(s.rng.IntN(simEdges)))
	case 10:
		return ExtendGrace{s.now.Add(20 * time.Second)}
	}
	return List{}
}

// announcement is what an edge with subscribers would say, less a place now and then.
func (s *sim) announcement(e presence.Edge) Input {
	in := Announce{Edge: e}
	for _, session := range slices.Sorted(maps.Keys(s.model.seats)) {
		if p := s.model.seats[session]; p.Conn.Edge == e.Name && p.until.IsZero() && s.rng.IntN(8) > 0 {
			in.Places = append(in.Places, p.Enter)
		}
	}
	return in
}

func (s *sim) step(in Input) {
	out := s.room.Step(s.now, in)
	fmt.Fprintf(&s.trace, "%v %T%+v\n%s", s.now.Sub(start), in, in, render(out))
	s.model.apply(s.now, in, out.Reply != nil && out.Reply.Code != OK)
	for _, send := range out.Sends {
		for _, e := range send.To {
			if s.rng.IntN(20) == 0 {
				s.torn[e] = true // lost on the way
			} else if send.Change != nil {
				s.receive(e, send.Change)
			}
		}
	}
	if e, ok := in.(Enter); ok && e.Subscribe && out.Reply.Code == OK {
		s.snapshot(e.Conn.Holder(), out.Reply)
	}
	for e := range s.replicas {
		if !s.room.subscribed(e) {
			delete(s.replicas, e)
			delete(s.torn, e)
		}
	}
	s.check()
}

// move gives the room to another node in good order: it begins anew and settles. What was in grace is handed over, early
// or late, the rest is announced by the edges. A conn may end meanwhile, which its edge then does not announce.
func (s *sim) move() {
	handed := s.room.Leaving()
	fmt.Fprintf(&s.trace, "%v moves with %d\n", s.now.Sub(start), len(handed))
	s.room = New(Config{Occupants: 4}, 0, s.now.Add(3*time.Second))
	clear(s.versions)
	clear(s.torn)
	inputs := []Input{}
	for i := range simEdges {
		in := Announce{Edge: s.edge(i)}
		for _, session := range slices.Sorted(maps.Keys(s.model.seats)) {
			if p := s.model.seats[session]; p.Conn.Edge == in.Edge.Name && p.until.IsZero() {
				e := p.Enter
				if u, ok := s.model.shows[e.User]; ok {
					e.State, e.Version, e.Hidden = u.State, u.Version, u.Hidden
				}
				in.Places = append(in.Places, e)
			}
		}
		inputs = append(inputs, in)
	}
	for _, h := range handed {
		if s.bug.handed != nil {
			var ok bool
			if h, ok = s.bug.handed(h); !ok {
				continue
			}
		}
		inputs = slices.Insert(inputs, s.rng.IntN(len(inputs)+1), Input(h))
	}
	for _, in := range append(inputs, Settled{}) {
		for _, send := range s.room.Step(s.now, in).Sends {
			for _, e := range send.To {
				s.receive(e, send.Change)
			}
		}
	}
	s.check()
}

// snapshot begins a replica, as an edge does for its first subscriber.
func (s *sim) snapshot(e presence.Edge, r *Reply) {
	if s.replicas[e] != nil || !s.room.subscribed(e) {
		return
	}
	s.replicas[e], s.versions[e] = map[string]string{}, r.Version
	for _, o := range r.Occupants {
		s.replicas[e][o.User] = fmt.Sprintf("%s/%d", o.User, o.State)
	}
}

func (s *sim) receive(e presence.Edge, c *Change) {
	have := s.replicas[e]
	if have == nil {
		if have = map[string]string{}; c.All {
			s.replicas[e] = have
		}
	}
	if !c.All && c.Version <= s.versions[e] {
		return
	}
	if c.Version < s.versions[e] {
		s.fail("version of %v fell from %d to %d", e, s.versions[e], c.Version)
	}
	s.versions[e] = c.Version
	if c.All {
		clear(have)
	}
	for _, o := range slices.Concat(c.Enter, c.Update) {
		have[o.User] = fmt.Sprintf("%s/%d", o.User, o.State)
	}
	for _, o := range c.Leave {
		delete(have, o.User)
	}
}

// check compares the room with the model, and quiet replicas with both.
func (s *sim) check() {
	want := s.model.occupants(s.now)
	var got []string
	for user, m := range s.room.members {
		if m.isVisible() {
			got = append(got, fmt.Sprintf("%s/%d", user, m.now.State))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || s.room.visible != len(want) {
		s.fail("room has %v (%d), rules say %v\n%s", got, s.room.visible, want, s.tail())
	}
	if s.room.dirty > 0 {
		return
	}
	for e, have := range s.replicas {
		if seen := slices.Sorted(maps.Values(have)); !s.torn[e] && !slices.Equal(seen, want) {
			s.fail("%v sees %v, rules say %v\n%s", e, seen, want, s.tail())
		}
	}
}

func (s *sim) tail() string {
	lines := strings.Split(s.trace.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

// run plays n inputs; torn edges announce in the end, and all must agree.
func (s *sim) run(n int) {
	for range n {
		s.now = s.now.Add([]time.Duration{0, time.Millisecond, 60 * time.Millisecond, 4 * time.Second}[s.rng.IntN(4)])
		end := s.now
		for at, ok := s.room.Deadline(); ok && !at.After(end); at, ok = s.room.Deadline() {
			s.now = at
			s.step(Tick{})
		}
		s.now = end
		if s.rng.IntN(25) == 0 {
			s.move()
		}
		s.step(s.input())
		for i := range simEdges {
			if e := s.edge(i); s.torn[e] && s.rng.IntN(3) == 0 {
				delete(s.torn, e)
				s.step(s.announcement(e))
			}
		}
	}
}

// simulate runs one seed and says what was wrong; "" if nothing was.
func simulate(seed int64, b bug) (trace, wrong string) {
	s := &sim{bug: b, rng: rand.New(rand.NewPCG(uint64(seed), 1)), now: start, room: New(Config{Occupants: 4}, 0, time.Time{}),
		model:    &model{seats: map[string]seat{}, shows: map[string]Update{}},
		replicas: map[presence.Edge]map[string]string{}, versions: map[presence.Edge]uint64{}, torn: map[presence.Edge]bool{}}
	defer func() {
		trace = s.trace.String()
		if p := recover(); p != nil {
			v, ok := p.(violation)
			if !ok {
				panic(p)
			}
			wrong = string(v)
		}
	}()
	s.run(400)
	return trace, wrong
}

// TestSim runs seeds, each twice with the same trace; -seed N runs one.
func TestSim(t *testing.T) {
	seeds := []int64{*seed}
	if *seed == 0 {
		seeds = seeds[:0]
		for i := int64(1); i <= 60; i++ {
			seeds = append(seeds, i)
		}
	}
	for _, n := range seeds {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			a, wrong := simulate(n, bug{})
			if wrong != "" {
				t.Fatal(wrong)
			}
			if b, _ := simulate(n, bug{}); a != b {
				t.Fatal("two runs of one seed differ")
			}
		})
	}
}

func defect(name string, handed func(Handed) (Handed, bool)) injected.Bug {
	checkers := injected.Checkers{{Name: "model", Says: "room has"}, {Name: "convergence", Says: "sees"}, {Name: "versions", Says: "fell from"}}
	return injected.Bug{Name: name, In: "hand-over", Within: 20, Sample: 100, Try: func(_ *testing.T, seed uint64) (checker, said string) {
		if _, said := simulate(int64(seed), bug{handed}); said != "" {
			return checkers.Of(said), said
		}
		return "", ""
	}}
}

var defects = []injected.Bug{
	defect("places in grace are not handed over", func(h Handed) (Handed, bool) { return h, false }),
	defect("a grace begins anew when its room moves", func(h Handed) (Handed, bool) { h.Until = h.Until.Add(5 * time.Second); return h, true }),
	defect("a place that moves forgets its state", func(h Handed) (Handed, bool) {
		h.Enter.State, h.Enter.Hidden = presence.Online, false
		return h, true
	}),
}

// TestInjectedBugs shows that each turns a checker red.
func TestInjectedBugs(t *testing.T) { injected.Found(t, defects) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects) }

// FuzzRoom steps any sequence of inputs: no panic, and the counts hold.
func FuzzRoom(f *testing.F) {
	f.Add([]byte("enter and leave"), int64(1))
	f.Fuzz(func(t *testing.T, ops []byte, n int64) {
		s := &sim{rng: rand.New(rand.NewPCG(uint64(n), 2)), now: start, room: New(Config{Occupants: 2, Places: 5}, 0, start.Add(3*time.Second))}
		for _, op := range ops {
			in := []Input{s.place(), Leave{User: fmt.Sprint("u", op%6), Session: fmt.Sprint("s", op%12)}, List{}, Tick{}, Settled{},
				Announce{Edge: s.edge(int(op % 3)), Places: []Enter{s.place(), {}, s.place()}}, EdgeLost{s.edge(int(op % 3))},
				Typing{User: fmt.Sprint("u", op%6)}, Handed{Enter: s.place(), Until: s.now.Add(time.Duration(op) * time.Second)}, nil}[int(op)%10]
			s.now = s.now.Add(time.Duration(op) * 40 * time.Millisecond)
			s.room.Step(s.now, in)
			if n := len(s.room.tell()); n != s.room.visible {
				t.Fatalf("%d occupants, counted %d", n, s.room.visible)
			}
			s.room.Deadline()
		}
	})
}
