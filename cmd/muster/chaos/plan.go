package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// fault is one way to break a cluster.
type fault string

const (
	killCore     fault = "kill core"
	killMajority fault = "kill majority"
	killAll      fault = "kill all cores"
	killEdge     fault = "kill edge"
	pauseCore    fault = "pause core"
	pauseEdge    fault = "pause edge"
	partition    fault = "partition"
	oneWay       fault = "partition one way"
	bridge       fault = "partition bridge"
	gossipOnly   fault = "partition of gossip"
	raftOnly     fault = "partition of raft"
	rolling      fault = "rolling restart"
	wipe         fault = "wiped disk"
	diskLow      fault = "disk low"
	diskFull     fault = "disk full"
	doubleStart  fault = "double start"
	drainCore    fault = "drain and return"
	lateStart    fault = "one starts late" // while a cluster is born
	killStarting fault = "one is killed"   // the same
	cutStarting  fault = "one is cut off"  // the same
	join         fault = "join"            // of a scenario that grows
	leave        fault = "leave"           // the same
)

// need is what a machine must let the campaign do.
type need int

const (
	processes need = iota // start, kill and stop them
	addresses             // drop packets by address
	portsOnly             // drop packets by port
	disks                 // mount a disk
)

// injection is a fault with its targets.
type injection struct {
	fault  fault
	nodes  []string    // who is broken
	cuts   [][2]string // from, to
	only   string      // the port that is cut: gossip, raft; "": all
	hold   time.Duration
	amount int64 // bytes that a disk has left
}

func (i injection) String() string {
	s := string(i.fault) + " " + strings.Join(i.nodes, " ")
	if i.hold > 0 {
		s += fmt.Sprintf(" for %v", i.hold.Round(100*time.Millisecond))
	}
	return s
}

// rule says when a fault is possible and how its targets are chosen.
type rule struct {
	needs need
	cores int // at least
	edges int
	pick  func(*planner) injection
}

var rules = map[fault]rule{
	killCore: {cores: 1, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.cores, 1), hold: p.between(200*time.Millisecond, 8*time.Second)}
	}},
	killMajority: {cores: 3, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.cores, len(p.cores)/2+1), hold: p.between(time.Second, 8*time.Second)}
	}},
	killAll: {cores: 1, pick: func(p *planner) injection { return injection{nodes: p.cores, hold: p.between(0, 5*time.Second)} }},
	killEdge: {edges: 1, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.edges, 1), hold: p.between(200*time.Millisecond, 15*time.Second)}
	}},
	pauseCore: {cores: 1, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.cores, 1), hold: p.between(time.Second, 30*time.Second)}
	}},
	pauseEdge: {edges: 1, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.edges, 1), hold: p.between(time.Second, 30*time.Second)}
	}},
	partition:  {needs: addresses, cores: 3, pick: (*planner).split},
	oneWay:     {needs: addresses, cores: 3, pick: (*planner).deaf},
	bridge:     {needs: addresses, cores: 3, pick: (*planner).bridged},
	gossipOnly: {needs: portsOnly, cores: 3, pick: func(p *planner) injection { return p.portCut("gossip") }},
	raftOnly:   {needs: portsOnly, cores: 3, pick: func(p *planner) injection { return p.portCut("raft") }},
	rolling:    {cores: 1, pick: func(p *planner) injection { return injection{nodes: p.some(p.all, len(p.all))} }},
	wipe: {cores: 3, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.cores, 1), hold: p.between(time.Second, 15*time.Second)}
	}},
	diskLow:     {needs: disks, cores: 1, pick: func(p *planner) injection { return p.disk(int64(64+p.rnd.IntN(512)) << 20) }},
	diskFull:    {needs: disks, cores: 1, pick: func(p *planner) injection { return p.disk(int64(p.rnd.IntN(2 << 20))) }},
	doubleStart: {cores: 1, pick: func(p *planner) injection { return injection{nodes: p.some(p.cores, 1)} }},
	lateStart: {cores: 3, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.cores, 1), hold: p.between(time.Second, 15*time.Second)}
	}},
	killStarting: {cores: 3, pick: func(p *planner) injection {
		return injection{nodes: p.some(p.cores, 1), hold: p.between(100*time.Millisecond, 5*time.Second)}
	}},
	cutStarting: {needs: addresses, cores: 3, pick: func(p *planner) injection {
		i := injection{nodes: p.some(p.cores, 1), hold: p.between(2*time.Second, 15*time.Second)}
		i.cuts = between(i.nodes, rest(p.all, i.nodes))
		return i
	}},
	drainCore: {cores: 4, pick: func(p *planner) injection { return injection{nodes: p.some(p.cores, 1)} }},
}

