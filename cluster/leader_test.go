package cluster

import (
	"errors"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// lead makes node 1 of three the open leader of group 1; node 2 answers, node 3 is silent.
func lead(t *testing.T, cfg HostConfig) (s *stand, term uint64) {
	t.Helper()
	s = newStand(t, 3, cfg)
	s.settle()
	s.host.Wake(campaignStart + 2*campaignRank)
	for _, e := range s.answer() {
		if o, ok := e.(Opened); ok && o.Shard == 0 {
			term = o.Term
		}
	}
	if term == 0 {
		t.Fatal("not elected")
	}
	return s, term
}

// answer plays node 2 for group 1 until nothing more is asked of it.
func (s *stand) answer() (events []Event) {
	s.t.Helper()
	for s.host.Busy() {
		turn := s.turn()
		events = append(append(events, turn.Closed...), turn.Events...)
		for _, m := range append(slices.Clone(turn.Before), turn.After...) {
			if r := reply(m.Raft); r != nil && m.To == 2 && m.Group == 1 {
				s.host.Receive(2, 1, r)
			}
		}
	}
	return events
}

func reply(m *raftpb.Message) *raftpb.Message {
	r := &raftpb.Message{To: m.From, From: m.To, Term: m.Term}
	switch m.GetType() {
	case raftpb.MsgPreVote:
		r.Type = raftpb.MsgPreVoteResp.Enum()
	case raftpb.MsgVote:
		r.Type = raftpb.MsgVoteResp.Enum()
	case raftpb.MsgApp:
		r.Type, r.Index = raftpb.MsgAppResp.Enum(), new(m.GetIndex()+uint64(len(m.GetEntries())))
	case raftpb.MsgHeartbeat:
		r.Type, r.Context = raftpb.MsgHeartbeatResp.Enum(), m.GetContext()
	default:
		return nil
	}
	return r
}

func TestLeaderSendsBeforeItsOwnSync(t *testing.T) {
	s, term := lead(t, HostConfig{})
	if err := s.host.Propose(0, term, 1, 0, puts(1, 1)); err != nil {
		t.Fatal(err)
	}
	turn := s.turn()
	if !turn.Sync || len(turn.Before) != 1 || turn.Before[0].Raft.GetType() != raftpb.MsgApp || turn.Before[0].To != 2 {
		t.Errorf("sync %v, before it %v", turn.Sync, turn.Before)
	}
	s.host.Receive(2, 1, reply(turn.Before[0].Raft))
	if cs := committed(s.answer()); len(cs) != 1 || cs[0].Seq != 1 {
		t.Errorf("committed %v", cs)
	}
}

func TestFollowerAnswersAfterItsSync(t *testing.T) {
	s := newStand(t, 3, HostConfig{})
	s.settle()
	s.host.Receive(2, 1, &raftpb.Message{
		Type: raftpb.MsgVote.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(1_700_000_009)),
		Index: new(uint64(1)), LogTerm: new(uint64(1_700_000_000)),
	})
	turn := s.host.Turn()
	if !turn.Sync || len(turn.Before) != 0 || len(turn.After) != 0 {
		t.Fatalf("sync %v, before %v, after %v", turn.Sync, turn.Before, turn.After)
	}
	if err := s.store.Write(turn.Updates, true); err != nil {
		t.Fatal(err)
	}
	if s.host.Wrote(turn); len(turn.After) != 1 || turn.After[0].Raft.GetType() != raftpb.MsgVoteResp || turn.After[0].Raft.GetReject() {
		t.Errorf("after %v", turn.After)
	}
	if hard, _, _, _, err := s.store.Load(1); err != nil || hard.GetVote() != 2 || hard.GetTerm() != 1_700_000_009 {
		t.Errorf("on the disk %v, %v", hard, err)
	}
}

