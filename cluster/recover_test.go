package cluster

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"muster/persistence"
	"muster/persistence/memdisk"
)

// generations notes with which generation each shard opened last.
type generations struct {
	Leading
	mu *sync.Mutex
	of map[uint32]uint64
}

func (g generations) Opened(shard uint32, term, generation uint64, at int64) {
	g.mu.Lock()
	g.of[shard] = generation
	g.mu.Unlock()
	g.Leading.Opened(shard, term, generation, at)
}

// TestRecover has one of three nodes survive a power loss, serve alone, and the dead come back after all.
func TestRecover(t *testing.T) {
	const shards = 3
	mu, of := &sync.Mutex{}, map[uint32]uint64{}
	c := newCluster(t, 3, 3, shards, nil)
	for _, n := range c.nodes {
		n.config = func(cfg *EngineConfig) { cfg.Leading = generations{n, mu, of} }
	}
	c.start()
	for i := range 100 {
		c.put(uint32(i%shards), fmt.Sprint("k", i), "v")
	}
	last := c.nodes[2]
	for i := range 100 {
		eventually(t, "replicated", func() bool { return last.get(uint32(i%shards), fmt.Sprint("k", i)) == "v" })
	}
	term := map[uint32]uint64{}
	for group := range uint32(shards + 1) {
		st, err := last.engine.Status(group)
		if err != nil {
			t.Fatal(err)
		}
		term[group] = st.Term
	}
	if _, err := persistence.Open(last.dir, last.options()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a directory in use: %v", err)
	}
	for _, n := range c.nodes {
		n.crash()
	}
	store, err := persistence.Open(last.dir, last.options())
	if err != nil {
		t.Fatal(err)
	}
	for group := range uint32(shards + 1) {
		r, err := Recover(store, group, time.Unix(1_700_001_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		if r.Generation != 2 || r.Term <= term[group]+1000 || !slices.Equal(r.Voters, []uint64{1, 2, 3}) || r.Was != 3 || r.Replica <= 3 || r.Node != 3 {
			t.Errorf("%+v", r)
		}
		if all, err := Recoveries(store, group); err != nil || len(all) != 1 || fmt.Sprint(all[0]) != fmt.Sprint(r) {
			t.Errorf("records %+v, %v", all, err)
		}
		if _, err := Recover(store, group, time.Now()); err == nil || !strings.Contains(err.Error(), "only voter") {
			t.Errorf("a second recovery: %v", err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		n.log = newAudit(t) // the survivor's history is another one from here on
	}
	last.start(shards, nil)
	for shard := range uint32(shards) {
		c.leader(shard)
		mu.Lock()
		if of[shard] != 2 {
			t.Errorf("shard %d opened with generation %d", shard, of[shard])
		}
		mu.Unlock()
	}
	for i := range 100 {
		if last.get(uint32(i%shards), fmt.Sprint("k", i)) != "v" {
			t.Errorf("k%d is gone", i)
		}
	}
	c.nodes[0].start(shards, nil) // against all advice, before group 0 has them destroyed
	c.nodes[1].start(shards, nil)
	for shard := range uint32(shards) {
		c.leader(shard, last)
		for i := range 20 {
			eventually(t, "put", func() bool { return last.put(shard, fmt.Sprint("new", i), "v") == nil })
		}
	}
	for shard := range uint32(shards) {
		if st, err := last.engine.Status(shard + 1); err != nil || st.Open == 0 || st.State.Generation != 2 {
			t.Errorf("the dead disturb the survivor: %+v, %v", st, err)
		}
	}
	grow(t, c, last)
}

// grow puts a fresh replica beside the survivor's.
func grow(t *testing.T, c *testCluster, last *testNode) {
	n := c.nodes[0]
	if err := n.engine.Destroy(1, replicaLeap); err != nil {
		t.Fatal(err)
	}
	st, err := last.engine.Status(1)
	if err != nil {
		t.Fatal(err)
	}
	fresh := persistence.Member{Replica: st.State.Replica + 1, Node: n.id}
	if err := last.engine.Change(1, Change{From: st.State.Conf, Add: []persistence.Member{fresh}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "created", func() bool { return n.engine.Create(1, fresh.Replica) == nil })
	eventually(t, "the new replica has all", func() bool { return n.get(0, "new19") == "v" && n.get(0, "k99") == "v" })
	all, err := Recoveries(n.store, 1)
	if err != nil || len(all) != 1 {
		t.Errorf("the record does not replicate: %v, %v", all, err)
	}
}

// TestRecoverTail keeps what may have been acknowledged, and forgets changes that name the dead.
func TestRecoverTail(t *testing.T) {
	store, err := persistence.Open("data", (&testNode{t: t, id: 1, fs: memdisk.New()}).options())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	members := []persistence.Member{{Replica: 1, Node: 1}, {Replica: 2, Node: 2}, {Replica: 3, Node: 3}}
	if err := Birth(store, 1, members, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	change := (&Change{Remove: []uint64{1}}).raft()
	data, err := proto.Marshal(change)
	if err != nil {
		t.Fatal(err)
	}
	term := uint64(1_700_000_005)
	command := func(seq uint64, m mark) []byte {
		c := command{term: term, seq: seq, mark: m, ops: puts(int(seq), 1)}
		return c.encode()
	}
	err = store.Write([]persistence.Update{{Group: 1, Hard: &raftpb.HardState{Term: new(term), Vote: new(uint64(2)), Commit: new(uint64(3))}, Entries: []*raftpb.Entry{
		{Index: new(uint64(2)), Term: new(term)},
		{Index: new(uint64(3)), Term: new(term), Data: command(1, mark{})},
		{Index: new(uint64(4)), Term: new(term), Type: raftpb.EntryConfChangeV2.Enum(), Data: data},
		{Index: new(uint64(5)), Term: new(term), Data: command(2, mark{index: 4, hash: 1})},
	}}}, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(store, 1, time.Unix(1_700_000_100, 0)); err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t, store: store}
	if s.host, err = NewHost(HostConfig{Node: 1, CompareEvery: 1}, store); err != nil {
		t.Fatal(err)
	}
	if opened := s.open(0); opened != term+termLeap+1 {
		t.Errorf("opened at term %d", opened)
	}
	if _, ok, _ := store.Get(0, []byte("k1")); !ok {
		t.Error("an entry that may have been acknowledged is gone")
	}
	st, err := s.host.Status(1)
	if err != nil || st.State.Applied != 6 || !slices.Equal(st.State.Conf.GetVoters(), []uint64{3 + replicaLeap}) || st.State.Generation != 2 {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := Recover(store, 9, time.Now()); err == nil {
		t.Error("a group that is not here was recovered")
	}
}

func TestRecoverEmptyReplica(t *testing.T) {
	s := newStand(t, 1, HostConfig{})
	s.settle()
	if err := s.host.Create(7, 5); err != nil {
		t.Fatal(err)
	}
	s.settle()
	if _, err := Recover(s.store, 7, time.Now()); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty replica: %v", err)
	}
}
