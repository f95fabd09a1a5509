package persistence

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

func TestFirst(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s, err := Open("data", Options{FS: fs, Create: &Identity{Node: 1}})
	if err != nil {
		t.Fatal(err)
	}
	e := func(i, term uint64) *raftpb.Entry { return &raftpb.Entry{Index: &i, Term: &term, Data: []byte("x")} }
	if err := s.Write([]Update{{Group: 1, State: &State{Replica: 1, Applied: 1, AppliedTerm: 3}, Hard: hardState(3, 1, 1), Entries: []*raftpb.Entry{e(1, 3), e(2, 3)}, Ops: []Op{{Key: []byte("a"), Value: []byte("b")}}}}, true); err != nil {
		t.Fatal(err)
	}
	t.Log(s.Load(1))
	t.Log(s.Entries(1, 1, 3, 100))
	t.Log(s.Get(0, []byte("a")))
	t.Log(fs.String())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = Open("data", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(s.Load(1))
	t.Log(position(s.db))
	t.Log(position(s.db))
	t.Log(s.Close())
}
