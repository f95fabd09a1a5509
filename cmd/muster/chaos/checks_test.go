package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	ms = time.Millisecond
	d1 = "d1"
)

// history is a small good one: r1 reads on two devices, r2 on one.
func history() (sends []send, devices []device, steps []step) {
	devices = []device{{"r1", d1}, {"r1", "d2"}, {"r2", d1}}
	for i := range 6 {
		user := "r1"
		if i%3 == 2 {
			user = "r2"
		}
		n := time.Duration(i) * 10 * ms
		sends = append(sends, send{id: fmt.Sprint("m", i), user: user, body: fmt.Sprint(i), call: n, back: n + 5*ms, acked: true})
	}
	sends[1].acked = false // its sender gave up; it was stored all the same
	sends[5].acked = false // it was not
	for _, d := range devices {
		offset := uint64(0)
		for _, s := range sends[:5] {
			if s.user == d.user {
				offset++
				steps = append(steps, step{device: d, epoch: "e", at: s.back, from: offset, to: offset, id: s.id, body: s.body})
			}
		}
	}
	return sends, devices, steps
}

// find is the index of the step with which a device got a message.
func find(steps []step, d device, id string) int {
	return slices.IndexFunc(steps, func(s step) bool { return s.device == d && s.id == id })
}

func red(t *testing.T, name string, v verdict, want string) {
	t.Helper()
	all := strings.Join(v.Violations, "; ")
	if want == "" && all != "" || !strings.Contains(all, want) {
		t.Errorf("%s: %s says %q, want %q", name, v.Checker, all, want)
	}
}

func TestAckedSetAndStreamOrder(t *testing.T) {
	r1, r1b := device{"r1", d1}, device{"r1", "d2"}
	for name, c := range map[string]struct {
		change     func(sends []send, steps []step) []step
		set, order string
	}{
		"good": {change: func(_ []send, steps []step) []step { return steps }},
		"lost for all": {func(_ []send, steps []step) []step {
			return slices.DeleteFunc(steps, func(s step) bool { return s.id == "m4" })
		}, "lost: m4", ""},
		"lost on one device": {func(_ []send, steps []step) []step {
			i := find(steps, r1b, "m3")
			return slices.Delete(steps, i, i+1)
		}, "lost: m3", "offset 4 after 2"},
		"never sent": {func(_ []send, steps []step) []step {
			return append(steps, step{device: r1, epoch: "e", from: 5, to: 5, id: "x"})
		}, "which nobody sent", ""},
		"to somebody else": {func(_ []send, steps []step) []step {
			return append(steps, step{device: r1, epoch: "e", from: 5, to: 5, id: "m2", body: "2"})
		}, "came to r1", ""},
		"another body": {func(_ []send, steps []step) []step {
			steps[find(steps, r1, "m0")].body = "x"
			return steps
		}, "as x", ""},
		"twice": {func(_ []send, steps []step) []step {
			return append(steps, step{device: r1, epoch: "e", from: 5, to: 5, id: "m0", body: "0"})
		}, "duplicate: m0", "has the lower offset"},
		"a gap that was told": {func(_ []send, steps []step) []step {
			i := find(steps, r1b, "m0")
			steps[i] = step{device: r1b, epoch: "e", from: 1, to: 1, reason: "gap: acked"}
			return steps
		}, "", ""},
		"reset": {func(_ []send, steps []step) []step {
			return append(steps, step{device: r1, epoch: "e2", reset: true})
		}, "history was lost", ""},
		"back": {func(_ []send, steps []step) []step {
			return append(steps, steps[find(steps, r1, "m1")])
		}, "duplicate", "offset 2 after 4"},
		"another epoch": {func(_ []send, steps []step) []step {
			steps[find(steps, r1b, "m4")].epoch = "e2"
			return steps
		}, "", "epoch e2 after e"},
		"one offset, two messages": {func(_ []send, steps []step) []step {
			i, k := find(steps, r1b, "m0"), find(steps, r1b, "m1")
			steps[i].id, steps[k].id, steps[i].body, steps[k].body = "m1", "m0", "1", "0"
			return steps
		}, "", "for another"},
		"told otherwise": {func(sends []send, steps []step) []step {
			sends[0].offset = 3
			return steps
		}, "", "its sender"},
		"against real time": {func(_ []send, steps []step) []step {
			for _, d := range []device{r1, r1b} {
				i, k := find(steps, d, "m3"), find(steps, d, "m4")
				steps[i].id, steps[k].id, steps[i].body, steps[k].body = "m4", "m3", "4", "3"
			}
			return steps
		}, "", "has the lower offset"},
	} {
		sends, devices, steps := history()
		steps = c.change(sends, steps)
		red(t, name, ackedSet(sends, devices, steps), c.set)
		red(t, name, streamOrder(sends, steps), c.order)
	}
	red(t, "empty", ackedSet(nil, nil, nil), "nothing was examined")
	red(t, "empty", streamOrder(nil, nil), "nothing was examined")
}

