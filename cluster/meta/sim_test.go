package meta

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"muster/cluster/injected"
)

// step is a second: faults, Raft, reports, a plan, agents.
func (m *model) step() (quiet bool) {
	m.at = m.at.Add(time.Second)
	if !m.calm {
		m.faults()
	}
	for _, g := range m.groups {
		before := g.leader
		m.raftStep(g)
		if g.id == 0 && g.leader != before {
			m.seen = Reports{} // a new leader of group 0 remembers nothing
		}
	}
	m.arrive()
	for _, n := range m.sorted() {
		if n.up && (m.calm || m.r.IntN(3) == 0) {
			m.hold(n)
		}
	}
	m.ask()
	m.arrive()
	return m.plan()
}

func (m *model) sorted() (ns []*modelNode) {
	for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
		ns = append(ns, m.nodes[id])
	}
	return ns
}

// later lets something arrive: at once when it is calm, else also late, twice or never.
func (m *model) later(do func()) {
	if m.calm {
		m.queue = append(m.queue, parcel{m.at, do})
		return
	}
	for range [...]int{0, 1, 1, 1, 1, 1, 1, 1, 1, 2}[m.r.IntN(10)] {
		late := time.Duration(0)
		if m.r.IntN(5) == 0 {
			late = time.Duration(m.r.IntN(20)) * time.Second
		}
		m.queue = append(m.queue, parcel{m.at.Add(late), do})
	}
}

func (m *model) arrive() {
	var due []parcel
	m.queue = slices.DeleteFunc(m.queue, func(p parcel) bool {
		if !p.at.After(m.at) {
			due = append(due, p)
			return true
		}
		return false
	})
	for _, p := range due {
		p.do()
	}
}

func (m *model) ask() {
	if m.groups[0].leader == 0 {
		return
	}
	for id, n := range m.state.Nodes {
		if _, ok := m.seen[id]; !ok && n.State != Left {
			m.seen[id] = Report{Node: id, Asked: m.at}
		}
	}
	for _, n := range m.sorted() {
		if !n.up || n.mute || m.state.Nodes[n.id].ID == 0 || m.state.Nodes[n.id].State == Left {
			continue
		}
		r, seen := m.report(n), m.seen
		m.later(func() {
			if !r.Asked.Before(seen[n.id].Asked) {
				seen[n.id] = r
			}
		})
	}
}

// plan commits and sends what Plan wants; quiet: nothing.
func (m *model) plan() bool {
	if m.groups[0].leader == 0 || !m.calm && m.r.IntN(10) == 0 {
		return false
	}
	state := m.state
	switch m.bug {
	case "membership from gossip alone":
		for _, n := range m.sorted() {
			if s := m.state.Nodes[n.id].State; !n.up && (s == Active || s == Down) {
				m.commit(Mark{Node: n.id, To: Lost})
			}
		}
		state = m.state
	case "two changes at once":
		state = m.state.Clone()
		for i := range state.Groups {
			if m.r.IntN(4) == 0 {
				state.Groups[i].Move = nil
			}
		}
	}
	for id, r := range m.seen {
		if n := m.nodes[id]; r.Incarnation != 0 && m.at.Sub(r.Asked) <= freshFor { // a later one was no sign of life
			n.heard = r.Asked
		}
	}
	steps, began := Plan(state, m.seen, m.at), false
	if again := Plan(state, m.seen, m.at); !reflect.DeepEqual(steps, again) {
		m.fail("equal inputs gave %v and %v", steps, again)
	}
	for _, step := range steps {
		switch step := step.(type) {
		case Command:
			m.begun(step)
			b, ok := step.(Begin)
			began = began || ok && len(b.Nodes) > 0
			if ok && m.bug == "two changes at once" {
				m.state = m.state.Clone()
				m.state.Groups[b.Group].Move = nil
			}
			if os.Getenv("META_TRACE") != "" {
				fmt.Printf("%v %T%+v\n", m.at.Unix()-1_700_000_000, step, step)
			}
			if !m.commit(step) {
				m.fail("a planned command is refused: %T%+v", step, step)
			}
		case Order:
			if os.Getenv("META_TRACE") != "" {
				fmt.Printf("%v order %+v %+v\n", m.at.Unix()-1_700_000_000, step, step.Change)
			}
			m.later(func() { m.change(step) })
		}
	}
	if began {
		m.throttled()
	}
	return len(steps) == 0
}

// begun checks whose voters a move removes: of a node that meta calls lost, five minutes after it was heard.
func (m *model) begun(c Command) {
	b, ok := c.(Begin)
	if !ok {
		return
	}
	for _, id := range b.Remove {
		r := m.state.Groups[b.Group].find(id)
		n, rec := m.nodes[r.Node], m.state.Nodes[r.Node]
		if r.Voter && rec.State == Lost && !rec.Drain && !rec.Superseded && !m.lost[n.id] && m.at.Sub(n.heard) < lostAfter {
			m.fail("group %d: voter %d is replaced although node %d was heard %v ago", b.Group, id, n.id, m.at.Sub(n.heard))
		}
	}
}

