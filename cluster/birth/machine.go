package birth

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	patience   = 5 * time.Second        // of an initiator, for all pledges
	askEvery   = 500 * time.Millisecond // again to who has not answered
	settleTime = 500 * time.Millisecond // the N smallest must stay the same
	restMin    = time.Second            // between two attempts, at least
	restRandom = 2 * time.Second        // and up to this much more
	maxHeard   = 256
)

// Node is one that gossip shows.
type Node struct {
	ID      uint64
	Name    string
	Expect  int
	Cluster string // "" until initialised
}

// Decision is what this node does: give birth to Cluster, or join.
type Decision struct {
	Bootstrap bool
	Cluster   string    // to be born, or to be joined if it is known already
	BornAt    time.Time // of a bootstrap; whole milliseconds, the same each time the same birth is decided
}

type party struct {
	ID   uint64 `json:"id"`
	Name string `json:"name"`
}

// state is what must be on the disk.
type state struct {
	Format  int               `json:"format"`
	Node    uint64            `json:"node"`
	Number  uint64            `json:"number"`            // of this node's attempt, or of its next one: those before are given up
	Attempt *attempt          `json:"attempt,omitempty"` // this node's own
	Pledge  *pledge           `json:"pledge,omitempty"`
	Heard   map[uint64]uint64 `json:"heard,omitempty"` // node → its highest number heard; at most maxHeard
}

type attempt struct {
	Cluster string  `json:"cluster"`
	Parties []party `json:"parties"` // this node first
	BornAt  int64   `json:"born_at"` // Unix ms; not 0: it has won
}

type pledge struct {
	Cluster string `json:"cluster"`
	To      party  `json:"to"`
	Number  uint64 `json:"number"`
}

// message says that From has given up its attempts before Number, and asks for a pledge.
type message struct {
	From    party  `json:"from"`
	To      uint64 `json:"to"`
	Number  uint64 `json:"number"`
	Cluster string `json:"cluster,omitempty"` // "" asks for nothing
	Expect  int    `json:"expect"`
}

type reply struct {
	From    uint64 `json:"from"`
	Number  uint64 `json:"number"`
	Cluster string `json:"cluster,omitempty"`
	Pledged bool   `json:"pledged"`
	Reason  string `json:"reason,omitempty"` // why not
}

// machine decides. Its caller must have saved the state, if told to, before it acts on anything else of an effect.
type machine struct {
	self   Node
	newID  func() string
	random func(time.Duration) time.Duration // in [0, d)
	state  state

	decided bool
	granted map[uint64]bool // pledges to the attempt
	refusal string          // of the attempt
	begun   time.Time       // the attempt, in this process
	rest    time.Time       // no attempt before
	seen    []party         // the N smallest in sight
	seenAt  time.Time
	spokeAt map[uint64]time.Time
	told    map[uint64]uint64 // node → the number it confirmed
}

// effect is what follows from an input.
type effect struct {
	save     bool
	sends    []message
	decision *Decision
}

func newMachine(now time.Time, self Node, s state, newID func() string, random func(time.Duration) time.Duration) *machine {
	m := &machine{self: self, newID: newID, random: random, state: s, told: map[uint64]uint64{}}
	m.begin(now)
	return m
}

func (m *machine) begin(now time.Time) {
	m.begun, m.refusal = now, ""
	m.granted, m.spokeAt = map[uint64]bool{m.self.ID: true}, map[uint64]time.Time{}
}

func (m *machine) me() party { return party{m.self.ID, m.self.Name} }

// tick looks at what is in sight and at the clock. It is to be called at least each 500 ms.
func (m *machine) tick(now time.Time, sight []Node) (e effect) {
	for _, n := range sight {
		if n.ID != m.self.ID && n.Cluster != "" {
			m.decided = true
			e.decision = &Decision{Cluster: n.Cluster}
			return e
		}
	}
	if m.state.Attempt == nil && m.state.Pledge == nil {
		e.save = m.initiate(now, sight)
	}
	if a := m.state.Attempt; a != nil && a.BornAt == 0 {
		switch {
		case len(m.granted) == len(a.Parties):
			a.BornAt, e.save = max(now.UnixMilli(), 1), true
		case m.refusal != "" || now.Sub(m.begun) >= patience:
			m.abandon(now)
			e.save = true
		}
	}
	if a := m.state.Attempt; a != nil && a.BornAt != 0 {
		m.decided = true
		e.decision = &Decision{Bootstrap: true, Cluster: a.Cluster, BornAt: time.UnixMilli(a.BornAt)}
		return e
	}
	e.sends = m.speak(now, sight)
	return e
}

// initiate starts an attempt if it is this node's turn.
func (m *machine) initiate(now time.Time, sight []Node) (save bool) {
	parties := m.parties(sight)
	if !slices.Equal(parties, m.seen) {
		m.seen, m.seenAt = parties, now
	}
	if len(parties) < m.self.Expect || parties[0].ID != m.self.ID || now.Before(m.rest) || now.Sub(m.seenAt) < settleTime {
		return false
	}
	m.state.Attempt = &attempt{Cluster: m.newID(), Parties: parties}
	m.state.Pledge = &pledge{m.state.Attempt.Cluster, m.me(), m.state.Number}
	m.begin(now)
	return true
}

