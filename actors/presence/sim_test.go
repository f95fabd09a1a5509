package presence

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Int64("seed", -1, "replay one seed of the simulator, with its trace")
	seedsFlag = flag.Int("seeds", 100, "seeds that the simulator runs; also MUSTER_SEEDS")
)

var (
	simUsers   = []string{"ann", "bob", "cid", "dee"}
	simDevices = []string{"phone", "laptop", "tab"}
	simEdges   = []string{"e1", "e2", "e3"}
)

type violation string

// sim is one run: a world, a driver of random steps, and its trace.
type sim struct {
	*world
	r     *rand.Rand
	trace strings.Builder
	sent  []sentTo
}

func newSim(source rand.Source, b bug) *sim {
	cfg := DefaultConfig()
	r := rand.New(source)
	cfg.Devices = 2 + r.Intn(3)
	cfg.RejectDevices = r.Intn(4) == 0
	cfg.Claims = 3
	cfg.Buckets = r.Intn(4) == 0
	cfg.StormFloor = 3
	if b.cfg != nil {
		b.cfg(&cfg)
	}
	s := &sim{world: newWorld(cfg), r: r}
	s.bug, s.checked, s.twice = b, true, true
	s.pick = r.Intn
	s.log = func(format string, args ...any) {
		fmt.Fprintf(&s.trace, "%s "+format+"\n", append([]any{s.now.Format("15:04:05.000")}, args...)...)
	}
	s.fail = func(format string, args ...any) { panic(violation(fmt.Sprintf(format, args...))) }
	s.open()
	for _, name := range simEdges {
		s.start(name)
	}
	for _, name := range simUsers {
		s.watch(name, simEdges[r.Intn(len(simEdges))], simUsers...)
	}
	return s
}

// run makes the steps and returns what went wrong, if anything did.
func run(seed int64, steps int, b bug) (trace, failure string) {
	return runFrom(rand.NewSource(seed), steps, b)
}

func runFrom(source rand.Source, steps int, b bug) (trace, failure string) {
	s := newSim(source, b)
	defer func() {
		trace = s.trace.String()
		if v := recover(); v != nil {
			bad, ok := v.(violation)
			if !ok {
				panic(v)
			}
			failure = string(bad)
		}
	}()
	for i := range steps {
		s.log("step %d", i)
		s.step()
		for range s.r.Intn(6) {
			if !s.move() {
				break
			}
		}
		if s.r.Intn(3) == 0 {
			s.advance(time.Duration(s.r.Intn(2000))*time.Millisecond, false)
		}
		if s.r.Intn(40) == 0 {
			s.quiet()
			s.checkTruth()
			s.symmetric()
			s.read()
		}
	}
	s.end()
	return "", ""
}

// end takes everybody away and demands that nobody is left.
func (s *sim) end() {
	s.quiet()
	s.checkTruth()
	for _, n := range sortedKeys(s.clients) {
		s.disconnect(s.clients[n], []Cause{Bye, Gone, Silence, NodeLost}[s.r.Intn(4)])
	}
	for _, e := range s.edgeList() {
		for _, id := range e.connIDs() { // sockets of devices that moved on
			e.giveUp(s.world, id)
		}
	}
	s.drain()
	s.advance(3*time.Minute, true)
	s.checkTruth()
	for _, user := range simUsers {
		if a := s.actors[user]; a != nil && a.m.raw().State != Offline {
			s.fail("%s is a ghost", user)
		}
	}
	if c := s.gw.Counts(""); c.Sessions+c.Detached+c.Online+c.Away+c.DND != 0 {
		for _, user := range sortedKeys(s.actors) {
			s.log("%s: %+v", user, s.actors[user].u.Explain().Sessions)
		}
		s.fail("left behind: %+v", c)
	}
}

func (s *sim) someone() string { return simUsers[s.r.Intn(len(simUsers))] }

func (s *sim) someEdge() *vedge { return s.edges[simEdges[s.r.Intn(len(simEdges))]] }

// step does one random thing.
func (s *sim) step() {
	c := s.client(s.someone(), simDevices[s.r.Intn(len(simDevices))])
	switch n := s.r.Intn(140); {
	case n >= 100:
		s.own()
	case n < 30:
		s.comeAndGo(c)
	case n < 40:
		s.activity(c, s.r.Intn(2) == 0)
	case n < 62:
		s.command(c)
	case n < 70:
		s.look()
	case n < 74:
		s.repeat()
	default:
		s.fault()
	}
}

func (s *sim) comeAndGo(c *client) {
	switch {
	case c.state == "connecting":
	case c.state == "off" || s.r.Intn(4) == 0: // also a takeover
		c.inactive = s.r.Intn(4) == 0
		c.grace = []time.Duration{-1, -1, 0, 8 * time.Second, 30 * time.Second}[s.r.Intn(5)]
		if s.r.Intn(8) == 0 {
			c.session = "" // the client forgot its session
		}
		if c.box == nil && s.r.Intn(2) == 0 {
			c.box = &inbox{}
		}
		if c.state == "on" && s.r.Intn(3) == 0 {
			c.attempt -= min(c.attempt, 2) // a late try
		}
		was := *c
		s.connect(c, simEdges[s.r.Intn(len(simEdges))])
		if was.state == "on" && c.state == "connecting" {
			c.safe = s.now // what it had counts no longer
		}
		s.log("%s/%s connects to %s", c.user, c.device, c.edge)
	default:
		why := []Cause{Bye, Gone, Silence, Drain, Expired}[s.r.Intn(5)]
		s.log("%s/%s goes: %v", c.user, c.device, why)
		s.disconnect(c, why)
	}
}