// throttled counts the learners that never had anything, when a plan has sent more. Those of a node that was silent do not count, and
// come on top when it is back: the node's own limit holds for them.
func (m *model) throttled() {
	perTarget, all := map[uint64]int{}, 0
	for i, g := range m.state.Groups {
		for _, r := range g.Replicas {
			moving := g.Move != nil && slices.Contains(g.Move.Add, r.ID)
			if !moving && m.at.Sub(m.seen[r.Node].Asked) > freshFor || g.Move != nil && slices.Contains(g.Move.Remove, r.ID) {
				continue // given up, or forgotten on a silent node
			}
			if rep := m.groups[i].reps[r.ID]; !r.Voter && m.nodes[r.Node].up && (rep == nil || rep.applied == 0) {
				perTarget[r.Node]++
				all++
			}
		}
	}
	if all > perCluster {
		m.fail("%d snapshots at once", all)
	}
	for n, k := range perTarget {
		if k > perNode {
			m.fail("%d snapshots to node %d at once", k, n)
		}
	}
}

func (m *model) faults() {
	ns := m.sorted()
	n := ns[m.r.IntN(len(ns))]
	switch m.r.IntN(60) {
	case 0, 1:
		n.up = false
	case 2, 3, 4, 5, 6:
		if !n.up && !n.dead {
			n.up = true
			n.incarnation++
		}
	case 7:
		n.mute = true
	case 8, 9:
		n.mute = false
	case 10:
		if m.r.IntN(4) == 0 && m.bearable(n) {
			n.dead, n.up = true, false
		}
	case 11, 12:
		m.join()
	case 13:
		if m.r.IntN(4) == 0 {
			m.operate(Drain{Node: n.id, Drain: true, Reduce: m.r.IntN(3) == 0})
		}
	case 14:
		m.operate(Drain{Node: n.id})
	case 15:
		if s := m.state.Nodes[n.id].State; s == Down && n.dead {
			m.operate(Mark{Node: n.id, To: Lost})
			m.lost[n.id] = true
		}
	case 16:
		m.groups[m.r.IntN(len(m.groups))].leader = 0 // an election
	}
}

func (m *model) operate(c Command) {
	if m.groups[0].leader != 0 {
		m.commit(c)
	}
}

// join lets a node join, sometimes under the name of a dead one.
func (m *model) join() {
	living := 0
	var free []string
	for _, n := range m.sorted() {
		if !n.dead {
			living++
		} else {
			free = append(free, n.name)
		}
	}
	if living >= 7 && !m.calm || m.groups[0].leader == 0 {
		return
	}
	name := fmt.Sprint("n", len(m.nodes)+1)
	if len(free) > 0 && m.r.IntN(2) == 0 {
		name = free[m.r.IntN(len(free))]
	}
	n := m.add(name)
	if !m.commit(Enter{Node: Node{ID: n.id, Name: name, Zone: n.zone}}) {
		delete(m.nodes, n.id)
	}
}

// bearable says that a node may die for good: every group keeps a majority that lives or comes back, and what is committed.
func (m *model) bearable(n *modelNode) bool {
	for _, g := range m.groups {
		c := g.conf()
		confs := []*modelConf{c}
		for _, r := range g.reps {
			confs = append(confs, g.confOf(r)) // who has not heard of the newest needs the one before
		}
		for _, c := range confs {
			for _, half := range [][]uint64{c.voters, c.outgoing} {
				keeps := 0
				for _, id := range half {
					if r := g.reps[id]; r != nil && r.node != n.id && !m.nodes[r.node].dead {
						keeps++
					}
				}
				if len(half) > 0 && keeps <= len(half)/2 {
					return false
				}
			}
		}
	}
	return true
}

// unfinished says what is missing when faults are long over.
func (m *model) unfinished() error {
	active := map[uint64]bool{}
	zones := map[string]bool{}
	for _, n := range m.sorted() {
		rec := m.state.Nodes[n.id]
		switch {
		case rec.ID == 0:
			return fmt.Errorf("node %d is not known", n.id)
		case rec.State == Active && n.up:
			active[n.id] = true
			zones[n.zone] = true
		case n.dead && rec.State != Lost && rec.State != Left:
			return fmt.Errorf("node %d is dead and %v", n.id, rec.State)
		case n.up && rec.State != Left && rec.State != Draining && !rec.Superseded:
			return fmt.Errorf("node %d is up and %v", n.id, rec.State)
		case rec.State == Draining && len(active) >= 3:
			return fmt.Errorf("node %d is still draining", n.id)
		}
	}
	if len(active) < 3 {
		return fmt.Errorf("%d active nodes", len(active))
	}
	holds, leads := map[uint64]int{}, map[uint64]int{}
	for i, g := range m.state.Groups {
		in := map[string]bool{}
		for _, r := range g.Replicas {
			if i > 0 && !active[r.Node] {
				return fmt.Errorf("group %d has a replica on node %d", i, r.Node)
			}
			if i > 0 {
				holds[r.Node]++
			}
			in[m.state.Nodes[r.Node].Zone] = true
		}
		mg := m.groups[i]
		switch n := len(g.voters()); {
		case g.Move != nil || n != len(g.Replicas) || mg.leader == 0:
			return fmt.Errorf("group %d: %+v, leader %d", i, g, mg.leader)
		case !same(g.voters(), mg.conf().voters) || len(mg.conf().outgoing) > 0:
			return fmt.Errorf("group %d: listed %v, configuration %+v", i, g.voters(), *mg.conf())
		case i > 0 && n != 3, i == 0 && n != 5 && (n != 3 || len(active) >= 5):
			return fmt.Errorf("group %d has %d voters", i, n)
		case m.zones > 0 && i > 0 && len(in) < min(3, len(zones)):
			return fmt.Errorf("group %d is in zones %v of %v", i, in, zones)
		}
		if i > 0 {
			leads[mg.reps[mg.leader].node]++
		}
	}
	for what, counts := range map[string]map[uint64]int{"replicas": holds, "leaders": leads} {
		least, most := 1<<30, 0
		for n := range active {
			least, most = min(least, counts[n]), max(most, counts[n])
		}
		if most-least > 1 && m.zones == 0 {
			return fmt.Errorf("%s: %v", what, counts)
		}
	}
	return nil
}

