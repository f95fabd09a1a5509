package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
	"muster/persistence/memdisk"
)

// bench is a Host on a store, driven by hand.
type stand struct {
	t     *testing.T
	store *persistence.Store
	host  *Host
	syncs int
	turns []*Turn
}

func newStand(t *testing.T, voters int, cfg HostConfig) *stand {
	t.Helper()
	n := &testNode{t: t, id: 1, fs: memdisk.New(), dir: "data"}
	store, err := persistence.Open(n.dir, n.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	var members []persistence.Member
	for id := range uint64(voters) {
		members = append(members, persistence.Member{Replica: id + 1, Node: id + 1})
	}
	if err := Birth(store, 2, members, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	cfg.Node = 1
	s := &stand{t: t, store: store}
	if s.host, err = NewHost(cfg, store); err != nil {
		t.Fatal(err)
	}
	return s
}

// turn does one turn.
func (s *stand) turn() *Turn {
	s.t.Helper()
	turn := s.host.Turn()
	if err := s.store.Write(turn.Updates, turn.Sync); err != nil {
		s.t.Fatal(err)
	}
	if turn.Sync {
		s.syncs++
	}
	s.host.Wrote(turn)
	s.turns = append(s.turns, turn)
	return turn
}

// settle does all turns there are and returns their events.
func (s *stand) settle() (events []Event) {
	s.t.Helper()
	s.syncs = 0
	for s.host.Busy() {
		t := s.turn()
		events = append(append(events, t.Closed...), t.Events...)
	}
	return events
}

func (s *stand) open(shard uint32) uint64 {
	s.t.Helper()
	for _, e := range s.settle() {
		if o, ok := e.(Opened); ok && o.Shard == shard {
			return o.Term
		}
	}
	s.t.Fatal("not opened")
	return 0
}

func puts(n, size int) (ops []persistence.Op) {
	for i := range n {
		ops = append(ops, persistence.Op{Key: fmt.Append(nil, "k", i), Value: bytes.Repeat([]byte("x"), size)})
	}
	return ops
}

func committed(events []Event) (cs []Committed) {
	for _, e := range events {
		if c, ok := e.(Committed); ok {
			cs = append(cs, c)
		}
	}
	return cs
}

func TestGroupCommitTakesOneEntryAndOneSync(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	term := s.open(0)
	if term != 1_700_000_001 {
		t.Errorf("first term %d", term)
	}
	before, _ := s.host.Status(1)
	for seq := range uint64(10) {
		if err := s.host.Propose(0, term, seq+1, 1_700_000_123_000, puts(2, 10)); err != nil {
			t.Fatal(err)
		}
	}
	events := s.settle()
	after, _ := s.host.Status(1)
	if after.Last != before.Last+1 || s.syncs != 1 {
		t.Errorf("10 proposals took %d entries and %d syncs", after.Last-before.Last, s.syncs)
	}
	if want := (Committed{Shard: 0, Term: term, Seq: 10, Index: after.Last}); !slices.Equal(committed(events), []Committed{want}) {
		t.Errorf("committed %v, want %v", committed(events), want)
	}
	if after.State.At != 1_700_000_123_000 || s.host.budget.all.Load() != 0 {
		t.Errorf("shard time %d, %d bytes in flight", after.State.At, s.host.budget.all.Load())
	}
	if v, ok, _ := s.store.Get(0, []byte("k1")); !ok || len(v) != 10 {
		t.Error("the row is not there")
	}
}

func TestRowsDoNotWaitForTheNextSync(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	term := s.open(0)
	_ = s.host.Propose(0, term, 1, 0, puts(1, 1))
	if first := s.turn(); !first.Sync || len(first.Events) != 0 {
		t.Fatalf("the append: sync %v, events %v", first.Sync, first.Events)
	}
	_ = s.host.Propose(0, term, 2, 0, puts(1, 1))
	second := s.turn()
	if second.Sync || len(committed(second.Events)) != 1 || committed(second.Events)[0].Seq != 1 {
		t.Errorf("the apply: sync %v, events %v", second.Sync, second.Events)
	}
	if third := s.turn(); !third.Sync || len(third.Updates[0].Entries) != 1 {
		t.Errorf("the next append: sync %v, updates %v", third.Sync, third.Updates)
	}
}

func TestSizes(t *testing.T) {
	s := newStand(t, 1, HostConfig{ShardInFlight: 2 << 20})
	term := s.open(0)
	before, _ := s.host.Status(1)
	for seq := range uint64(10) { // 200 kB: no entry over 64 KiB
		if err := s.host.Propose(0, term, seq+1, 0, puts(1, 20_000)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(committed(s.settle())); n != 4 {
		t.Errorf("%d entries", n)
	}
	after, _ := s.host.Status(1)
	es, err := s.store.Entries(1, before.Last+1, after.Last+1, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if len(e.GetData()) > maxGrouped {
			t.Errorf("an entry of %d bytes", len(e.GetData()))
		}
	}
	if err := s.host.Propose(0, term, 11, 0, puts(1, 1_000_000)); err != nil {
		t.Error("one command of nearly 1 MiB:", err)
	}
	if err := s.host.Propose(0, term, 12, 0, puts(1, 1<<20)); !errors.Is(err, ErrTooLarge) {
		t.Error("more than 1 MiB:", err)
	}
	if err := s.host.Propose(0, term, 12, 0, puts(1, 1_000_000)); err != nil {
		t.Error("a second one:", err)
	}
	if err := s.host.Propose(0, term, 13, 0, puts(1, 1_000_000)); !errors.Is(err, ErrBusy) {
		t.Error("beyond what may be in flight:", err)
	}
	if err := s.host.Propose(1, term, 1, 0, puts(1, 1)); err != nil {
		t.Error("another shard:", err)
	}
	s.settle()
	if err := s.host.Propose(0, term, 13, 0, puts(1, 1_000_000)); err != nil {
		t.Error("after the commit:", err)
	}
	if err := s.host.Propose(0, term-1, 1, 0, nil); !errors.Is(err, ErrNotLeader) {
		t.Error("another term:", err)
	}
}

func TestApplyDropsAnotherTerm(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	term := s.open(0)
	stray := command{term: term - 1, seq: 9, ops: puts(1, 1)}
	if err := s.host.groups[1].raft.Propose(stray.encode()); err != nil {
		t.Fatal(err)
	}
	s.host.touch(s.host.groups[1])
	if events := s.settle(); len(committed(events)) != 0 {
		t.Errorf("events %v", events)
	}
	if _, ok, _ := s.store.Get(0, []byte("k0")); ok {
		t.Error("a command of another term was applied")
	}
}

func TestReplicasThatDifferPanic(t *testing.T) {
	s := newStand(t, 1, HostConfig{CompareEvery: 4})
	term := s.open(0)
	for seq := range uint64(5) {
		_ = s.host.Propose(0, term, seq+1, 0, puts(1, 1))
		s.settle()
	}
	g := s.host.groups[1]
	if g.marks[0].index == 0 || g.compared == 0 {
		t.Fatalf("marks %v, compared up to %d", g.marks, g.compared)
	}
	defer func() {
		if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "I2") {
			t.Errorf("panic %v", p)
		}
	}()
	lie := command{term: term, seq: 6, mark: mark{g.marks[0].index, g.marks[0].hash + 1}}
	_ = g.raft.Propose(lie.encode())
	s.host.touch(g)
	s.settle()
}

func TestLogIsTruncated(t *testing.T) {
	s := newStand(t, 1, HostConfig{LogEntries: 32, LogBytes: 10_000})
	term := s.open(0)
	seq := uint64(0)
	write := func(n, size int) {
		for range n {
			seq++
			if err := s.host.Propose(0, term, seq, 0, puts(1, size)); err != nil {
				t.Fatal(err)
			}
			s.settle()
			st, _ := s.host.Status(1)
			if kept := st.Last - st.State.Truncated; kept > 33 {
				t.Fatalf("the log keeps %d entries", kept)
			}
		}
	}
	write(200, 1)
	write(50, 2_000)
	st, _ := s.host.Status(1)
	if kept := st.Last - st.State.Truncated; kept > 6 {
		t.Errorf("the log keeps %d entries of 2 kB", kept)
	}
	if _, _, first, last, err := s.store.Load(1); err != nil || first != st.State.Truncated+1 || last != st.Last {
		t.Errorf("on the disk [%d, %d], %v", first, last, err)
	}
	if host, err := NewHost(HostConfig{Node: 1}, s.store); err != nil {
		t.Error(err)
	} else if got, _ := host.Status(1); got.Last != st.Last || got.State.Hash != st.State.Hash {
		t.Errorf("loaded %+v, was %+v", got, st)
	}
}

func TestLogServesTailAndDisk(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	term := s.open(0)
	for seq := range uint64(20) {
		_ = s.host.Propose(0, term, seq+1, 0, puts(1, 40_000))
		s.settle()
	}
	l := s.host.groups[1].log
	if l.tailBytes > maxTail || len(l.tail) == 0 || l.tail[0].GetIndex() == l.before+1 {
		t.Fatalf("tail of %d entries, %d bytes", len(l.tail), l.tailBytes)
	}
	for lo := l.before + 1; lo <= l.last; lo++ {
		es, err := l.Entries(lo, l.last+1, 1<<30)
		if err != nil || uint64(len(es)) != l.last+1-lo || es[0].GetIndex() != lo {
			t.Fatalf("entries from %d: %d, %v", lo, len(es), err)
		}
		if one, err := l.Entries(lo, l.last+1, 0); err != nil || len(one) != 1 {
			t.Errorf("at least one entry: %d, %v", len(one), err)
		}
		if got, err := l.Term(lo); err != nil || got != es[0].GetTerm() {
			t.Errorf("term of %d: %d, %v", lo, got, err)
		}
	}
}

func TestSuspectsAreForgottenByRank(t *testing.T) {
	s := newStand(t, 3, HostConfig{})
	if at, ok := s.host.Deadline(); !ok || at != campaignStart {
		t.Errorf("at the start %v, %v", at, ok)
	}
	heartbeat := func() {
		for group := range uint32(3) {
			s.host.Receive(2, group, &raftpb.Message{
				Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(1_700_000_005)),
			})
		}
	}
	heartbeat()
	s.settle()
	if at, ok := s.host.Deadline(); ok {
		t.Errorf("a follower is to campaign at %v", at)
	}
	s.host.Wake(time.Second)
	s.host.Suspect(2)
	heartbeat() // of a suspect: dropped
	s.settle()
	var ranks []time.Duration
	for group := range uint32(3) {
		if st, _ := s.host.Status(group); st.Leader != 0 {
			t.Errorf("group %d has leader %d", group, st.Leader)
		}
		ranks = append(ranks, s.host.groups[group].campaignAt-time.Second)
	}
	if want := []time.Duration{20 * time.Millisecond, 120 * time.Millisecond, 20 * time.Millisecond}; !slices.Equal(ranks, want) {
		t.Errorf("campaigns in %v, want %v", ranks, want)
	}
	at, _ := s.host.Deadline()
	s.host.Wake(at)
	s.settle()
	votes := 0
	for _, turn := range s.turns {
		for _, m := range turn.After {
			if m.Raft.GetType() == raftpb.MsgPreVote {
				votes++
			}
		}
	}
	if votes != 4 { // two groups, two others
		t.Errorf("%d pre-votes", votes)
	}
	if again := s.host.groups[0].campaignAt - at; again < campaignAgain || again > campaignAgain*3/2 {
		t.Errorf("again after %v", again)
	}
	s.host.Trust(2)
	heartbeat()
	s.settle()
	if at, ok := s.host.Deadline(); ok {
		t.Errorf("the leader is back, a campaign at %v", at)
	}
}

func TestInputBetweenTurnAndWrotePanics(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	s.host.Turn()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	s.host.Tick()
}

func TestStrangeMessagesAreDropped(t *testing.T) {
	s := newStand(t, 3, HostConfig{})
	s.settle()
	term := new(uint64(1_800_000_000))
	for what, m := range map[string]*raftpb.Message{
		"another replica": {Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(9)), From: new(uint64(2)), Term: term},
		"another sender":  {Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(3)), Term: term},
		"a proposal":      {Type: raftpb.MsgProp.Enum(), To: new(uint64(1)), From: new(uint64(2)), Entries: []*raftpb.Entry{{Data: []byte("x")}}},
		"a local message": {Type: raftpb.MsgHup.Enum(), To: new(uint64(1)), From: new(uint64(2))},
		"bad snapshot":    {Type: raftpb.MsgSnap.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: term, Snapshot: &raftpb.Snapshot{Data: []byte("x")}},
	} {
		s.host.Receive(2, 1, m)
		if s.host.Busy() {
			t.Errorf("%s was taken", what)
		}
		s.settle()
	}
}