func op(write bool, value string, call, back int, unknown ...bool) statusOp {
	return statusOp{user: "u", write: write, value: value, call: time.Duration(call) * ms, back: time.Duration(back) * ms, unknown: len(unknown) > 0}
}

func asked(o statusOp) statusOp {
	o.fresh = true
	return o
}

func TestLinearizable(t *testing.T) {
	for name, c := range map[string]struct {
		ops   []statusOp
		stale time.Duration
		want  string
	}{
		"good":             {[]statusOp{op(false, "", 0, 1), op(true, "a", 2, 4), op(false, "a", 5, 6)}, 0, ""},
		"at once":          {[]statusOp{op(true, "a", 2, 9), op(false, "a", 3, 4), op(false, "", 3, 4)}, 0, ""},
		"stale":            {[]statusOp{op(true, "a", 2, 4), op(false, "", 5, 6)}, 0, "not linearizable"},
		"stale, allowed":   {[]statusOp{op(true, "a", 2, 4), op(false, "", 5, 6)}, 10 * ms, ""},
		"stale, but asked": {[]statusOp{op(true, "a", 2, 4), asked(op(false, "", 5, 6))}, 10 * ms, "not linearizable"},
		"asked":            {[]statusOp{op(true, "a", 2, 5), asked(op(false, "", 4, 6)), asked(op(false, "a", 7, 8))}, 10 * ms, ""},
		"too stale":        {[]statusOp{op(true, "a", 2, 4), op(false, "", 50, 60)}, 10 * ms, "not linearizable"},
		"back again":       {[]statusOp{op(true, "a", 0, 1), op(true, "b", 2, 9), op(false, "b", 3, 4), op(false, "a", 5, 6)}, 0, "not linearizable"},
		"invented":         {[]statusOp{op(true, "a", 0, 1), op(false, "z", 3, 4)}, 0, "not linearizable"},
		"unknown, seen":    {[]statusOp{op(true, "a", 0, 1, true), op(false, "", 3, 4), op(false, "a", 30, 40)}, 0, ""},
		"unknown, unseen":  {[]statusOp{op(true, "a", 0, 1, true), op(false, "", 3, 4)}, 0, ""},
		"unknown, early":   {[]statusOp{op(false, "a", 0, 1), op(true, "a", 3, 4, true)}, 0, "not linearizable"},
		"empty":            {nil, 0, "nothing was examined"},
	} {
		red(t, name, linearizable(c.ops, c.stale, nil), c.want)
	}
}

// A register with random operations whose effects happen somewhere between call and return is linearizable; with one read
// exchanged for a value that was overwritten long before it is not.
func TestLinearizableRandom(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var ops []statusOp
		value := ""
		for i := range 200 {
			at := 10*i + rnd.IntN(9)
			o := op(rnd.IntN(2) == 0, "", max(0, at-rnd.IntN(25)), at+1+rnd.IntN(25))
			if o.write {
				value = fmt.Sprint("v", i)
			}
			o.value = value
			ops = append(ops, o)
		}
		red(t, fmt.Sprint("seed ", seed), linearizable(ops, 0, nil), "")
		last := slices.IndexFunc(ops[100:], func(o statusOp) bool { return !o.write }) + 100
		first := slices.IndexFunc(ops, func(o statusOp) bool { return o.write })
		ops[last].value = ops[first].value
		red(t, fmt.Sprint("seed ", seed), linearizable(ops, 0, nil), "not linearizable")
	}
}

