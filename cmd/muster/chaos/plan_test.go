package chaos

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var everything = map[need]bool{processes: true, addresses: true, portsOnly: true, disks: true}

func TestThePlanFollowsFromItsSeed(t *testing.T) {
	top := layout(Options{Cores: 5, Edges: 2})
	can, lacks := possible(everyFault(), top, everything)
	if len(lacks) > 0 {
		t.Fatalf("five cores and two edges allow all: %v", lacks)
	}
	plan := func(seed uint64) (list []injection) {
		p := newPlanner(seed, can, top, time.Minute)
		for range 300 {
			_, i := p.next()
			list = append(list, i)
		}
		return list
	}
	if !reflect.DeepEqual(plan(7), plan(7)) {
		t.Error("one seed, two plans")
	}
	if reflect.DeepEqual(plan(7), plan(8)) {
		t.Error("two seeds, one plan")
	}
	met := map[fault]bool{}
	for _, i := range plan(7) {
		met[i.fault] = true
		check(t, top, i)
	}
	if len(met) != len(can) {
		t.Errorf("%d of %d faults in 300 cycles", len(met), len(can))
	}
}

// check says what must hold for an injection whatever the seed.
func check(t *testing.T, top topology, i injection) {
	t.Helper()
	cores, edges := top.cores(), top.edges()
	for _, n := range i.nodes {
		if !slices.Contains(cores, n) && !slices.Contains(edges, n) {
			t.Errorf("%v: no node %s", i, n)
		}
	}
	broken := 0
	for _, n := range i.nodes {
		if slices.Contains(cores, n) {
			broken++
		}
	}
	cut := func(a, b string) bool { return slices.Contains(i.cuts, [2]string{a, b}) }
	switch i.fault {
	case killMajority:
		if broken <= len(cores)/2 {
			t.Errorf("%v: no majority of %v", i, cores)
		}
	case partition:
		if broken == 0 || broken > (len(cores)-1)/2 {
			t.Errorf("%v: no minority of %v", i, cores)
		}
	case oneWay:
		for _, c := range i.cuts {
			if cut(c[1], c[0]) {
				t.Errorf("%v: %v is cut both ways", i, c)
			}
		}
	case bridge:
		free := rest(cores, i.nodes)
		if len(free) != 1 {
			t.Fatalf("%v: the bridge is %v", i, free)
		}
		for _, c := range i.cuts {
			if c[0] == free[0] || c[1] == free[0] {
				t.Errorf("%v: the bridge is cut: %v", i, c)
			}
		}
	case gossipOnly, raftOnly:
		if i.only == "" {
			t.Errorf("%v cuts all ports", i)
		}
	}
	if strings.HasPrefix(string(i.fault), "partition") && len(i.cuts) == 0 {
		t.Errorf("%v cuts nothing", i)
	}
}

func TestWhatCannotBeDoneIsSaid(t *testing.T) {
	can, lacks := possible(everyFault(), layout(Options{Cores: 1}), map[need]bool{processes: true})
	if !slices.Equal(can, []fault{killCore, killAll, pauseCore, rolling, doubleStart}) {
		t.Errorf("one server on loopback can %v", can)
	}
	if len(can)+len(lacks) != len(everyFault()) {
		t.Errorf("left out without a word: %v", lacks)
	}
}

func TestLayout(t *testing.T) {
	one := layout(Options{Cores: 1})
	if len(one.places) != 1 || one.places[0].role != single || len(one.cores()) != 1 || len(one.fronts()) != 1 {
		t.Errorf("one: %+v", one)
	}
	if args := strings.Join(one.arguments(one.places[0], "a", nil), " "); strings.Contains(args, "--role") || strings.Contains(args, "--join") {
		t.Errorf("a plain server gets %s", args)
	}
	top := layout(Options{Cores: 3, Edges: 1, Both: 1})
	if !slices.Equal(top.cores(), []string{"c1", "c2", "c3", "b1"}) || !slices.Equal(top.fronts(), []string{"b1", "e1"}) || !slices.Equal(top.edges(), []string{"e1"}) {
		t.Errorf("cores %v, fronts %v, edges %v", top.cores(), top.fronts(), top.edges())
	}
	core := strings.Join(top.arguments(top.place("c2"), "a", []string{"--x"}), " ")
	for _, want := range []string{"--role core", "--expect 4", "--data", "--audit a", "--x"} {
		if !strings.Contains(core, want) {
			t.Errorf("a core gets %s, without %s", core, want)
		}
	}
	if edge := strings.Join(top.arguments(top.place("e1"), "a", nil), " "); strings.Contains(edge, "--data") || strings.Contains(edge, "--expect") || !strings.Contains(edge, "--join") {
		t.Errorf("an edge gets %s", edge)
	}
	top.grow = true
	if first := strings.Join(top.arguments(top.place("c1"), "a", nil), " "); strings.Contains(first, "--join") {
		t.Errorf("the first core of a growing cluster gets %s", first)
	}
}

func TestBadOptions(t *testing.T) {
	good := Options{Cores: 3, Edges: 2, Sessions: 10, Watches: 8, Changes: 10, Sends: 10}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no scenario":   func(o *Options) { o.Scenarios = []string{"x"} },
		"there must be": func(o *Options) { o.Cores = 0 },
		"clients need":  func(o *Options) { o.Edges = 0 },
		"at most":       func(o *Options) { o.Edges = 100 },
		"--sessions":    func(o *Options) { o.Sessions = 1 },
		"--sends":       func(o *Options) { o.Sends = 0 },
		"--watches":     func(o *Options) { o.Watches = 0 },
		"--changes":     func(o *Options) { o.Changes = 0 },
		"--hold":        func(o *Options) { o.Hold = -1 },
		"--minutes":     func(o *Options) { o.Length = time.Millisecond },
	} {
		o := good
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
