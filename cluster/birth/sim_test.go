package birth

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// faults are injected bugs and the shape of a run.
type faults struct {
	forgetCluster bool // an initialised node starts as if its directory were empty
	pledgeLost    bool // a pledge is answered before it is on the disk
	attemptLost   bool // an initiator starts without its attempt and its number
	lateQuestions bool // a question of an attempt that was given up is taken
	answerFirst   bool // a reply leaves although the write behind it never happened
	half          bool // N is half of the planned nodes
	calm          bool // only N nodes exist, nothing fails
}

// simNode is one planned node: a disk, and a machine while it runs.
type simNode struct {
	id      uint64
	disk    []byte // encoded state
	cluster string // identity on the disk
	m       *machine
	todo    *Decision // decided, not yet on the disk
	view    map[uint64]Node
}

type packet struct {
	at   time.Time
	to   int
	msg  *message
	resp *reply
}

// world is a run: P planned nodes that expect N, with one clock and all faults drawn from one seed.
type world struct {
	rng    *rand.Rand
	f      faults
	now    time.Time
	n      int
	nodes  []*simNode
	side   []int // partition: who is on the same side hears each other
	wire   []packet
	chaos  bool
	births map[string]uint64 // cluster → node
	trace  []string
	met    map[string]int // what the faults led to
	wrong  string
}

func newWorld(seed uint64, f faults) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 1)), f: f, now: time.Unix(1e9, 0), births: map[string]uint64{}, met: map[string]int{}}
	planned := 2 + w.rng.IntN(4)
	w.n = max(2, planned/2+1+w.rng.IntN(planned-planned/2))
	switch {
	case f.half:
		planned, w.n = 4, 2
	case f.calm:
		planned = w.n
	}
	for i := range planned {
		w.nodes = append(w.nodes, &simNode{id: uint64(i+1)*10 + uint64(w.rng.IntN(9))})
		w.side = append(w.side, 0)
	}
	w.rng.Shuffle(planned, func(i, j int) { w.nodes[i], w.nodes[j] = w.nodes[j], w.nodes[i] })
	return w
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%6.1f ", w.now.Sub(time.Unix(1e9, 0)).Seconds())+fmt.Sprintf(format, args...))
}

// run has a time of faults, then heals, and says what went wrong; "" if nothing did.
func (w *world) run() string {
	w.chaos = !w.f.calm
	for end := w.now.Add(40 * time.Second); w.chaos && w.now.Before(end) && w.wrong == ""; {
		w.step()
	}
	w.chaos = false
	w.note("healed")
	for i := range w.side {
		w.side[i] = 0
	}
	for end := w.now.Add(60 * time.Second); w.now.Before(end) && w.wrong == "" && !w.done(); {
		w.step()
	}
	switch {
	case w.wrong != "":
	case len(w.births) == 0:
		w.wrong = "no cluster was born"
	case !w.done():
		w.wrong = "somebody did not get in"
	}
	return w.wrong
}

func (w *world) done() bool {
	for _, n := range w.nodes {
		if n.m == nil || n.cluster == "" {
			return false
		}
	}
	return true
}

func (w *world) step() {
	w.now = w.now.Add(time.Duration(20+w.rng.IntN(80)) * time.Millisecond)
	if w.chaos {
		w.disturb()
	}
	for i, n := range w.nodes {
		if n.m == nil {
			if !w.chaos || w.rng.IntN(40) == 0 {
				w.start(n)
			}
			continue
		}
		w.gossip(i)
		w.act(n)
		if n.m != nil && n.todo == nil && n.cluster == "" && w.rng.IntN(3) == 0 {
			w.tick(n)
		}
	}
	w.deliver()
}

func (w *world) disturb() {
	switch w.rng.IntN(60) {
	case 0:
		for i := range w.side {
			w.side[i] = w.rng.IntN(2)
		}
		w.note("sides %v", w.side)
	case 1:
		for i := range w.side {
			w.side[i] = 0
		}
		w.note("one side")
	case 2:
		if n := w.nodes[w.rng.IntN(len(w.nodes))]; n.m != nil {
			w.crash(n, "killed")
		}
	}
}

func (w *world) crash(n *simNode, why string) {
	w.note("%d %s", n.id, why)
	n.m, n.todo, n.view = nil, nil, nil
}

func (w *world) start(n *simNode) {
	s := state{Format: fileFormat, Node: n.id}
	cluster := n.cluster
	if w.f.forgetCluster {
		cluster, n.disk = "", nil
	}
	if n.disk != nil {
		var err error
		if s, err = decodeState(n.disk); err != nil {
			panic(err)
		}
	}
	if w.f.attemptLost && s.Attempt != nil {
		s.Attempt, s.Pledge, s.Number = nil, nil, 0
	}
	if w.f.forgetCluster {
		n.cluster = ""
	}
	switch a, p := s.Attempt, s.Pledge; {
	case cluster != "":
	case a != nil && a.BornAt != 0:
		w.met["birth resumed"]++
	case a != nil:
		w.met["attempt resumed"]++
	case p != nil:
		w.met["pledge kept over a restart"]++
	}
	self := Node{ID: n.id, Name: fmt.Sprint("n", n.id), Expect: w.n, Cluster: cluster}
	n.view = map[uint64]Node{}
	n.m = newMachine(w.now, self, s, func() string { return fmt.Sprintf("c%d-%x", n.id, w.rng.Uint32()) },
		func(d time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(d))) })
	w.note("%d starts: cluster %q", n.id, cluster)
}