func TestFence(t *testing.T) {
	ack := func(shard uint32, term, index uint64, id, node string) acknowledged {
		return acknowledged{Shard: shard, Term: term, Index: index, ClientID: id, Node: node}
	}
	sends := []send{{id: "a"}, {id: "b"}, {id: "c"}, {id: "d"}}
	for name, c := range map[string]struct {
		acks []acknowledged
		want string
	}{
		"good":         {[]acknowledged{ack(1, 2, 5, "a", "n1"), ack(1, 2, 5, "b", "n1"), ack(1, 3, 8, "c", "n2"), ack(2, 1, 6, "d", "n1")}, ""},
		"two nodes":    {[]acknowledged{ack(1, 2, 5, "a", "n1"), ack(1, 2, 5, "b", "n2")}, "two activations"},
		"two terms":    {[]acknowledged{ack(1, 2, 5, "a", "n1"), ack(1, 3, 5, "b", "n1")}, "two activations"},
		"a term back":  {[]acknowledged{ack(1, 3, 5, "a", "n1"), ack(1, 2, 9, "b", "n2")}, "a term that was over"},
		"stored twice": {[]acknowledged{ack(1, 2, 5, "a", "n1"), ack(1, 2, 6, "a", "n1")}, "stored twice"},
		"never sent":   {[]acknowledged{ack(1, 2, 5, "z", "n1")}, "nobody sent"},
		"empty":        {nil, "nothing was examined"},
	} {
		red(t, name, fence(c.acks, sends), c.want)
	}
}

func TestPresenceChecks(t *testing.T) {
	want := []expected{{"w", "u", true, "x"}, {"w", "v", false, ""}}
	for name, c := range map[string]struct {
		u, v viewed
		want string
	}{
		"good":      {viewed{present: true, state: "away", text: "x"}, viewed{state: "offline"}, ""},
		"missing":   {viewed{state: "offline"}, viewed{state: "offline"}, "it is connected"},
		"ghost":     {viewed{present: true, text: "x"}, viewed{present: true, state: "online"}, "it has no socket"},
		"old text":  {viewed{present: true, text: "y"}, viewed{state: "offline"}, `instead of "x"`},
		"still old": {viewed{present: true, text: "x", stale: true}, viewed{state: "offline"}, "stale"},
	} {
		red(t, name, converged(want, func(_, user string) viewed {
			if user == "u" {
				return c.u
			}
			return c.v
		}), c.want)
	}
	red(t, "empty", converged(nil, nil), "nothing was examined")

	view := func(socket int, term, number uint64) seen {
		return seen{watcher: "w", user: "u", socket: socket, term: term, number: number}
	}
	red(t, "good", monotone([]seen{view(1, 1, 1), view(1, 1, 1), view(1, 2, 1), view(2, 1, 9)}), "")
	red(t, "number", monotone([]seen{view(1, 1, 2), view(1, 1, 1)}), "go back")
	red(t, "term", monotone([]seen{view(1, 2, 1), view(1, 1, 9)}), "go back")
	red(t, "empty", monotone(nil), "nothing was examined")
}

func TestFalseOffline(t *testing.T) {
	spans := []presentSpan{{"u", "e1", 10 * time.Second, 60 * time.Second}}
	offline := func(at time.Duration, stale bool) []seen {
		return []seen{{watcher: "w", user: "u", at: at, state: "offline", stale: stale}}
	}
	paused := []presentSpan{{node: "e1", from: 20 * time.Second, to: 25 * time.Second}}
	red(t, "before", falseOffline(offline(9*time.Second, false), spans, nil, 0), "")
	red(t, "just connected", falseOffline(offline(11*time.Second, false), spans, nil, 0), "")
	red(t, "stale", falseOffline(offline(30*time.Second, true), spans, nil, 0), "")
	red(t, "connected", falseOffline(offline(30*time.Second, false), spans, nil, 0), "who was connected")
	red(t, "its edge stood still", falseOffline(offline(30*time.Second, false), spans, paused, 10*time.Second), "")
	red(t, "long after", falseOffline(offline(40*time.Second, false), spans, paused, 10*time.Second), "who was connected")
	over := func(node string, at time.Duration) []seen {
		return []seen{{watcher: "w", user: "u", over: node, at: at, state: "offline"}}
	}
	still := []presentSpan{{node: "e2", from: 20 * time.Second, to: 25 * time.Second}}
	red(t, "over an edge that stood still", falseOffline(over("e2", 26*time.Second), spans, still, 0), "")
	red(t, "long after that", falseOffline(over("e2", 31*time.Second), spans, still, 0), "who was connected")
	red(t, "over an edge that did not", falseOffline(over("e3", 26*time.Second), spans, still, 0), "who was connected")
	red(t, "another edge", falseOffline(offline(22*time.Second, false), spans, []presentSpan{{node: "e2", to: time.Hour}}, 0), "who was connected")
	online := func(at time.Duration) seen { return seen{watcher: "w", user: "u", at: at, state: "online"} }
	red(t, "held up", falseOffline(append(offline(30*time.Second, false), online(31*time.Second)), spans, nil, 0), "")
	red(t, "for long", falseOffline(append(offline(30*time.Second, false), online(33*time.Second)), spans, nil, 0), "who was connected")
	red(t, "empty", falseOffline(nil, spans, nil, 0), "nothing was examined")
}