// planner chooses one fault after the other; all that it chooses follows from its seed.
type planner struct {
	rnd               *rand.Rand
	faults            []fault
	cores, edges, all []string
	longest           time.Duration // that a fault may hold
}

// possible says which of the faults can be injected, and why others cannot.
func possible(faults []fault, t topology, able map[need]bool) (can []fault, lacks []string) {
	for _, f := range faults {
		switch r := rules[f]; {
		case !able[r.needs]:
			lacks = append(lacks, string(f)+": not on this machine, or not as this user")
		case len(t.cores()) < r.cores:
			lacks = append(lacks, fmt.Sprintf("%s: needs %d cores", f, r.cores))
		case len(t.edges()) < r.edges:
			lacks = append(lacks, fmt.Sprintf("%s: needs %d edges", f, r.edges))
		default:
			can = append(can, f)
		}
	}
	return can, lacks
}

func newPlanner(seed uint64, faults []fault, t topology, longest time.Duration) *planner {
	return &planner{
		rnd: rand.New(rand.NewPCG(seed, 1)), faults: faults, cores: t.cores(), edges: t.edges(),
		all: t.where(func(place) bool { return true }), longest: longest,
	}
}

// next is the time until the next fault, and the fault.
func (p *planner) next() (after time.Duration, i injection) {
	after = p.between(2*time.Second, 6*time.Second)
	f := p.faults[p.rnd.IntN(len(p.faults))]
	i = rules[f].pick(p)
	i.fault, i.hold = f, min(i.hold, p.longest)
	return after, i
}

func (p *planner) between(low, high time.Duration) time.Duration {
	return low + time.Duration(p.rnd.Int64N(int64(high-low)+1))
}

// some are n of the names, in random order.
func (p *planner) some(names []string, n int) []string {
	list := make([]string, 0, n)
	for _, i := range p.rnd.Perm(len(names))[:n] {
		list = append(list, names[i])
	}
	return list
}

// rest are the names that are not in some.
func rest(names, some []string) (others []string) {
	in := map[string]bool{}
	for _, n := range some {
		in[n] = true
	}
	for _, n := range names {
		if !in[n] {
			others = append(others, n)
		}
	}
	return others
}

// both ways between each of a and each of b.
func between(a, b []string) (cuts [][2]string) {
	for _, x := range a {
		for _, y := range b {
			cuts = append(cuts, [2]string{x, y}, [2]string{y, x})
		}
	}
	return cuts
}

// split cuts a minority of the cores, perhaps with an edge, from everybody else.
func (p *planner) split() injection {
	i := injection{nodes: p.some(p.cores, 1+p.rnd.IntN((len(p.cores)-1)/2)), hold: p.between(2*time.Second, 30*time.Second)}
	if len(p.edges) > 1 && p.rnd.IntN(2) == 0 {
		i.nodes = append(i.nodes, p.some(p.edges, 1)...)
	}
	i.cuts = between(i.nodes, rest(p.all, i.nodes))
	return i
}

// deaf makes one core hear nobody, or be heard by nobody.
func (p *planner) deaf() injection {
	i := injection{nodes: p.some(p.cores, 1), hold: p.between(2*time.Second, 30*time.Second)}
	deaf := p.rnd.IntN(2) == 0
	for _, other := range rest(p.all, i.nodes) {
		if deaf {
			i.cuts = append(i.cuts, [2]string{other, i.nodes[0]})
		} else {
			i.cuts = append(i.cuts, [2]string{i.nodes[0], other})
		}
	}
	return i
}

// bridged cuts the cores into two halves that only one of them connects.
func (p *planner) bridged() injection {
	order := p.some(p.cores, len(p.cores))
	half := (len(order) - 1) / 2
	a, b := order[1:1+half], order[1+half:]
	return injection{nodes: order[1:], cuts: between(a, b), hold: p.between(2*time.Second, 30*time.Second)}
}

// portCut cuts one core from everybody on one port.
func (p *planner) portCut(only string) injection {
	i := injection{nodes: p.some(p.cores, 1), only: only, hold: p.between(2*time.Second, 30*time.Second)}
	i.cuts = between(i.nodes, rest(p.all, i.nodes))
	return i
}

func (p *planner) disk(left int64) injection {
	return injection{nodes: p.some(p.cores, 1), amount: left, hold: p.between(2*time.Second, 15*time.Second)}
}
