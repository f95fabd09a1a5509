package cluster

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// beat lets node 2 answer heartbeats of group 1 for a while, in ticks of 100 ms.
func (s *stand) beat(d time.Duration) (events []Event) {
	for end := s.host.now + d; s.host.now < end; {
		s.host.Wake(s.host.now + 100*time.Millisecond)
		s.host.Tick()
		events = append(events, s.answer()...)
	}
	return events
}

func closed(events []Event) bool {
	for _, e := range events {
		if c, ok := e.(Closed); ok && c.Shard == 0 {
			return true
		}
	}
	return false
}

func TestLease(t *testing.T) {
	s, _ := lead(t, HostConfig{})
	if closed(s.beat(3 * time.Second)) {
		t.Fatal("closed while a quorum answered")
	}
	s.host.Wake(s.host.now + silence)
	if closed(s.settle()) {
		t.Error("closed before the lease was over")
	}
	s.host.Wake(s.host.now + time.Millisecond)
	if !closed(s.settle()) {
		t.Error("open after the lease")
	}
	if at, ok := s.host.Deadline(); !ok || at > s.host.now+campaignFirst+3*campaignRank {
		t.Errorf("the next campaign is due at %v, %v", at, ok)
	}
}

// TestLeaseNeedsAQuorumOfBothHalves has three more voters come in that are silent.
func TestLeaseNeedsAQuorumOfBothHalves(t *testing.T) {
	s, _ := lead(t, HostConfig{})
	g := s.host.groups[1]
	g.state.Conf = &raftpb.ConfState{Voters: []uint64{1, 2, 3}, VotersOutgoing: []uint64{1, 7, 8}}
	s.host.Wake(g.until)
	g.heard[2] = s.host.now
	if g.renew(); g.until > s.host.now {
		t.Errorf("the lease runs until %v, now is %v", g.until, s.host.now)
	}
	g.heard[8] = s.host.now
	if g.renew(); g.until != s.host.now+silence {
		t.Errorf("the lease runs until %v, now is %v", g.until, s.host.now)
	}
	g.state.Conf = &raftpb.ConfState{Voters: []uint64{1, 2, 3, 4, 5}}
	if g.renew(); g.until > s.host.now {
		t.Error("two of five are no quorum")
	}
}

// TestSoleVoterNeedsNobody lets a single node stand still.
func TestSoleVoterNeedsNobody(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	s.open(0)
	s.host.Wake(time.Hour)
	if closed(s.settle()) {
		t.Error("a sole voter closed")
	}
}

// TestPromotionWaits asks each 100 ms whether a learner may be promoted.
func TestPromotionWaits(t *testing.T) {
	s, _ := lead(t, HostConfig{})
	conf := func() *raftpb.ConfState { st, _ := s.host.Status(1); return st.State.Conf }
	if err := s.host.Change(1, Change{From: conf(), Add: []persistence.Member{{Replica: 4, Node: 4}}}); err != nil {
		t.Fatal(err)
	}
	s.answer()
	promote := Change{From: conf(), Promote: []uint64{4}}
	answers := func(d time.Duration) error {
		for end := s.host.now + d; s.host.now < end; {
			s.beat(100 * time.Millisecond)
			st, _ := s.host.Status(1)
			s.host.Receive(4, 1, &raftpb.Message{
				Type: raftpb.MsgAppResp.Enum(), To: new(uint64(1)), From: new(uint64(4)), Term: new(st.Term), Index: new(st.Last),
			})
			s.answer()
		}
		st, _ := s.host.Status(1)
		err := s.host.Change(1, promote)
		if slices.Contains(st.CaughtUp, 4) != (err == nil) {
			t.Errorf("caught up %v, %v", st.CaughtUp, err)
		}
		return err
	}
	if err := answers(1900 * time.Millisecond); !errors.Is(err, ErrNotCaught) {
		t.Errorf("after 1.9 s: %v", err)
	}
	s.beat(800 * time.Millisecond) // the learner is silent: it begins anew
	if err := answers(1900 * time.Millisecond); !errors.Is(err, ErrNotCaught) {
		t.Errorf("after a silence and 1.9 s: %v", err)
	}
	if err := answers(300 * time.Millisecond); err != nil {
		t.Errorf("after 2.2 s: %v", err)
	}
}

// follows makes node 1 a follower of node 2 in all groups.
func follows(t *testing.T) *stand {
	s := newStand(t, 3, HostConfig{})
	for group := range uint32(3) {
		s.host.Receive(2, group, &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(1_700_000_005)),
		})
	}
	s.settle()
	return s
}

func TestSilence(t *testing.T) {
	s := follows(t)
	s.host.Wake(100 * time.Millisecond)
	s.host.Silent(2)
	if st, _ := s.host.Status(1); st.Leader != 0 {
		t.Error("a silent leader is not forgotten")
	}
	s.host.Trust(2)
	if len(s.host.suspects) != 0 {
		t.Error("a node that answers again is suspected")
	}
}

// TestOwnStall hears of a silence when the loop has just stood still.
func TestOwnStall(t *testing.T) {
	s := follows(t)
	s.host.Wake(100 * time.Millisecond)
	s.host.Wake(301 * time.Millisecond)
	s.host.Silent(2)
	run := func(until time.Duration) uint64 {
		for s.host.now < until {
			s.host.Wake(s.host.now + 100*time.Millisecond)
			s.host.Tick()
			s.settle()
		}
		st, _ := s.host.Status(1)
		return st.Leader
	}
	if leader := run(900 * time.Millisecond); leader != 2 {
		t.Errorf("after a stall of its own it suspects others: leader %d", leader)
	}
	if leader := run(1100 * time.Millisecond); leader != 0 {
		t.Errorf("the silence is never believed: leader %d", leader)
	}
	s = follows(t)
	s.host.Wake(100 * time.Millisecond)
	s.host.Wake(400 * time.Millisecond)
	s.host.Silent(2)
	s.host.Trust(2)
	if leader := run(1150 * time.Millisecond); leader != 2 {
		t.Errorf("a silence that ended is believed: leader %d", leader)
	}
}