func TestCreateAndDestroy(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	s.settle()
	if err := s.host.Create(7, 5); err != nil {
		t.Fatal(err)
	}
	if s.settle(); s.syncs != 1 {
		t.Errorf("%d syncs", s.syncs)
	}
	s.host.Destroy(7, 0)
	if events := s.settle(); !slices.Contains(events, Event(Removed{Group: 7, Replica: 5})) {
		t.Errorf("events %v", events)
	}
	for replica, want := range map[uint64]error{4: ErrRetired, 5: ErrRetired, 6: nil} {
		if err := s.host.Create(7, replica); !errors.Is(err, want) {
			t.Errorf("replica %d: %v", replica, err)
		}
		s.settle()
	}
	if tomb, err := s.store.Tombstones(); err != nil || tomb[7] != 6 {
		t.Errorf("tombstones %v, %v", tomb, err)
	}
}

func TestStay(t *testing.T) {
	ms := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 3, Node: 3}}
	got := stay(ms, &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}})
	if want := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 3}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	got = stay(append(got, persistence.Member{Replica: 4, Node: 3}), &raftpb.ConfState{Voters: []uint64{1, 4}})
	if want := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 4, Node: 3}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestLoopIsSmall keeps the part that has to be understood at once short.
func TestLoopIsSmall(t *testing.T) {
	lines := 0
	for _, file := range []string{"host.go", "turn.go", "group.go", "apply.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines += bytes.Count(b, []byte("\n"))
	}
	if lines == 0 || lines > 1000 {
		t.Errorf("the loop has %d lines", lines)
	}
}