// TestClosedComesFirst finds a later term while proposals and reads are in flight.
func TestClosedComesFirst(t *testing.T) {
	s, term := lead(t, HostConfig{})
	for seq := range uint64(3) {
		_ = s.host.Propose(0, term, seq+1, 0, puts(1, 1))
	}
	s.turn()
	_ = s.host.Propose(0, term, 4, 0, puts(1, 1)) // not yet in the log
	if err := s.host.Read(0, 77); err != nil {
		t.Fatal(err)
	}
	s.host.Receive(3, 1, &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: new(term + 1), Commit: new(uint64(0)),
	})
	if err := s.host.Propose(0, term, 5, 0, nil); err != nil { // the host has not looked yet
		t.Error(err)
	}
	turn := s.turn()
	if !slices.Contains(turn.Closed, Event(Closed{Shard: 0, Term: term})) {
		t.Fatalf("closed %v, events %v", turn.Closed, turn.Events)
	}
	if !slices.Contains(turn.Events, Event(ReadReady{Shard: 0, ID: 77, Err: ErrNotLeader})) {
		t.Errorf("events %v", turn.Events)
	}
	if err := s.host.Propose(0, term, 6, 0, nil); !errors.Is(err, ErrNotLeader) {
		t.Error(err)
	}
	if left := s.host.budget.all.Load(); left != 0 {
		t.Errorf("%d bytes in flight", left)
	}
	st, _ := s.host.Status(1)
	s.host.Receive(3, 1, &raftpb.Message{ // the new leader commits what was in flight
		Type: raftpb.MsgApp.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: new(term + 1), Index: new(st.Last), LogTerm: new(term),
		Entries: []*raftpb.Entry{{Index: new(st.Last + 1), Term: new(term + 1)}}, Commit: new(st.Last + 1),
	})
	if cs := committed(s.settle()); len(cs) != 0 {
		t.Errorf("acknowledged after Closed: %v", cs)
	}
	if _, ok, _ := s.store.Get(0, []byte("k0")); !ok {
		t.Error("what the new leader committed was not applied")
	}
}

func TestReadsShareARound(t *testing.T) {
	s, _ := lead(t, HostConfig{})
	for id := range uint64(5) {
		if err := s.host.Read(0, id); err != nil {
			t.Fatal(err)
		}
	}
	turn := s.turn()
	beats := 0
	for _, m := range turn.Before {
		if m.Raft.GetType() == raftpb.MsgHeartbeat && m.To == 2 {
			beats++
			s.host.Receive(2, 1, reply(m.Raft))
		}
	}
	if beats != 1 || len(turn.Events) != 0 {
		t.Fatalf("%d heartbeats, events %v", beats, turn.Events)
	}
	ready := 0
	for _, e := range s.settle() {
		if r, ok := e.(ReadReady); ok && r.Err == nil {
			ready++
		}
	}
	if ready != 5 {
		t.Errorf("%d reads are ready", ready)
	}
}

// A sole voter has nobody to ask: it answers in the turn in which it was asked.
func TestReadOfASoleVoter(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	s.open(0)
	_, _ = s.host.Read(0, 1), s.host.Read(0, 2)
	turn := s.turn()
	if len(turn.Before)+len(turn.After) != 0 || !slices.Equal(turn.Events, []Event{ReadReady{ID: 1}, ReadReady{ID: 2}}) {
		t.Errorf("%d messages, events %v", len(turn.Before)+len(turn.After), turn.Events)
	}
}

