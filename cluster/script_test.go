package cluster

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// script is hosts of one group, moved by a test in virtual time. A message arrives at once, unless lose takes it. All
// writes are synced.
type script struct {
	t     *testing.T
	now   time.Duration
	order []uint64 // of nodes
	disks map[uint64]*modelDisk
	hosts map[uint64]*Host
	open  map[uint64]uint64 // node → term
	lose  func(m Message) bool
}

// newScript starts nodes of one replica each, with the node's number as id, of group 1.
func newScript(t *testing.T, conf *raftpb.ConfState) *script {
	reader := rand.Reader
	rand.Reader = entropy{mathrand.New(mathrand.NewPCG(1, 1))}
	t.Cleanup(func() { rand.Reader = reader })
	s := &script{
		t: t, order: slices.Sorted(slices.Values(slices.Concat(conf.GetVoters(), conf.GetLearners()))),
		disks: map[uint64]*modelDisk{}, hosts: map[uint64]*Host{}, open: map[uint64]uint64{}, lose: func(Message) bool { return false },
	}
	var members []persistence.Member
	for _, id := range s.order {
		members = append(members, persistence.Member{Replica: id, Node: id})
	}
	for _, id := range s.order {
		s.disks[id] = newModelDisk(&simBugs{})
		s.write(id, []persistence.Update{{
			Group: 1, Hard: &raftpb.HardState{Term: new(uint64(birthTerm)), Vote: new(uint64(0)), Commit: new(uint64(1))},
			State: &persistence.State{
				Applied: 1, AppliedTerm: birthTerm, Truncated: 1, TruncatedTerm: birthTerm, Conf: conf, Members: members, Replica: id,
			},
		}})
		s.start(id)
	}
	return s
}

// start runs a node on its disk.
func (s *script) start(id uint64) {
	s.t.Helper()
	delete(s.open, id)
	host, err := NewHost(HostConfig{Node: id, Rand: mathrand.New(mathrand.NewPCG(id, 1))}, s.disks[id])
	if err != nil {
		s.t.Fatal(err)
	}
	s.hosts[id] = host
}

// die ends a node for good; the others see its streams reset.
func (s *script) die(id uint64) {
	delete(s.hosts, id)
	delete(s.open, id)
	for _, n := range s.order {
		if h := s.hosts[n]; h != nil {
			h.Suspect(id)
		}
	}
}

func (s *script) write(id uint64, us []persistence.Update) {
	s.t.Helper()
	if err := s.disks[id].put(us); err != nil {
		s.t.Fatal(err)
	}
	if err := s.disks[id].sync(); err != nil {
		s.t.Fatal(err)
	}
}

// settle does all turns there are.
func (s *script) settle() {
	for busy := true; busy; {
		busy = false
		for _, id := range s.order {
			if h := s.hosts[id]; h != nil && h.Busy() {
				busy = true
				s.turn(id, h)
			}
		}
	}
}

func (s *script) turn(id uint64, h *Host) {
	turn := h.Turn()
	s.tell(id, turn.Closed)
	if len(turn.Ingests) > 0 {
		s.t.Fatal("a snapshot: the script knows none")
	}
	s.write(id, turn.Updates)
	h.Wrote(turn)
	s.tell(id, turn.Events)
	for _, m := range append(slices.Clone(turn.Before), turn.After...) {
		if to := s.hosts[m.To]; to != nil && !s.lose(m) {
			to.Receive(id, m.Group, packet(m).Raft)
		}
	}
}

func (s *script) tell(id uint64, events []Event) {
	for _, e := range events {
		switch e := e.(type) {
		case Opened:
			s.open[id] = e.Term
		case Closed:
			delete(s.open, id)
		}
	}
}

// run lets time go by until something is so; false: it never was.
func (s *script) run(most time.Duration, so func() bool) bool {
	const step = 10 * time.Millisecond
	for end := s.now + most; ; {
		s.settle()
		if so() {
			return true
		}
		if s.now >= end {
			return false
		}
		s.now += step
		for _, id := range s.order {
			if h := s.hosts[id]; h != nil {
				h.Wake(s.now)
				if s.now%(100*time.Millisecond) == 0 {
					s.settle()
					h.Tick()
				}
			}
		}
	}
}

func (s *script) status(id uint64) Status {
	s.t.Helper()
	st, err := s.hosts[id].Status(1)
	if err != nil {
		s.t.Fatalf("node %d: %v", id, err)
	}
	return st
}

// lead makes a node the leader.
func (s *script) lead(id uint64) {
	s.t.Helper()
	g := s.hosts[id].groups[1]
	_ = g.raft.Campaign()
	s.hosts[id].touch(g)
	if !s.run(time.Second, func() bool { return s.open[id] != 0 }) {
		s.t.Fatalf("node %d does not lead", id)
	}
}

// leader of those that run; 0: nobody.
func (s *script) leader() uint64 {
	for _, id := range s.order {
		if s.open[id] != 0 {
			return id
		}
	}
	return 0
}