func TestAvailable(t *testing.T) {
	at := func(call, back int, ok bool) probe {
		return probe{shard: 0, call: time.Duration(call) * ms, back: time.Duration(back) * ms, ok: ok}
	}
	for name, c := range map[string]struct {
		probes []probe
		gaps   []Gap
		want   string
	}{
		"good":      {[]probe{at(0, 10, true), at(1000, 1010, true)}, nil, ""},
		"one gap":   {[]probe{at(0, 10, true), at(1000, 1100, false), at(1200, 1300, true)}, []Gap{{From: 1000 * ms, To: 1300 * ms}}, ""},
		"slow":      {[]probe{at(0, 2500, true)}, []Gap{{From: 0, To: 2500 * ms}}, ""},
		"still out": {[]probe{at(0, 10, true), at(1000, 1100, false)}, []Gap{{From: 1000 * ms, To: 1100 * ms, Open: true}}, "cannot be written to since"},
		"never":     {[]probe{at(0, 10, false)}, []Gap{{From: 0, To: 10 * ms, Open: true}}, "never be written"},
		"empty":     {nil, nil, "nothing was examined"},
	} {
		if got := gaps(c.probes); !slices.Equal(got, c.gaps) {
			t.Errorf("%s: gaps %v, want %v", name, got, c.gaps)
		}
		red(t, name, available(c.probes, 1), c.want)
	}
}

func TestOneCluster(t *testing.T) {
	red(t, "good", oneCluster(map[string][]string{"a": {"x", "x"}, "b": {"x"}}), "")
	red(t, "two", oneCluster(map[string][]string{"a": {"x"}, "b": {"y"}}), "belonged to")
	red(t, "another one later", oneCluster(map[string][]string{"a": {"x", "y"}}), "belonged to")
	red(t, "empty", oneCluster(nil), "nothing was examined")
}

func TestLeaks(t *testing.T) {
	grow := func(each float64, change func(*sample, float64)) (list []sample) {
		for i := range 9 {
			s := sample{Node: "n", PID: 7, RSS: 100 << 20, Files: 100, Goroutines: 1000}
			change(&s, each*float64(i))
			list = append(list, s)
		}
		return list
	}
	red(t, "flat", leaks(grow(1<<20, func(s *sample, x float64) { s.RSS += x })), "")
	red(t, "memory", leaks(grow(40<<20, func(s *sample, x float64) { s.RSS += x })), "resident bytes grew")
	red(t, "files", leaks(grow(40, func(s *sample, x float64) { s.Files += x })), "open files beside sockets of clients grew")
	red(t, "goroutines", leaks(grow(200, func(s *sample, x float64) { s.Goroutines += x })), "goroutines grew")
	red(t, "restarts", leaks(grow(1, func(s *sample, x float64) { s.RSS += x * (40 << 20); s.PID = int(x) })), "")
	red(t, "ahead", leaks([]sample{{Node: "n", Ahead: 1}}), "acknowledged data was lost")
	red(t, "panics", leaks([]sample{{Node: "n", Panics: 1}}), "panics")
	red(t, "empty", leaks(nil), "nothing was examined")
}

func TestVerdictIsBounded(t *testing.T) {
	var v verdict
	for range 100 {
		v.fail("x")
	}
	if len(v.Violations) != maxDetails || v.More != 100-maxDetails {
		t.Errorf("%d told, %d more", len(v.Violations), v.More)
	}
}
