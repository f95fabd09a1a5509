package actors

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

var (
	seed  = flag.Int64("seed", 0, "run this seed of the simulator only")
	seeds = flag.Int64("seeds", 20, "how many seeds the simulator runs")
)

// sim plays users on edges whose links are cut and lose messages, and whose activations
// and gateways panic. In the end all is healed, and every watcher must see the truth.
// steady is a user nothing ever happens to: nobody may see it offline.
type sim struct {
	*cluster
	rng    *rand.Rand
	disk   *disk
	conn   uint64
	hidden map[string]bool
	cut    [3]bool
	trace  []string
	acted  uint64 // the last call

	said    map[string]int // by user: the last number it was told to show
	sayings []saying
}

// saying is a command to show a number for good.
type saying struct {
	user string
	n    int
	call uint64
}

// checkSayings fails if a user shows less than what was last acknowledged.
func (s *sim) checkSayings() {
	s.t.Helper()
	acked := map[string]int{}
	for _, say := range s.sayings {
		if a := s.edges[0].answer(say.call).GetActed(); a.GetCode() == link.Code_OK && a != nil {
			acked[say.user] = say.n
		}
	}
	for user, n := range acked {
		got := -1
		k := presence.Key{App: app, User: user}
		span := row.More(k)
		_ = s.disk.Scan(shardOf(user), span.From, span.To, func(key, v []byte) bool {
			if r, err := row.Decode(k, key, v); err != nil {
				s.t.Errorf("%q: %v", key, err)
			} else if c, ok := r.(presence.ClaimSet); ok && c.Claim.ID == "says" {
				_, _ = fmt.Sscan(c.Claim.Text, &got)
			}
			return true
		})
		if got < n || got > s.said[user] {
			s.t.Fatalf("%s says %d, acknowledged was %d of %d\n%s", user, got, n, s.said[user], strings.Join(s.trace, "\n"))
		}
	}
}

const steady = "steady"

func simUser(i int) string { return fmt.Sprint("u", i) }

func (s *sim) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

// session returns the edge that holds a session, or nil.
func (s *sim) holder(session string) *testEdge {
	for _, e := range s.edges {
		e.mu.Lock()
		held := e.sessions[session] != nil
		e.mu.Unlock()
		if held {
			return e
		}
	}
	return nil
}

func (e *testEdge) connOf(session string) uint64 {
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sessions[session].GetConn()
}

func (s *sim) step() {
	user := simUser(s.rng.IntN(6))
	session := user + "-" + fmt.Sprint(s.rng.IntN(2))
	e := s.edges[s.rng.IntN(len(s.edges))]
	i := s.rng.IntN(len(s.edges))
	switch op := s.rng.IntN(20); op {
	case 0, 1, 2:
		s.conn++
		s.note("attach %s to %s as %d", session, e.name, s.conn)
		old := s.holder(session)
		was := old.connOf(session)
		e.attach(user, session, s.conn)
		if old != nil && old != e {
			old.detach(user, session, was, link.Cause_SILENCE)
		}
	case 3, 4:
		if h := s.holder(session); h != nil {
			conn := h.connOf(session)
			cause := []link.Cause{link.Cause_BYE, link.Cause_GONE, link.Cause_SILENCE, link.Cause_DRAIN}[s.rng.IntN(4)]
			s.note("detach %s from %s as %d: %v", session, h.name, conn, cause)
			h.detach(user, session, conn, cause)
		}
	case 5:
		s.hide(user, !s.hidden[user])
	case 6:
		state := []presence.State{presence.DND, presence.Online}[s.rng.IntN(2)]
		s.note("steady is %d", state)
		s.edges[0].status(steady, "st", 1<<40, state, "")
	case 7:
		if i > 0 && !s.cut[i] {
			s.note("cut %d", i)
			s.cut[i] = true
			s.pipes[i].Cut()
		}
	case 8:
		if s.cut[i] {
			s.note("redial %d", i)
			s.cut[i] = false
			s.pipes[i].Redial()
		}
	case 9:
		s.note("lose a message of %d", i)
		[]func(int){s.pipes[i].DropUp, s.pipes[i].DropDown}[s.rng.IntN(2)](1)
	case 10:
		u := []string{user, steady}[s.rng.IntN(2)]
		s.note("%s will panic", u)
		s.crash(u)
	case 11:
		shard := shardOf([]string{user, steady}[s.rng.IntN(2)])
		s.note("gateway %d panics", shard)
		synctest.Wait()
		s.node.gateways[shard].core = nil
		s.node.post(shard, presence.Cluster{})
	case 12:
		on := s.rng.IntN(2) == 0
		s.note("commits are held: %v", on)
		s.disk.hold(on)
	case 13:
		err := []error{nil, ErrNoRoom, ErrBusy}[s.rng.IntN(3)]
		s.note("the store refuses: %v", err)
		s.disk.refuse(err)
	case 14:
		shard := shardOf([]string{user, steady}[s.rng.IntN(2)])
		s.note("shard %d loses its term", shard)
		s.disk.lose(shard, true)
	case 15, 16:
		s.said[user]++
		s.note("%s says %d", user, s.said[user])
		s.sayings = append(s.sayings, saying{user, s.said[user], s.edges[0].setClaim(user, "says", fmt.Sprint(s.said[user]), 0)})
	default:
		d := []time.Duration{time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 7 * time.Second}[s.rng.IntN(4)]
		s.note("%v pass", d)
		pass(d)
	}
}

