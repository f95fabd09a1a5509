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
)

var seed = flag.Int64("seed", 0, "run this seed of the simulator only")

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
	switch op := s.rng.IntN(14); op {
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
	for i := range 6 { // what was told to panic does so now
		s.hide(simUser(i), s.hidden[simUser(i)])
	}
	pass(2 * time.Minute)
	for i := range 6 {
		s.hide(simUser(i), s.hidden[simUser(i)])
		synctest.Wait()
		if a := s.edges[0].answer(s.acted).GetActed(); a == nil || a.Code != link.Code_OK {
			s.t.Fatalf("%s was not hidden: %v\n%s", simUser(i), a, strings.Join(s.trace, "\n"))
		}
	}
	pass(3 * time.Minute)
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
			if got := e.shown[e.name+">"+user]; got != want && (got != "" || want != "offline") {
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
	from, to := int64(1), int64(20)
	if *seed != 0 {
		from, to = *seed, *seed
	}
	for n := from; n <= to; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			onDisk(t, 3, Config{}, func(c *cluster, d *disk) {
				s := &sim{cluster: c, rng: rand.New(rand.NewPCG(uint64(n), 3)), disk: d, hidden: map[string]bool{}}
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
			})
		})
	}
}
