package persistence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

var silent = slog.New(slog.DiscardHandler)

// small makes flushes and compactions happen with little data.
func small(fs vfs.FS) Options {
	return Options{FS: fs, Create: &Identity{Node: 7, Name: "n7", Cluster: "c"}, Cache: 1 << 20, Memtable: 256 << 10, Logger: silent}
}

func openMem(t testing.TB) *Store {
	return openOn(t, vfs.NewMem(), "data")
}

// watchedTests have a check for leaked goroutines.
var watchedTests = map[testing.TB]bool{}

// openOn opens a store that is closed when the test ends, and no goroutine stays.
func openOn(t testing.TB, fs vfs.FS, dir string) *Store {
	t.Helper()
	if !watchedTests[t] {
		watchedTests[t] = true
		before := goleak.IgnoreCurrent()
		t.Cleanup(func() { goleak.VerifyNone(t, before) })
	}
	s, err := Open(dir, small(fs))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.db == nil {
			return
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func entry(index, term uint64, data string) *raftpb.Entry {
	kind := raftpb.EntryNormal
	e := &raftpb.Entry{Index: &index, Term: &term, Type: &kind}
	if data != "" {
		e.Data = []byte(data)
	}
	return e
}

func entries(lo, hi, term uint64, data string) (es []*raftpb.Entry) {
	for i := lo; i <= hi; i++ {
		es = append(es, entry(i, term, fmt.Sprintf("%s%d", data, i)))
	}
	return es
}

func put(key, value string) Op { return Op{Key: []byte(key), Value: []byte(value)} }
func del(key string) Op        { return Op{Key: []byte(key)} }
func delRange(from, to string) Op {
	return Op{Key: []byte(from), End: []byte(to)}
}

func voters(ids ...uint64) *raftpb.ConfState { return &raftpb.ConfState{Voters: ids} }

// model is the whole key space as a map. Its keys are built here once more, by hand,
// so that it shares nothing with the code it checks but the codecs of values.
type model map[string]string

func modelKey(group uint32, rest ...byte) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{3}, group), rest...))
}

func modelLog(group uint32, i uint64) string {
	return modelKey(group, binary.BigEndian.AppendUint64([]byte{3}, i)...)
}

func (m model) deleteIf(f func(key string) bool) {
	maps.DeleteFunc(m, func(k, _ string) bool { return f(k) })
}

func (m model) apply(us []Update) {
	for _, u := range us {
		logPrefix, all := modelKey(u.Group, 3), modelKey(u.Group)
		if u.Destroy != 0 {
			m.deleteIf(func(k string) bool { return strings.HasPrefix(k, all) })
			key := string(binary.BigEndian.AppendUint32([]byte{2}, u.Group))
			next := u.Destroy
			if old, ok := m[key]; ok {
				n, _ := binary.Uvarint([]byte(old)[1:])
				next = max(next, n)
			}
			m[key] = string(encodeTombstone(next))
			continue
		}
		if len(u.Entries) > 0 {
			from := modelLog(u.Group, u.Entries[0].GetIndex())
			m.deleteIf(func(k string) bool { return strings.HasPrefix(k, logPrefix) && k >= from })
			for _, e := range u.Entries {
				m[modelLog(u.Group, e.GetIndex())] = string(appendEntry(nil, e))
			}
		}
		if u.Truncate != 0 {
			upto := modelLog(u.Group, u.Truncate)
			m.deleteIf(func(k string) bool { return strings.HasPrefix(k, logPrefix) && k <= upto })
		}
		for _, op := range u.Ops {
			key := modelKey(u.Group, 4) + string(op.Key)
			switch {
			case op.End != nil:
				end := modelKey(u.Group, 4) + string(op.End)
				m.deleteIf(func(k string) bool { return k >= key && k < end })
			case op.Value == nil:
				delete(m, key)
			default:
				m[key] = string(op.Value)
			}
		}
		if u.State != nil {
			m[modelKey(u.Group, 2)] = string(encodeState(u.State))
		}
		if u.Hard != nil {
			m[modelKey(u.Group, 1)] = string(encodeHard(u.Hard))
		}
	}
}

func (m model) ingest(in *ingestion) {
	all := modelKey(in.group)
	m.deleteIf(func(k string) bool { return strings.HasPrefix(k, all) })
	for k, v := range in.rows {
		m[modelKey(in.group, 4)+k] = v
	}
	st := in.state
	st.Replica, st.Truncated, st.TruncatedTerm = in.replica, st.Applied, st.AppliedTerm
	m[modelKey(in.group, 1)] = string(encodeHard(hardState(in.term, in.vote, st.Applied)))
	m[modelKey(in.group, 2)] = string(encodeState(&st))
}

// dump reads everything but the identity.
func dump(s *Store) (model, error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	m := model{}
	for ok := it.First(); ok; ok = it.Next() {
		if it.Key()[0] != spaceStore {
			m[string(it.Key())] = string(it.Value())
		}
	}
	return m, it.Close()
}

func diff(got, want model) string {
	var b strings.Builder
	n := 0
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[k]; (!ok || g != want[k]) && n < 5 {
			fmt.Fprintf(&b, "want %x = %.40x, have %.40x (%v)\n", k, want[k], g, ok)
			n++
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[k]; !ok && n < 5 {
			fmt.Fprintf(&b, "have %x = %.40x, which nobody wrote\n", k, got[k])
			n++
		}
	}
	return b.String()
}

// ingestion is a snapshot to be received and ingested.
type ingestion struct {
	group               uint32
	state               State // of the sender
	rows                map[string]string
	term, vote, replica uint64
}

// stream makes the snapshot on a store of its own.
func (in *ingestion) stream(t testing.TB) []byte {
	t.Helper()
	src := openMem(t)
	st := in.state
	st.Replica, st.Truncated, st.TruncatedTerm = 99, st.Applied, st.AppliedTerm
	us := []Update{{Group: in.group, State: &st, Hard: hardState(st.AppliedTerm+5, 99, st.Applied)}}
	for k, v := range in.rows {
		us[0].Ops = append(us[0].Ops, put(k, v))
	}
	if err := src.Write(us, false); err != nil {
		t.Fatal(err)
	}
	snap, err := src.Snapshot(in.group)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := snap.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(snap.Close(), src.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// step is one operation on a store and on the model.
type step struct {
	name    string
	us      []Update
	sync    bool
	flush   bool
	compact bool
	ingest  *ingestion
	bytes   []byte // of ingest's stream
}

func (p *step) run(s *Store) error {
	switch {
	case p.flush:
		return s.db.Flush()
	case p.compact:
		return s.db.Compact(background, []byte{0}, []byte{9}, false)
	case p.ingest != nil:
		staged, err := s.Receive(bytes.NewReader(p.bytes))
		if err != nil {
			return err
		}
		return s.Ingest(staged, p.ingest.term, p.ingest.vote, p.ingest.replica)
	}
	return s.Write(p.us, p.sync)
}

func (p *step) model(m model) {
	if p.ingest != nil {
		m.ingest(p.ingest)
		return
	}
	m.apply(p.us)
}

// durable says whether the step, once it returned, and all before it must survive.
func (p *step) durable() bool { return p.sync || p.flush || p.compact || p.ingest != nil }

func hasCode(err error, code Code) bool { return errors.Is(err, code) }