func (s *sim) hide(user string, on bool) {
	s.note("%s hides: %v", user, on)
	s.hidden[user] = on
	s.acted = s.edges[0].act(user, &link.Act{What: &link.Act_Invisible{Invisible: on}})
}

// heal ends all faults and lets the graces run out. Commands that a fault lost are given
// once more.
func (s *sim) heal() {
	for i, p := range s.pipes {
		p.DropUp(0)
		p.DropDown(0)
		if s.cut[i] {
			p.Redial()
		}
	}
	s.disk.refuse(nil)
	s.disk.hold(false)
	pass(3 * time.Second) // links are whole
	for i := range 6 {    // what was told to panic does so now
		s.hide(simUser(i), s.hidden[simUser(i)])
	}
	pass(2 * time.Minute)
	for i := range 6 {
		s.hide(simUser(i), s.hidden[simUser(i)])
		synctest.Wait()
		if a := s.edges[0].answer(s.acted).GetActed(); a == nil || a.Code != link.Code_OK {
			s.t.Fatalf("%s was not hidden: %v\n%s\n%s", simUser(i), a, strings.Join(s.trace, "\n"), s.state(simUser(i)))
		}
	}
	pass(3 * time.Minute)
}

// presenceOf is a state without what was said: online or offline.
func presenceOf(shown string) string {
	state, _, _ := strings.Cut(shown, " ")
	if state == "dnd" {
		return "online"
	}
	return state
}

func (s *sim) check() {
	s.t.Helper()
	for _, e := range s.edges {
		e.mu.Lock()
		for i := range 6 {
			user := simUser(i)
			want := "offline"
			if !s.hidden[user] && (s.heldUnlocked(user, e)) {
				want = "online"
			}
			if got := presenceOf(e.shown[e.name+">"+user]); got != want && (got != "" || want != "offline") {
				e.mu.Unlock()
				call := e.ask(shardOf(user), &link.Ask{What: &link.Ask_Explain{Explain: &link.Explain{User: user, Watcher: e.name}}})
				synctest.Wait()
				s.t.Fatalf("%s sees %s %q, truth is %q\n%s\n%s\nmask %d ver %v\n%v", e.name, user, got, want, strings.Join(s.trace, "\n"), e.answer(call).GetAnswer().GetJson(), e.masks[e.name+">"+user], e.vers[e.name+">"+user], e.log)
			}
		}
		e.mu.Unlock()
	}
}

// checkSteady fails if somebody was shown offline who never was.
func (s *sim) checkSteady() {
	s.t.Helper()
	for _, e := range s.edges {
		e.mu.Lock()
		off := slices.Contains(e.log, e.name+">"+steady+": offline")
		e.mu.Unlock()
		if off {
			s.t.Fatalf("a false offline at %s\n%s", e.name, strings.Join(s.trace, "\n"))
		}
	}
}

// heldUnlocked is held for a caller that has locked one edge.
func (s *sim) heldUnlocked(user string, locked *testEdge) bool {
	for _, e := range s.edges {
		if e != locked {
			e.mu.Lock()
		}
		held := e.sessions[user+"-0"] != nil || e.sessions[user+"-1"] != nil
		if e != locked {
			e.mu.Unlock()
		}
		if held {
			return true
		}
	}
	return false
}

func TestSim(t *testing.T) {
	from, to := int64(1), *seeds
	if *seed != 0 {
		from, to = *seed, *seed
	}
	for n := from; n <= to; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			onDisk(t, 3, Config{}, func(c *cluster, d *disk) {
				s := &sim{cluster: c, rng: rand.New(rand.NewPCG(uint64(n), 3)), disk: d, hidden: map[string]bool{}, said: map[string]int{}}
				c.edges[0].attach(steady, "st", 1<<40)
				for _, e := range c.edges {
					e.watch(e.name, steady, "u0", "u1", "u2", "u3", "u4", "u5")
				}
				pass(time.Second)
				for range 150 {
					s.step()
					s.checkSteady()
				}
				s.heal()
				s.checkSteady()
				s.check()
				s.checkSayings()
			})
		})
	}
}

// state is what a shard waits for, for a failing seed.
func (s *sim) state(user string) string {
	g := s.node.gateways[shardOf(user)]
	t := g.gates[presence.Key{App: app, User: user}]
	return fmt.Sprintf("shard %d open %v full %v seq %d durable %d flights %d taken %d gate %+v disk %+v", g.shard, g.out != nil, g.full, g.seq, g.durable,
		len(g.flights), g.taken, t, s.disk.shards[g.shard].flying)
}
