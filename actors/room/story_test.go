package room

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"muster/actors/presence"
)

var start = time.Date(2030, 1, 2, 3, 0, 0, 0, time.UTC)

// TestStories runs testdata: a room told by what happens and what everyone is sent.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &story{now: start}
		s.room = New(Config{}, 0, time.Time{})
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return s.run(t, d)
		})
	})
}

type story struct {
	room *Room
	now  time.Time
}

func (s *story) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "room":
		var cfg Config
		var settle time.Time
		if d.HasArg("occupants") {
			d.ScanArgs(t, "occupants", &cfg.Occupants)
		}
		if d.HasArg("settle") {
			settle = s.now.Add(duration(t, d, "settle"))
		}
		s.room = New(cfg, 0, settle)
		return ""
	case "wait":
		return s.wait(duration(t, d, d.CmdArgs[0].Key))
	}
	return render(s.room.Step(s.now, parse(t, d, s.now)))
}

// wait steps at each deadline on the way.
func (s *story) wait(d time.Duration) string {
	var b strings.Builder
	end := s.now.Add(d)
	for {
		at, ok := s.room.Deadline()
		if !ok || at.After(end) {
			s.now = end
			return b.String()
		}
		from := s.now
		s.now = at
		if out := render(s.room.Step(at, Tick{})); out != "" {
			fmt.Fprintf(&b, "after %v\n%s", at.Sub(from), out)
		}
	}
}

func parse(t *testing.T, d *datadriven.TestData, now time.Time) Input {
	switch d.Cmd {
	case "enter":
		return parseEnter(t, d.CmdArgs)
	case "leave":
		e := parseEnter(t, d.CmdArgs)
		return Leave{User: e.User, Session: e.Session, Conn: e.Conn, Cause: causes[arg(d, "cause", "bye")]}
	case "list":
		return List{}
	case "update":
		e := parseEnter(t, d.CmdArgs)
		return Update{User: e.User, State: e.State, Version: e.Version, Hidden: e.Hidden}
	case "typing":
		e := parseEnter(t, d.CmdArgs)
		return Typing{User: e.User, Conn: e.Conn, Kind: "text"}
	case "edge-lost":
		return EdgeLost{presence.Edge{Name: arg(d, "edge", "e1"), Incarnation: 1}}
	case "extend":
		return ExtendGrace{now.Add(duration(t, d, "by"))}
	case "settled":
		return Settled{}
	case "announce":
		in := Announce{Edge: presence.Edge{Name: arg(d, "edge", "e1"), Incarnation: 1}}
		for line := range strings.Lines(d.Input) {
			_, args, err := datadriven.ParseLine(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			in.Places = append(in.Places, parseEnter(t, args))
		}
		return in
	}
	t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	return nil
}

var causes = map[string]presence.Cause{"bye": presence.Bye, "gone": presence.Gone, "silence": presence.Silence,
	"drain": presence.Drain, "kicked": presence.Kicked, "expired": presence.Expired, "replaced": presence.Replaced}

var states = map[string]presence.State{"online": presence.Online, "away": presence.Away, "dnd": presence.DND, "offline": presence.Offline}

var reasons = map[presence.Reason]string{presence.ReasonExplicit: "explicit", presence.ReasonTimeout: "timeout",
	presence.ReasonKicked: "kicked", presence.ReasonNodeLost: "node_lost", presence.ReasonExpired: "expired"}

// parseEnter reads "ann e1/1 occupy subscribe info=x state=away v=3 hidden attempt=2"; the
// session is the user's name unless given.
func parseEnter(t *testing.T, args []datadriven.CmdArg) Enter {
	e := Enter{State: presence.Online, Conn: presence.Conn{Edge: "e1", Incarnation: 1, ID: 1}}
	num := func(s string) (n uint64) {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i, a := range args {
		val := strings.Join(a.Vals, ",")
		switch {
		case i == 0 && val == "":
			e.User, e.Session = a.Key, a.Key
		case strings.HasPrefix(a.Key, "e") && strings.Contains(a.Key, "/"):
			edge, id, _ := strings.Cut(a.Key, "/")
			e.Conn.Edge, e.Conn.ID = edge, num(id)
		case a.Key == "occupy":
			e.Occupy = true
		case a.Key == "subscribe":
			e.Subscribe = true
		case a.Key == "hidden":
			e.Hidden = true
		case a.Key == "session":
			e.Session = val
		case a.Key == "info":
			e.Info = val
		case a.Key == "bulk":
			e.Info = strings.Repeat("x", int(num(val)))
		case a.Key == "state":
			e.State = states[val]
		case a.Key == "v":
			e.Version = presence.Version{Term: 1, Number: num(val)}
		case a.Key == "attempt":
			e.Attempt = num(val)
		}
	}
	return e
}

func arg(d *datadriven.TestData, key, def string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return a.Vals[0]
		}
	}
	return def
}

func duration(t *testing.T, d *datadriven.TestData, key string) time.Duration {
	if d.Cmd != "wait" {
		key = arg(d, key, "")
	}
	v, err := time.ParseDuration(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func render(out Output) string {
	var b strings.Builder
	for _, s := range out.Sends {
		for _, to := range s.To {
			fmt.Fprintf(&b, "→ %s: ", to.Name)
			if s.Typing != nil {
				fmt.Fprintf(&b, "typing %s\n", s.Typing.User)
				continue
			}
			c := s.Change
			fmt.Fprintf(&b, "v%d of %d", c.Version, c.Count)
			if c.All {
				b.WriteString(" all")
			}
			occupants(&b, " enter", c.Enter)
			occupants(&b, " update", c.Update)
			occupants(&b, " leave", c.Leave)
			b.WriteByte('\n')
		}
	}
	if r := out.Reply; r != nil {
		if r.Code != OK {
			fmt.Fprintf(&b, "refused %d: %s\n", r.Code, r.Message)
			return b.String()
		}
		fmt.Fprintf(&b, "reply: v%d of %d", r.Version, r.Count)
		occupants(&b, "", r.Occupants)
		b.WriteByte('\n')
	}
	return b.String()
}

func occupants(b *strings.Builder, what string, all []Occupant) {
	if len(all) == 0 {
		return
	}
	b.WriteString(what)
	for _, o := range all {
		fmt.Fprintf(b, " %s", o.User)
		for name, s := range states {
			if s == o.State && s != presence.Online {
				fmt.Fprintf(b, ":%s", name)
			}
		}
		if o.Info != "" {
			fmt.Fprintf(b, "(%s)", o.Info)
		}
		if why := reasons[o.Reason]; why != "" {
			fmt.Fprintf(b, "[%s]", why)
		}
	}
}

var seed = flag.Int64("seed", 0, "run this seed of the simulator only")