// parties are the nodes in sight that may take part, this one included, the N smallest by id.
func (m *machine) parties(sight []Node) []party {
	out := []party{m.me()}
	for _, n := range sight {
		if n.ID != m.self.ID && n.Cluster == "" && n.Expect == m.self.Expect {
			out = append(out, party{n.ID, n.Name})
		}
	}
	slices.SortFunc(out, func(a, b party) int { return cmp.Compare(a.ID, b.ID) })
	out = slices.CompactFunc(out, func(a, b party) bool { return a.ID == b.ID })
	return out[:min(len(out), m.self.Expect)]
}

// abandon gives the attempt up: from the moment this is saved it cannot win.
func (m *machine) abandon(now time.Time) {
	m.state.Attempt, m.state.Pledge = nil, nil
	m.state.Number++
	m.rest = now.Add(restMin + m.random(restRandom))
}

// speak asks, and frees who may be bound to what was given up.
func (m *machine) speak(now time.Time, sight []Node) (out []message) {
	for _, n := range sight {
		if at, ok := m.spokeAt[n.ID]; n.ID == m.self.ID || ok && now.Sub(at) < askEvery {
			continue
		}
		msg := message{From: m.me(), To: n.ID, Number: m.state.Number, Expect: m.self.Expect}
		if a := m.state.Attempt; a != nil && !m.granted[n.ID] && a.has(n.ID) {
			msg.Cluster = a.Cluster
		}
		if msg.Cluster != "" || m.told[n.ID] < m.state.Number {
			m.spokeAt[n.ID] = now
			out = append(out, msg)
		}
	}
	return out
}

func (a *attempt) has(id uint64) bool {
	return slices.ContainsFunc(a.Parties, func(p party) bool { return p.ID == id })
}

// answer takes a message; the reply must not leave before the state is saved.
func (m *machine) answer(msg message) (r reply, save bool) {
	r = reply{From: m.self.ID, Number: msg.Number, Cluster: msg.Cluster}
	switch heard := m.state.Heard[msg.From.ID]; {
	case msg.To != m.self.ID || msg.From.ID == m.self.ID:
		return reply{From: m.self.ID, Reason: fmt.Sprintf("it is node %d", m.self.ID)}, false
	case msg.Number < heard:
		r.Reason = "that attempt was given up"
		return r, false
	case msg.Number > heard:
		m.hear(msg)
		save = true
	}
	if msg.Cluster == "" {
		return r, save
	}
	p := m.state.Pledge
	switch {
	case m.self.Cluster != "":
		r.Reason = "it belongs to cluster " + m.self.Cluster
	case m.decided:
		r.Reason = "it has decided already"
	case msg.Expect != m.self.Expect:
		r.Reason = fmt.Sprintf("it was started with --expect %d", m.self.Expect)
	case p == nil:
		m.state.Pledge = &pledge{msg.Cluster, msg.From, msg.Number}
		r.Pledged, save = true, true
	case p.Cluster != msg.Cluster:
		r.Reason = fmt.Sprintf("it is pledged to cluster %s of node %s", p.Cluster, p.To.Name)
	default:
		r.Pledged = true
	}
	return r, save
}

// hear takes a higher number of a node: a pledge to an earlier attempt of it is void.
func (m *machine) hear(msg message) {
	if len(m.state.Heard) >= maxHeard {
		clear(m.state.Heard) // a late message may bind this node again, until the sender's next one
	}
	if m.state.Heard == nil {
		m.state.Heard = map[uint64]uint64{}
	}
	m.state.Heard[msg.From.ID] = msg.Number
	if p := m.state.Pledge; p != nil && p.To.ID == msg.From.ID && p.Number < msg.Number {
		m.state.Pledge = nil
	}
}

// replied takes the answer to a message; what follows from it comes with the next tick.
func (m *machine) replied(r reply) {
	m.told[r.From] = max(m.told[r.From], r.Number)
	a := m.state.Attempt
	if a == nil || r.Cluster != a.Cluster || !a.has(r.From) {
		return
	}
	if r.Pledged {
		m.granted[r.From] = true
		return
	}
	m.refusal = fmt.Sprintf("node %d: %s", r.From, r.Reason)
	for _, p := range a.Parties {
		if p.ID == r.From {
			m.refusal = fmt.Sprintf("%s: %s", p.Name, r.Reason)
		}
	}
}

// waiting says in words what this node waits for.
func (m *machine) waiting(sight []Node) string {
	if a := m.state.Attempt; a != nil {
		var left []string
		for _, p := range a.Parties {
			if !m.granted[p.ID] {
				left = append(left, p.Name)
			}
		}
		return fmt.Sprintf("asking %s to pledge to cluster %s", strings.Join(left, ", "), a.Cluster)
	}
	if p := m.state.Pledge; p != nil {
		text := fmt.Sprintf("pledged to cluster %s of node %s (%d)", p.Cluster, p.To.Name, p.To.ID)
		if !slices.ContainsFunc(sight, func(n Node) bool { return n.ID == p.To.ID }) {
			text += ", which is not in sight"
		}
		return text
	}
	var names []string
	for _, p := range m.parties(sight) {
		names = append(names, p.Name)
	}
	text := fmt.Sprintf("%d of %d empty nodes in sight: %s", len(names), m.self.Expect, strings.Join(names, ", "))
	if m.refusal != "" {
		text += "; the last attempt was refused by " + m.refusal
	}
	return text
}