// gossip lets a node hear of one that it reaches, or forget one that it does not. In between its view is stale.
func (w *world) gossip(i int) {
	n := w.nodes[i]
	j := w.rng.IntN(len(w.nodes))
	other := w.nodes[j]
	switch {
	case other.m != nil && w.side[i] == w.side[j]:
		n.view[other.id] = Node{ID: other.id, Name: other.m.self.Name, Expect: w.n, Cluster: other.m.self.Cluster}
	case w.rng.IntN(5) == 0:
		delete(n.view, other.id)
	}
}

func (w *world) tick(n *simNode) {
	ids := make([]uint64, 0, len(n.view))
	for id := range n.view {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var sight []Node
	for _, id := range ids {
		sight = append(sight, n.view[id])
	}
	number := n.m.state.Number
	e := n.m.tick(w.now, sight)
	if n.m.state.Number != number {
		w.met["attempt given up"]++
	}
	if e.save && !w.write(n) {
		return
	}
	w.send(n, e.sends)
	if e.decision != nil {
		n.todo = e.decision
		w.note("%d decides %+v", n.id, *e.decision)
	}
}

// write saves the machine's state; the node may die just before or just after.
func (w *world) write(n *simNode) bool {
	if w.chaos && w.rng.IntN(7) == 0 {
		w.crash(n, "crashed before a write")
		return false
	}
	s := n.m.state
	if w.f.pledgeLost && s.Pledge != nil && s.Pledge.To.ID != n.id {
		s.Pledge = nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	n.disk = b
	if w.chaos && w.rng.IntN(7) == 0 {
		w.crash(n, "crashed after a write")
		return false
	}
	return true
}

func (w *world) send(n *simNode, msgs []message) {
	for _, msg := range msgs {
		w.post(packet{to: w.index(msg.To), msg: &msg}, n)
	}
}

func (w *world) index(id uint64) int {
	return slices.IndexFunc(w.nodes, func(n *simNode) bool { return n.id == id })
}

// post loses, doubles and delays; some packets come many seconds late.
func (w *world) post(p packet, from *simNode) {
	if w.side[w.index(from.id)] != w.side[p.to] {
		return
	}
	copies := 1
	if w.chaos {
		copies = []int{0, 1, 1, 1, 1, 1, 1, 2}[w.rng.IntN(8)]
	}
	for range copies {
		p.at = w.now.Add(time.Duration(w.rng.IntN(50)) * time.Millisecond)
		if w.chaos && w.rng.IntN(10) == 0 {
			p.at = w.now.Add(time.Duration(w.rng.IntN(20_000)) * time.Millisecond)
		}
		w.wire = append(w.wire, p)
	}
}

func (w *world) deliver() {
	due := w.wire
	w.wire = nil
	for _, p := range due {
		if p.at.After(w.now) {
			w.wire = append(w.wire, p)
			continue
		}
		n := w.nodes[p.to]
		if n.m == nil {
			continue
		}
		if p.resp != nil {
			n.m.replied(*p.resp)
			continue
		}
		if w.f.lateQuestions {
			n.m.state.Heard = nil
		}
		bound := n.m.state.Pledge
		r, save := n.m.answer(*p.msg)
		switch {
		case bound != nil && n.m.state.Pledge != bound:
			w.met["pledge freed"]++
		case strings.Contains(r.Reason, "given up"):
			w.met["late question refused"]++
		case strings.Contains(r.Reason, "pledged to"):
			w.met["second pledge refused"]++
		}
		id := n.id
		if save && !w.write(n) && !w.f.answerFirst {
			continue
		}
		w.note("%d answers %d, attempt %d of %q: %v %s", id, p.msg.From.ID, p.msg.Number, p.msg.Cluster, r.Pledged, r.Reason)
		w.post(packet{to: w.index(p.msg.From.ID), resp: &r}, n)
	}
}

// act carries a decision out: it becomes true when the identity is on the disk.
func (w *world) act(n *simNode) {
	if n.todo == nil || w.rng.IntN(4) != 0 {
		return
	}
	d := *n.todo
	if w.chaos && w.rng.IntN(8) == 0 {
		w.crash(n, "crashed before it carried out its decision")
		return
	}
	if d.Bootstrap {
		w.born(n, d.Cluster)
	} else if !w.reaches(n, d.Cluster) {
		return
	}
	n.cluster, n.m.self.Cluster, n.todo = d.Cluster, d.Cluster, nil
}

func (w *world) born(n *simNode, cluster string) {
	w.note("%d gives birth to %s", n.id, cluster)
	w.births[cluster] = n.id
	if w.chaos {
		w.met["born among faults"]++
	}
	if len(w.births) > 1 {
		w.wrong = fmt.Sprintf("two clusters: %v", w.births)
	}
}

func (w *world) reaches(n *simNode, cluster string) bool {
	i := w.index(n.id)
	for j, other := range w.nodes {
		if other.m != nil && other.cluster == cluster && w.side[i] == w.side[j] {
			return true
		}
	}
	return false
}
