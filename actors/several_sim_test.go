package actors

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/cluster/injected"
)

// severally plays users on three nodes that are edge and core, and one edge more, while processes die, machines are
// lost, links hang and shards move. Nobody who is there may be shown offline, at any time; in the end every
// watcher sees the truth.
type severally struct {
	*party
	rng   *rand.Rand
	all   []string
	trace []string
	away  []func() // what comes back
}

func (s *severally) note(format string, args ...any) {
	s.trace = append(s.trace, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func pick[T any](rng *rand.Rand, all []T) T { return all[rng.IntN(len(all))] }

// reaches says that what an edge says of a user is heard.
func (s *severally) reaches(e *process, user string) bool {
	c := s.leader(shardOf(user))
	return !e.mute && c != nil && c.node.Load() != nil && e.pipes[c] != nil && e.pipes[c].Epoch() != 0 && !e.off[c]
}

func (s *severally) step() {
	e, user := pick(s.rng, s.edges), pick(s.rng, s.all)
	session := user + fmt.Sprint("-", s.rng.IntN(2))
	switch op := s.rng.IntN(26); {
	case op == 25:
		s.crossed(e, pick(s.rng, s.edges), user, session)
	case op == 24:
		s.newAndDead(e)
	case op < 6:
		if s.reaches(e, user) {
			stale := s.rng.IntN(3) == 0
			s.note("attach %s to %s, stale %v", session, e.name, stale)
			if stale {
				s.attach(e, user, session, true)
			} else {
				s.attach(e, user, session)
			}
		}
	case op < 9:
		if h := s.holder(user, session); h != nil {
			why := pick(s.rng, []link.Cause{link.Cause_BYE, link.Cause_GONE, link.Cause_SILENCE})
			s.note("%s leaves %s: %v", session, h.name, why)
			s.leave(h, user, session, why)
		}
	case op < 10:
		s.endEdge(e, s.rng.IntN(2) == 0)
	case op < 11:
		s.endCore(pick(s.rng, s.cores))
	case op < 12: // a node that is both
		c := pick(s.rng, s.cores)
		if i := slices.IndexFunc(s.edges, func(e *process) bool { return e.name[1:] == c.name[1:] }); i >= 0 && s.living() > 2 && c.node.Load() != nil {
			s.endEdge(s.edges[i], false)
			s.endCore(c)
		}
	case op < 14:
		shard, to := shardOf(user), s.next(s.rng.IntN(3))
		s.note("shard %d goes to %s", shard, to.name)
		s.hand(shard, to)
	case op < 15:
		s.depose(shardOf(user))
	case op < 17:
		s.trouble(e, s.next(s.rng.IntN(3)), op == 15)
	case op < 19 && len(s.away) > 0:
		i := s.rng.IntN(len(s.away))
		back := s.away[i]
		s.away = slices.Delete(s.away, i, i+1)
		back()
	default:
		d := pick(s.rng, []time.Duration{time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 5 * time.Second})
		s.note("%v pass", d)
		pass(d)
	}
	synctest.Wait()
}

// holder is the edge that has the newest conn of a session.
func (s *severally) holder(user, session string) *process {
	s.truth.mu.Lock()
	conn := s.truth.of(user).held[session]
	s.truth.mu.Unlock()
	for _, e := range s.edges {
		if conn != 0 && e.connOf(session) == conn {
			return e
		}
	}
	return nil
}

func (s *severally) living() (n int) {
	for _, c := range s.cores {
		if c.node.Load() != nil {
			n++
		}
	}
	return n
}

func (s *severally) endEdge(e *process, machine bool) {
	if len(s.edges) <= 2 || e.mute {
		return
	}
	s.note("%s dies, its machine too: %v", e.name, machine)
	if machine {
		s.unplug(e)
	} else {
		s.kill(e)
	}
	e.testEdge.mu.Lock()
	held := len(e.sessions)
	e.testEdge.mu.Unlock()
	s.note("%d sessions were lost", held)
	s.away = append(s.away, func() {
		s.note("%s starts", e.name)
		s.begin(e.name)
	})
}

func (s *severally) endCore(c *core) {
	if s.living() <= 2 || c.node.Load() == nil {
		return
	}
	failover := pick(s.rng, []time.Duration{50 * time.Millisecond, 800 * time.Millisecond})
	s.note("%s dies, its shards are led again after %v", c.name, failover)
	for _, e := range s.edges {
		delete(e.off, c)
	}
	s.die(c, failover)
	s.away = append(s.away, func() {
		s.note("%s starts", c.name)
		s.start(c)
		for shard := range uint32(link.Shards) {
			if shard%3 == uint32(s.rng.IntN(3)) {
				s.hand(shard, c)
			}
		}
	})
}

// depose lets another core lead while the leader believes that it still does, for a while.
func (s *severally) depose(shard uint32) {
	old, to := s.leader(shard), s.next(s.rng.IntN(3))
	if old == to || old.node.Load() == nil {
		return
	}
	s.note("%s leads shard %d after %s, which is told later", to.name, shard, old.name)
	node, term := old.node.Load(), s.term[shard]
	to.lead(shard)
	s.later(700*time.Millisecond, func() { node.Closed(shard, term) })
}

// trouble breaks one link for some seconds.
func (s *severally) trouble(e *process, c *core, cut bool) {
	pipe := e.pipes[c]
	if e.mute || e.off[c] || pipe == nil {
		return
	}
	s.note("link of %s and %s, cut %v", e.name, c.name, cut)
	e.off[c] = true
	node := c.node.Load()
	if cut {
		pipe.Cut()
	} else {
		pipe.Mute(true)
	}
	s.moveAway(e)
	pass(pick(s.rng, []time.Duration{300 * time.Millisecond, 6 * time.Second, 9 * time.Second}))
	e.off[c] = false
	if c.node.Load() == node && cut {
		pipe.Redial()
	}
	pipe.Mute(false)
	pass(1500 * time.Millisecond) // a gap is found by a beat
}

// moveAway lets the sessions of an edge connect elsewhere. It does not hear that they are replaced if its link to
// the leader is down.
func (s *severally) moveAway(e *process) {
	e.testEdge.mu.Lock()
	held := slices.SortedFunc(maps.Values(e.sessions), func(a, b *link.Attach) int { return strings.Compare(a.Session, b.Session) })
	e.testEdge.mu.Unlock()
	for _, a := range held {
		if to := pick(s.rng, s.edges); to != e && s.reaches(to, a.User) && s.holder(a.User, a.Session) == e && s.rng.IntN(2) == 0 {
			s.note("%s moves to %s", a.Session, to.name)
			s.attach(to, a.User, a.Session, true)
		}
	}
}

// crossed lets a try to connect arrive after the one that followed it.
func (s *severally) crossed(first, second *process, user, session string) {
	if first == second || !s.reaches(first, user) || !s.reaches(second, user) {
		return
	}
	s.note("%s tries %s, then %s, which hears of it first", session, first.name, second.name)
	s.lives++
	s.attach(second, user, session)
	synctest.Wait()
	first.testEdge.attach(user, session, s.lives-1)
}

// newAndDead lets a user come online whose leader then dies before it has written that.
func (s *severally) newAndDead(e *process) {
	absent := slices.DeleteFunc(slices.Clone(s.all), func(user string) bool { return s.truth.isThere(user) || !s.reaches(e, user) })
	if len(absent) == 0 {
		return
	}
	user := pick(s.rng, absent)
	s.note("%s is new at %s", user, e.name)
	s.attach(e, user, user+"-0")
	synctest.Wait()
	s.endCore(s.leader(shardOf(user)))
}

// begin starts an edge process that watches all. Some are slow to announce.
func (s *severally) begin(name string) {
	e := s.edge(name)
	e.testEdge.mu.Lock()
	e.slow = map[string]time.Duration{"e2": 100 * time.Millisecond, "e3": time.Second}[name]
	e.testEdge.mu.Unlock()
	e.watch(e.name, s.all...)
}

// play runs one seed and says what was wrong.
func play(t *testing.T, seed uint64, bug severalBug) (wrong []string, trace string) {
	cfg := presence.DefaultConfig()
	c := Config{Presence: &cfg}
	if bug.config != nil {
		bug.config(&c)
	}
	inParty(t, 3, 0, c, func(p *party) {
		p.alter, p.dull = bug.alter, bug.dull
		s := &severally{party: p, rng: rand.New(rand.NewPCG(seed, 4)), all: crowd(12)}
		for i := range 4 {
			s.begin(fmt.Sprint("e", i))
		}
		pass(time.Second)
		for range 120 {
			if s.step(); len(p.truth.falseOfflines()) > 0 {
				break
			}
		}
		pass(4 * time.Minute)
		wrong, trace = append(p.truth.falseOfflines(), s.untrue(s.all)...), strings.Join(s.trace, "\n")
	})
	return wrong, trace
}

// severalBug breaks one rule.
type severalBug struct {
	name   string
	config func(*Config)
	alter  func(*link.Up)
	dull   bool
}

// in says what has the bug.
func (b *severalBug) in() string {
	if b.config != nil {
		return "core"
	}
	return "edge"
}

var severalBugs = []severalBug{
	{name: "edge lease off", config: func(c *Config) { c.Lease = 24 * time.Hour }},
	{name: "settle skipped", config: func(c *Config) { c.Presence.Settle = 0 }},
	{name: "presumed sessions off", config: func(c *Config) { c.Presence.Presume = 0 }},
	{name: "takeover by arrival", alter: func(m *link.Up) {
		if a := m.GetAttach(); a != nil {
			a.Attempt = 0
		}
		if a := m.GetDetach(); a != nil {
			a.Attempt = 0
		}
		if a := m.GetAnnounce(); a != nil {
			for i, s := range a.Sessions {
				a.Sessions[i] = &link.Attach{App: s.App, User: s.User, Device: s.Device, Class: s.Class, Session: s.Session, Resume: true,
					Conn: s.Conn, GraceMs: -1}
			}
		}
	}},
	{name: "no re-announcement after a lost link", dull: true},
	{name: "grace after a death off", config: func(c *Config) { c.Presence.GraceNodeLost = 0 }},
}

func TestSeveralSim(t *testing.T) {
	from, to := int64(1), *seeds
	if *seed != 0 {
		from, to = *seed, *seed
	}
	for n := from; n <= to; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if wrong, trace := play(t, uint64(n), severalBug{}); len(wrong) > 0 {
				t.Fatalf("%s\n%s", trace, strings.Join(wrong, "\n"))
			}
		})
	}
}

func defects() (all []injected.Bug) {
	checkers := injected.Checkers{{Name: "false offline", Says: "is offline at"}, {Name: "newest conn wins", Says: "is to close the newest conn"}, {Name: "presence convergence", Says: "truth is"}}
	for _, b := range severalBugs {
		all = append(all, injected.Bug{Name: b.name, In: b.in(), Within: 100, Sample: 50, Try: func(t *testing.T, seed uint64) (checker, said string) {
			if wrong, _ := play(t, seed, b); len(wrong) > 0 {
				return checkers.Of(wrong[0]), wrong[0]
			}
			return "", ""
		}})
	}
	return all
}

// TestSeveralBugs shows that each broken rule is noticed.
func TestSeveralBugs(t *testing.T) { injected.Found(t, defects()) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects()) }