func TestGate(t *testing.T) {
	s, _ := lead(t, HostConfig{})
	st, _ := s.host.Status(1)
	conf := st.State.Conf
	for _, tt := range []struct {
		name string
		c    Change
		want error
	}{
		{"no plan", Change{}, ErrStalePlan},
		{"nothing", Change{From: conf}, ErrBadPlan},
		{"another start", Change{From: &raftpb.ConfState{Voters: []uint64{1}}, Remove: []uint64{3}}, ErrStalePlan},
		{"the leader", Change{From: conf, Remove: []uint64{1}}, ErrBadPlan},
		{"nobody", Change{From: conf, Remove: []uint64{9}}, ErrBadPlan},
		{"a voter promoted", Change{From: conf, Promote: []uint64{2}}, ErrBadPlan},
		{"add and remove", Change{From: conf, Add: []persistence.Member{{Replica: 4, Node: 4}}, Remove: []uint64{3}}, ErrBadPlan},
		{"a second replica of a node", Change{From: conf, Add: []persistence.Member{{Replica: 4, Node: 2}}}, ErrBadPlan},
		{"a used id", Change{From: conf, Add: []persistence.Member{{Replica: 3, Node: 4}}}, ErrRetired},
		{"the one that lives", Change{From: conf, Remove: []uint64{2}}, ErrNoQuorum},
		{"the silent one", Change{From: conf, Remove: []uint64{3}}, nil},
		{"one more", Change{From: conf, Remove: []uint64{2}}, ErrPending},
	} {
		if err := s.host.Change(1, tt.c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := s.host.Change(2, Change{From: conf, Remove: []uint64{3}}); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a group that is led elsewhere: %v", err)
	}
	s.answer()
	if st, _ = s.host.Status(1); !slices.Equal(st.State.Conf.GetVoters(), []uint64{1, 2}) {
		t.Errorf("configuration %v", st.State.Conf)
	}
	if want := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 3}}; !slices.Equal(st.State.Members, want) {
		t.Errorf("members %v", st.State.Members)
	}
}

// TestSnapshotOnDemand gives a follower that needs what the log lost a snapshot of what is applied at that moment.
func TestSnapshotOnDemand(t *testing.T) {
	s, term := lead(t, HostConfig{LogEntries: 16})
	for seq := range uint64(40) {
		_ = s.host.Propose(0, term, seq+1, 0, puts(1, 1))
		s.answer()
	}
	st, _ := s.host.Status(1)
	back := &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: new(term)}
	s.host.Receive(3, 1, back)
	turn := s.turn()
	var snap *raftpb.Message
	for _, m := range turn.Before {
		if m.Raft.GetType() == raftpb.MsgSnap {
			snap = m.Raft
		}
	}
	if meta := snap.GetSnapshot().GetMetadata(); meta.GetIndex() != st.State.Applied || meta.GetConfState().Equivalent(st.State.Conf) != nil {
		t.Fatalf("snapshot %v, applied %d", meta, st.State.Applied)
	}
	s.host.SnapshotSent(1, 3, false)
	s.settle()
	s.host.Refuse("full")
	s.host.Receive(3, 1, back)
	for s.host.Busy() {
		for _, m := range s.turn().Before {
			if m.Raft.GetType() == raftpb.MsgSnap {
				t.Error("a snapshot from a full disk")
			}
		}
	}
}

// TestReadWaitsForTheApply asks when an entry is committed and not yet applied.
func TestReadWaitsForTheApply(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	term := s.open(0)
	_ = s.host.Propose(0, term, 1, 0, puts(1, 1))
	s.turn() // the append: it is committed now
	_ = s.host.Read(0, 5)
	events := s.settle()
	done := slices.IndexFunc(events, func(e Event) bool { _, ok := e.(Committed); return ok })
	if read := slices.Index(events, Event(ReadReady{Shard: 0, ID: 5})); done < 0 || read < done {
		t.Errorf("events %v", events)
	}
}

// TestLiveFollowerHoldsTheLog keeps what a live follower lacks, but no more than the bound.
func TestLiveFollowerHoldsTheLog(t *testing.T) {
	s, term := lead(t, HostConfig{LogEntries: 32})
	s.host.Receive(3, 1, &raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: new(term)})
	for seq := range uint64(100) {
		_ = s.host.Propose(0, term, seq+1, 0, puts(1, 1))
		s.answer()
		st, _ := s.host.Status(1)
		kept := st.Last - st.State.Truncated
		if seq == 28 && st.State.Truncated != 1 {
			t.Errorf("the log kept %d entries only", kept)
		}
		if kept > 33 {
			t.Fatalf("the log keeps %d entries", kept)
		}
	}
}