func (s *sim) command(c *client) {
	field := Mask(1) << s.r.Intn(fields)
	other := s.someone()
	on := s.r.Intn(2) == 0
	var in func(session string, conn Conn) Input
	switch s.r.Intn(9) {
	case 0, 1, 2:
		cl := Claim{ID: []string{Manual, "call", "x", "y"}[s.r.Intn(4)], Source: "api", State: State(s.r.Intn(3)), Text: []string{"", "busy", "lunch"}[s.r.Intn(3)],
			Priority: -1, TTL: []time.Duration{0, 10 * time.Second, time.Hour}[s.r.Intn(3)], Durable: s.r.Intn(3) == 0}
		in = func(session string, conn Conn) Input { return SetClaim{session, conn, cl} }
	case 3:
		id := []string{Manual, "call", "x", "y"}[s.r.Intn(4)]
		in = func(session string, conn Conn) Input { return EndClaim{session, conn, id} }
	case 4:
		in = func(session string, conn Conn) Input { return SetInvisible{session, conn, on} }
	case 5:
		rule := FieldRule{Field: field, Rule: Rule(s.r.Intn(5))}
		if rule.Rule == Only || rule.Rule == ContactsExcept {
			rule.Users = []string{other}
		}
		in = func(string, Conn) Input { return SetAudience{Rules: []FieldRule{rule}} }
	case 6:
		g := Grant{To: other, Fields: field | FieldState, TTL: time.Duration(s.r.Intn(30)) * time.Second}
		in = func(string, Conn) Input { return SetAudience{Grants: []Grant{g}} }
	case 7:
		r := SetRelations{Block: []string{other}}
		if on {
			r = SetRelations{Unblock: []string{other, s.someone()}}
		}
		in = func(string, Conn) Input { return r }
	case 8:
		s.end9(c, on)
		return
	}
	s.log("%s/%s does %+v", c.user, c.device, in("", Conn{}))
	s.act(c.user, c.device, in)
}

// end9 kicks or revokes; the clients' protection ends with it.
func (s *sim) end9(c *client, kick bool) {
	if s.r.Intn(3) > 0 {
		return
	}
	in := Input(Revoke{Before: s.now.Unix()})
	if kick {
		in = Kick{Device: c.device}
	}
	s.log("%s/%s suffers %T", c.user, c.device, in)
	for _, d := range simDevices {
		if x := s.clients[c.user+"/"+d]; x != nil && (!kick || d == c.device) {
			x.safe = s.now
		}
	}
	s.gateway(Deliver{Key: Key{testApp, c.user}, In: in})
}

func (s *sim) look() {
	e := s.someEdge()
	watcher, user := s.someone(), s.someone()
	if !e.alive {
		return
	}
	switch s.r.Intn(5) {
	case 0:
		s.unwatch(watcher, e.name, user)
	case 1:
		e.send(Typing{App: testApp, User: user, To: watcher})
	case 2:
		e.hidden[watcher] = []Mask{0, FieldLastSeen, FieldLastSeen | FieldState}[s.r.Intn(3)]
		if e.hub[watcher] != nil {
			s.watch(watcher, e.name, sortedKeys(e.hub[watcher])...)
		}
	default:
		s.watch(watcher, e.name, user, s.someone())
	}
}

// repeat duplicates the last message of a queue, as a sender that retries does.
func (s *sim) repeat() {
	e := s.someEdge()
	if n := len(e.outbox); n > 0 {
		if d, ok := e.outbox[n-1].(Deliver); ok {
			e.outbox = append(e.outbox, d)
		}
	}
}

func (s *sim) fault() {
	e := s.someEdge()
	n := s.r.Intn(60)
	switch {
	case n < 8:
		s.log("%s loses its link", e.name)
		e.cut(s.world)
	case n < 30:
		s.log("%s links again", e.name)
		e.relink(s.world)
	case n < 33 && e.alive:
		s.log("%s is killed", e.name)
		e.kill(s.world)
	case n < 40 && !e.alive:
		s.log("%s starts anew", e.name)
		if s.r.Intn(2) == 0 {
			s.gateway(EdgeDead{e.id()})
		}
		s.start(e.name)
		s.watch(s.someone(), e.name, simUsers...)
	case n < 42 && e.linked:
		s.log("the core holds %s dead by mistake", e.name)
		e.cut(s.world)
		s.gateway(EdgeDead{e.id()})
		e.relink(s.world)
	case n < 46:
		user := s.someone()
		s.log("activation of %s is lost", user)
		s.drop(user)
	case n < 48:
		s.log("the shard moves")
		for _, e := range s.edgeList() {
			e.holdBack = s.r.Intn(3) == 0
		}
		s.open()
	case n < 52:
		sessions, lost := s.gw.Load(s.now)
		s.gateway(Cluster{sessions, lost})
	case n < 54 && e.linked:
		e.draining = !e.draining
		e.send(EdgeDraining{e.id(), e.draining})
	case n < 58 && e.linked && e.holdBack:
		e.holdBack = false
		e.announce(s.world)
	default:
		s.advance(time.Duration(s.r.Intn(20))*time.Second, s.r.Intn(2) == 0)
	}
}

func TestSim(t *testing.T) {
	if *seedFlag >= 0 {
		trace, failure := run(*seedFlag, 250, bug{})
		t.Log("\n" + trace)
		if failure != "" {
			t.Fatal(failure)
		}
		return
	}
	seeds := *seedsFlag
	if n, err := strconv.Atoi(os.Getenv("MUSTER_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range int64(seeds) {
		trace, failure := run(seed, 250, bug{})
		if failure != "" {
			t.Fatalf("seed %d: %s\nreplay: go test ./actors/presence/ -run Sim -seed %d -v", seed, failure, seed)
		}
		if again, _ := run(seed, 250, bug{}); again != trace {
			t.Fatalf("seed %d: two runs differ", seed)
		}
	}
}
