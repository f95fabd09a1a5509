package gossip

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"muster/cluster/injected"
)

// naive says by the words of the documentation whether p is to be shown.
func naive(t *table, p process) bool {
	h, ok := t.live[p]
	if !ok || h.leaving || t.self.Cluster != "" && h.Cluster != "" && h.Cluster != t.self.Cluster {
		return false
	}
	for q, other := range t.live {
		same := other.Node == h.Node || other.Name == h.Name && other.Gossip == h.Gossip
		if same && q.incarnation > p.incarnation {
			return false
		}
	}
	return true
}

// history drives a table through random news and says what went wrong; "" if nothing did.
func history(seed uint64, bug func(*table)) string {
	rng := rand.New(rand.NewPCG(seed, 2))
	tab := newTable(Member{Node: 1, Name: "self", Incarnation: 1, Role: Core, Cluster: "c"})
	now := time.Unix(1e9, 0)
	shown, ended := map[process]Member{}, map[process]Status{}
	for step := range 200 {
		now = now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
		n := uint64(rng.IntN(4))
		m := Member{Node: 10 + n, Name: fmt.Sprint("n", rng.IntN(4)), Gossip: fmt.Sprint("10.0.0.", rng.IntN(3), ":1"),
			Incarnation: uint64(1 + rng.IntN(12)), Role: Edge, Cluster: []string{"", "c", "c", "d"}[rng.IntN(4)]}
		if h, ok := tab.live[m.process()]; ok {
			m = h.Member // a process keeps what it is
		}
		switch rng.IntN(4) {
		case 0:
			tab.lose(m.process(), now)
		default:
			if tab.refuse(&m) == nil {
				tab.hear(m, rng.IntN(8) == 0 || tab.live[m.process()].leaving)
			}
		}
		if bug != nil {
			bug(tab)
		}
		departed, changed := tab.refresh(now)
		for _, g := range departed {
			if _, ok := shown[g.process()]; !ok {
				return fmt.Sprintf("step %d: %s departed and was not there", step, g.Name)
			}
			delete(shown, g.process())
			ended[g.process()] = map[bool]Status{true: Left, false: Dead}[g.left]
		}
		for _, m := range tab.members() {
			if ended[m.process()] == Left {
				return fmt.Sprintf("step %d: %s came back", step, m.Name)
			}
			shown[m.process()] = m
			delete(ended, m.process())
		}
		want := map[process]bool{}
		for p := range tab.live {
			if naive(tab, p) {
				want[p] = true
			}
		}
		if len(want) != len(shown) {
			return fmt.Sprintf("step %d: shown %v, want %v", step, shown, want)
		}
		for p := range want {
			if tab.status(p) != Alive {
				return fmt.Sprintf("step %d: %v is %v", step, p, tab.status(p))
			}
		}
		for p, s := range ended {
			if got := tab.status(p); got != s && (s != Dead || got != Left) { // a goodbye may follow
				return fmt.Sprintf("step %d: %v is %v, want %v", step, p, tab.status(p), s)
			}
		}
		if again, more := tab.refresh(now); len(again) > 0 || more || len(departed) > 0 && !changed {
			return fmt.Sprintf("step %d: %v %v", step, again, more)
		}
	}
	return ""
}

func TestTableHistories(t *testing.T) {
	for seed := range uint64(100) {
		if wrong := history(seed, nil); wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
	}
}

func defect(name string, bug func(*table)) injected.Bug {
	checkers := injected.Checkers{{Name: "departure told", Says: "departed and was not there"}, {Name: "goodbye kept", Says: "came back"}, {Name: "members", Says: "shown"},
		{Name: "status", Says: " is "}, {Name: "stillness", Says: "step"}}
	return injected.Bug{Name: name, In: "table", Within: 300, Sample: 100, Try: func(_ *testing.T, seed uint64) (checker, said string) {
		if said := history(seed, bug); said != "" {
			return checkers.Of(said), said
		}
		return "", ""
	}}
}

var defects = []injected.Bug{
	defect("the departed are forgotten", func(tab *table) { clear(tab.gone) }),
	defect("departures are not told", func(tab *table) {
		tab.shown = maps.Clone(tab.shown)
		maps.DeleteFunc(tab.shown, func(p process, _ Member) bool { return tab.live[p].leaving })
	}),
	defect("goodbyes are not kept", func(tab *table) {
		for p, g := range tab.gone {
			g.left = false
			tab.gone[p] = g
		}
	}),
}

// TestInjectedBugs shows that each turns a checker red.
func TestInjectedBugs(t *testing.T) { injected.Found(t, defects) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects) }

func TestGoneIsBounded(t *testing.T) {
	tab := newTable(member(1, "self"))
	now := time.Unix(1e9, 0)
	for i := range 3 * maxGone {
		m := member(uint64(i+2), fmt.Sprint("n", i))
		m.Gossip = fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)
		tab.hear(m, i%2 == 0)
		tab.refresh(now)
		tab.lose(m.process(), now)
		tab.refresh(now)
		now = now.Add(time.Second)
	}
	if len(tab.gone) != maxGone {
		t.Errorf("%d kept", len(tab.gone))
	}
	if n := len(tab.lost(now)); n != maxGone/2 {
		t.Errorf("%d to be tried again", n)
	}
	if n := len(tab.lost(now.Add(goneKept))); n != 0 {
		t.Errorf("%d to be tried again after a day", n)
	}
}
