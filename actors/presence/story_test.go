package presence

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestStories plays testdata/*.txt: each block is a list of steps, one a line, and what
// was seen. "watcher@edge sees user …" is what a client shows.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *story
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "world" {
				s = newStory(t, d.CmdArgs)
			}
			return s.play(d.Input)
		})
	})
}

type story struct {
	*world
	t     *testing.T
	start time.Time
	out   strings.Builder
}

func newStory(t *testing.T, args []datadriven.CmdArg) *story {
	cfg := DefaultConfig()
	for _, a := range args {
		v := ""
		if len(a.Vals) > 0 {
			v = a.Vals[0]
		}
		n, _ := strconv.Atoi(v)
		switch a.Key {
		case "devices":
			cfg.Devices = n
		case "reject":
			cfg.RejectDevices = true
		case "storm-floor":
			cfg.StormFloor = uint64(n)
		case "buckets":
			cfg.Buckets = true
		default:
			t.Fatalf("unknown setting %s", a.Key)
		}
	}
	s := &story{world: newWorld(cfg), t: t}
	s.start = s.now
	s.log = func(format string, args ...any) {
		fmt.Fprintf(&s.out, "%-7s "+format+"\n", append([]any{"+" + s.now.Sub(s.start).String()}, args...)...)
	}
	s.checked = true
	s.fail = func(format string, args ...any) { s.t.Errorf(format, args...) }
	s.open()
	return s
}

func (s *story) play(input string) string {
	s.out.Reset()
	for line := range strings.Lines(input) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		s.line(words)
		s.drain()
	}
	if s.out.Len() == 0 {
		return "nothing is seen\n"
	}
	return s.out.String()
}

// line plays one step: who, what, how.
func (s *story) line(w []string) {
	rest := w[2:]
	switch {
	case w[0] == "after":
		s.advance(s.duration(w[1]), true)
	case strings.HasPrefix(w[0], "e") && len(w[0]) == 2:
		s.edgeStep(s.edges[w[0]], w[0], w[1])
	case w[0] == "the":
		s.shardStep(w[1:])
	case strings.Contains(w[0], "/"):
		user, device, _ := strings.Cut(w[0], "/")
		s.device(s.client(user, device), w[1], rest)
	default:
		s.person(w[0], w[1], rest)
	}
}

func (s *story) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *story) edgeStep(e *vedge, name, what string) {
	switch what {
	case "starts":
		s.world.start(name)
	case "cut":
		e.cut(s.world)
	case "links":
		e.relink(s.world)
	case "killed":
		e.kill(s.world)
	case "dead":
		s.gateway(EdgeDead{e.id()})
	case "slow":
		e.holdBack = true
	case "announces":
		e.holdBack = false
		e.announce(s.world)
	case "drains":
		e.draining = true
		e.send(EdgeDraining{e.id(), true})
	default:
		s.t.Fatalf("edge step %s", what)
	}
}

func (s *story) shardStep(w []string) {
	switch strings.Join(w, " ") {
	case "shard moves":
		s.open()
	case "beat comes":
		sessions, lost := s.gw.Load(s.now)
		s.gateway(Cluster{sessions, lost})
		s.log("beat: %d live, %d lost", sessions, lost)
	case "cluster storms":
		s.gateway(Cluster{Sessions: 1000, Lost: 600})
	case "storm ends":
		s.gateway(Cluster{Sessions: 1600})
	case "counts are":
		s.log("%+v", s.gw.Counts(testApp))
	case "list is":
		for _, r := range s.gw.Online(testApp, "", "", 100) {
			s.log("%s %s", r.User, r.View.text())
		}
	default:
		s.t.Fatalf("the %v", w)
	}
}

var storyCauses = map[string]Cause{
	"bye": Bye, "gone": Gone, "silence": Silence, "drain": Drain, "expired": Expired,
}

// device steps: alice/phone connects e1.
func (s *story) device(c *client, what string, rest []string) {
	opts := options(rest)
	switch what {
	case "connects":
		c.inactive = slices.Contains(rest, "inactive")
		c.grace = -1
		if g := opts["grace"]; g != "" {
			c.grace = s.duration(g)
		}
		if slices.Contains(rest, "late") {
			c.attempt -= 2
		}
		if slices.Contains(rest, "fresh") {
			c.session = ""
		}
		if slices.Contains(rest, "reading") && c.box == nil {
			c.box = &inbox{}
		}
		s.connect(c, rest[0])
	case "acks":
		s.ack(c)
	case "goes":
		s.disconnect(c, storyCauses[rest[0]])
	case "away", "active":
		s.activity(c, what == "away")
	default:
		s.command(c.user, c.device, what, rest)
	}
}

// command acts from a device, or from the HTTP API if the device is not connected.
func (s *story) command(user, device, what string, rest []string) {
	opts := options(rest)
	s.act(user, device, func(session string, conn Conn) Input {
		switch what {
		case "claims":
			c := Claim{ID: rest[0], Source: rest[0], Priority: -1, Text: opts["text"], Emoji: opts["emoji"], Activity: opts["activity"], Durable: slices.Contains(rest, "durable")}
			c.State = State(max(0, slices.Index(stateNames[:], opts["state"])))
			if ttl := opts["ttl"]; ttl != "" {
				c.TTL = s.duration(ttl)
			}
			return SetClaim{session, conn, c}
		case "unclaims":
			return EndClaim{session, conn, rest[0]}
		case "hides":
			return SetInvisible{session, conn, true}
		case "appears":
			return SetInvisible{session, conn, false}
		}
		s.t.Fatalf("%s %s", user, what)
		return nil
	})
}

// person steps: bob watches e2 alice.
func (s *story) person(user, what string, rest []string) {
	toUser := func(user string, in Input) { s.gateway(Deliver{Key: Key{testApp, user}, In: in}) }
	field := func(name string) Mask { return 1 << slices.Index(fieldNames[:], name) }
	switch what {
	case "watches":
		s.watch(user, rest[0], rest[1:]...)
	case "unwatches":
		s.unwatch(user, rest[0], rest[1:]...)
	case "lets":
		r := FieldRule{Field: field(rest[0]), Rule: Rule(slices.Index(ruleNames[:], rest[1])), Users: rest[2:]}
		toUser(user, SetAudience{Rules: []FieldRule{r}})
	case "grants":
		toUser(user, SetAudience{Grants: []Grant{{rest[0], field(rest[1]), s.duration(rest[2])}}})
	case "adds":
		in := Import{}
		for _, id := range rest {
			in.Rows = append(in.Rows, RelationRow{id, RelationFrom})
		}
		toUser(user, in)
	case "blocks":
		toUser(user, SetRelations{Block: rest})
	case "unblocks":
		toUser(user, SetRelations{Unblock: rest})
	case "subscribes", "approves", "denies", "unsubscribes", "removes":
		actions := []string{"subscribes", "approves", "denies", "unsubscribes", "removes"}
		toUser(user, Contact{User: rest[0], Action: ContactAction(slices.Index(actions, what) + 1)})
	case "sends": // app sends alice m1
		p := Publish{ClientID: rest[1], Body: `"x"`, ID: s.newID(s.now), Collapse: options(rest)["collapse"], AnyDevice: slices.Contains(rest, "any")}
		if user != "app" {
			p.Sender = user
		}
		if ttl := options(rest)["ttl"]; ttl != "" {
			p.TTL = s.duration(ttl)
		}
		s.publish(rest[0], p)
	case "awaits":
		toUser(user, NotifyWhen{User: rest[0]})
	case "erased":
		toUser(user, Erase{})
	case "withholds":
		e := s.edges[rest[0]]
		e.hidden[user] = field(rest[1])
		s.watch(user, rest[0], sortedKeys(e.hub[user])...)
	case "kicked":
		toUser(user, Kick{Device: strings.Join(rest, "")})
	case "revoked":
		toUser(user, Revoke{Before: s.now.Unix() + 1})
	case "panics":
		s.drop(user)
	case "explained":
		for _, tr := range s.actors[user].u.Explain().Transitions {
			s.log("%s %s %s: %s → %s", tr.At.Sub(s.start), tr.What, tr.Cause, tr.From, tr.To)
		}
	case "seen":
		s.log("%+v", s.gw.Hides(Key{testApp, user}, Watcher{User: rest[0]}))
	default:
		s.command(user, "", what, rest)
	}
}

func options(words []string) map[string]string {
	opts := map[string]string{}
	for _, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			opts[k] = v
		}
	}
	return opts
}