// history is one: faults for ten minutes, then calm until all is well, then nothing may move any more.
func history(seed uint64, bug string) *model {
	m := newModel(seed, 6, int(seed%3)*2, bug) // 0, 2 or 4 zones
	for range 300 + m.r.IntN(600) {
		m.step()
	}
	m.calm = true
	for _, n := range m.sorted() {
		n.up, n.mute = !n.dead, false
	}
	var why error
	for i, quiet := 0, 0; i < 1500; i++ {
		if quiet++; !m.step() {
			quiet = 0
		}
		if i%60 == 0 && len(m.active()) < 3 {
			m.join()
		}
		if why = m.unfinished(); len(m.wrong) > 0 {
			return m
		}
		if why == nil && quiet > 10 {
			break
		}
	}
	if why != nil {
		m.fail("not converged: %v", why)
		return m
	}
	for range 120 {
		for _, g := range m.groups {
			if g.leader == 0 {
				m.fail("group %d has no leader", g.id)
			}
		}
		if !m.step() {
			m.fail("it moves although all is well")
			break
		}
	}
	return m
}

func (m *model) active() (ids []uint64) {
	for id, n := range m.state.Nodes {
		if n.State == Active {
			ids = append(ids, id)
		}
	}
	return ids
}

func seeds(t *testing.T, otherwise uint64) (from, to uint64) {
	env := os.Getenv("META_SEEDS") // from-to
	if env == "" {
		return 0, otherwise
	}
	a, b, _ := strings.Cut(env, "-")
	from, err := strconv.ParseUint(a, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if to, err = strconv.ParseUint(b, 10, 64); err != nil {
		t.Fatal(err)
	}
	return from, to
}

func TestHistories(t *testing.T) {
	from, to := seeds(t, 60)
	for seed := from; seed < to; seed++ {
		if m := history(seed, ""); len(m.wrong) > 0 {
			t.Errorf("seed %d:\n%s", seed, strings.Join(m.wrong, "\n"))
		}
	}
}

// checkers are by what m.fail says.
var checkers = injected.Checkers{{Name: "no hasty replacement", Says: "is replaced although"}, {Name: "I5 replica ids", Says: "I5"}, {Name: "I6 promotion", Says: "never caught up"},
	{Name: "I6 live majority", Says: "no live majority"}, {Name: "I6 one change", Says: "two changes at once"}, {Name: "committed entries", Says: "committed entries are lost"},
	{Name: "I6 known before destroyed", Says: "before a majority knows"}, {Name: "voters stay", Says: "is destroyed"}, {Name: "voters stay", Says: "no voter remains"}, {Name: "pure plan", Says: "equal inputs"}, {Name: "plan is taken", Says: "a planned command is refused"},
	{Name: "throttle", Says: "snapshots"}, {Name: "liveness", Says: "not converged"}, {Name: "liveness", Says: "has no leader"}, {Name: "stillness", Says: "it moves although"}}

func defect(name, in, by string) injected.Bug {
	return injected.Bug{Name: name, In: in, By: by, Within: 100, Sample: 100, Try: func(_ *testing.T, seed uint64) (checker, said string) {
		for _, wrong := range history(seed, name).wrong { // by, if it is among them
			if checker == "" || checkers.Of(wrong) == by && checker != by {
				checker, said = checkers.Of(wrong), wrong
			}
		}
		return checker, said
	}}
}

var defects = []injected.Bug{
	defect("membership from gossip alone", "director", "no hasty replacement"),
	defect("promote without catch-up", "host", "I6 promotion"),
	defect("two changes at once", "planner, host", "I6 one change"),
	defect("replica id reuse", "rows, host", "I5 replica ids"),
	defect("destroy before it is known", "agent", "I6 known before destroyed"),
}

// TestInjectedBugs shows that each turns a checker red.
func TestInjectedBugs(t *testing.T) { injected.Found(t, defects) }

// TestVerification holds the table of docs/verification.md to the list of defects.
func TestVerification(t *testing.T) { injected.Table(t, defects) }
