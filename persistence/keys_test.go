package persistence

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// TestGoldenKeys pins the outer keys: a change here cannot read old directories.
func TestGoldenKeys(t *testing.T) {
	span := func(from, to []byte) []byte { return append(append(from, '-'), to...) }
	for _, c := range []struct {
		name string
		key  []byte
		want string
	}{
		{"identity", identityKey(), "0101"},
		{"tombstone of group 5", tombstoneKey(5), "0200000005"},
		{"hard state of group 0", hardKey(0), "030000000001"},
		{"state of group 1", stateKey(1), "030000000102"},
		{"entry 258 of group 1", logKey(1, 258), "0300000001030000000000000102"},
		{"last entry of the last group", logKey(1<<32-1, 1<<64-1), "03ffffffff03ffffffffffffffff"},
		{"row of group 64", rowKey(64, []byte("u\x03app")), "03000000400475036170" + "70"},
		{"empty row key", rowKey(2, nil), "030000000204"},
		{"span of group 255", span(groupSpan(255)), "03000000ff" + "2d" + "0300000100"},
		{"span of the last group", span(groupSpan(1<<32 - 1)), "03ffffffff" + "2d" + "04"},
		{"span of group 3's log", span(partSpan(3, partLog)), "030000000303" + "2d" + "030000000304"},
	} {
		if got := hex.EncodeToString(c.key); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestKeyOrder: what a snapshot's receiver builds sorts before the rows, entries sort
// by index, groups by number.
func TestKeyOrder(t *testing.T) {
	keys := [][]byte{identityKey(), tombstoneKey(0), tombstoneKey(9), hardKey(0), stateKey(0), logKey(0, 1), logKey(0, 255), logKey(0, 256),
		rowKey(0, nil), rowKey(0, []byte{0}), rowKey(0, []byte{255, 255}), hardKey(1), rowKey(1, []byte{1}), hardKey(256)}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Fatal("the keys are out of order")
	}
}

// TestGoldenValues pins the codecs.
func TestGoldenValues(t *testing.T) {
	yes := true
	full := State{Applied: 300, AppliedTerm: 4, Truncated: 200, TruncatedTerm: 3, Replica: 7, Generation: 2, Hash: 0x0102030405060708, At: -5,
		Members: []Member{{Replica: 7, Node: 1}, {Replica: 8, Node: 300}},
		Conf:    &raftpb.ConfState{Voters: []uint64{7, 8}, Learners: []uint64{9}, VotersOutgoing: []uint64{6}, LearnersNext: []uint64{5}, AutoLeave: &yes}}
	kind := raftpb.EntryConfChangeV2
	conf := entry(9, 300, "xy")
	conf.Type = &kind
	for _, c := range []struct {
		name, want string
		got        []byte
	}{
		{"state", "01ac0204c80103070201020304050607080902070108ac02020708010901060105" + "01", encodeState(&full)},
		{"empty state", "01000000000000000000000000000000000000000000", encodeState(&State{})},
		{"hard state", "01ac020705", encodeHard(hardState(300, 7, 5))},
		{"entry", "0100ac026162", appendEntry(nil, entry(1, 300, "ab"))},
		{"configuration entry", "0102ac027879", appendEntry(nil, conf)},
		{"tombstone", "01ac02", encodeTombstone(300)},
		{"mark", "73796e01000000000000012c" + "c66268cf", encodeMark(300)},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	got, err := decodeState(encodeState(&full))
	if err != nil || !reflect.DeepEqual(got, full) {
		t.Errorf("state: %+v %v", got, err)
	}
}

// TestConfStateFields fails when raft gives ConfState a field the codec does not write.
func TestConfStateFields(t *testing.T) {
	if n := (&raftpb.ConfState{}).ProtoReflect().Descriptor().Fields().Len(); n != 5 {
		t.Fatalf("ConfState has %d fields, the codec knows 5", n)
	}
}

func TestNewerValues(t *testing.T) {
	for name, read := range map[string]func(b []byte) error{
		"state":      func(b []byte) error { _, err := decodeState(b); return err },
		"hard state": func(b []byte) error { _, err := decodeHard(b); return err },
		"entry":      func(b []byte) error { _, err := decodeEntry(1, b); return err },
		"tombstone":  func(b []byte) error { _, err := decodeTombstone(b); return err },
	} {
		for _, c := range []struct {
			in   []byte
			want Code
		}{{[]byte{2, 1, 1, 1}, ErrNewer}, {[]byte{255}, ErrNewer}, {nil, ErrCorrupt}, {[]byte{0, 1}, ErrCorrupt}, {[]byte{1}, ErrCorrupt}} {
			if err := read(c.in); !hasCode(err, c.want) {
				t.Errorf("%s %x: %v, want %s", name, c.in, err, c.want)
			}
		}
	}
	if err := func() error { _, err := decodeIdentity([]byte(`{"format":2}`)); return err }(); !hasCode(err, ErrNewer) {
		t.Error(err)
	}
}

func FuzzParseKey(f *testing.F) {
	for _, k := range [][]byte{identityKey(), tombstoneKey(3), hardKey(1), stateKey(2), logKey(3, 4), rowKey(5, []byte("x")), {3}, {9, 9}} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, ok := ParseKey(b)
		if !ok {
			return
		}
		var again []byte
		switch {
		case k.Space == spaceStore:
			again = identityKey()
		case k.Space == spaceTombstone:
			again = tombstoneKey(k.Group)
		case k.Part == partHard:
			again = hardKey(k.Group)
		case k.Part == partState:
			again = stateKey(k.Group)
		case k.Part == partLog:
			again = logKey(k.Group, k.Index)
		case k.Part == partRow:
			again = rowKey(k.Group, k.Inner)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("%x is read as %+v, which is %x", b, k, again)
		}
	})
}

// FuzzValues: whatever a decoder accepts means the same when it is written again.
func FuzzValues(f *testing.F) {
	f.Add(encodeState(&State{Applied: 3, Replica: 1, Members: []Member{{1, 2}}, Conf: voters(1, 2, 3)}))
	f.Add(encodeHard(hardState(1, 2, 3)))
	f.Add(appendEntry(nil, entry(1, 2, "data")))
	f.Add(encodeTombstone(8))
	f.Add(encodeMark(8))
	f.Add([]byte(`{"format":1,"cluster":"c","node":1,"store":"s"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeState(b); err == nil {
			again, err := decodeState(encodeState(&s))
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Fatalf("state %+v, again %+v %v", s, again, err)
			}
		}
		if h, err := decodeHard(b); err == nil {
			if again, err := decodeHard(encodeHard(h)); err != nil || again.String() != h.String() {
				t.Fatalf("hard state %v, again %v %v", h, again, err)
			}
		}
		if e, err := decodeEntry(5, b); err == nil {
			if again, err := decodeEntry(5, appendEntry(nil, e)); err != nil || again.String() != e.String() {
				t.Fatalf("entry %v, again %v %v", e, again, err)
			}
		}
		if n, err := decodeTombstone(b); err == nil {
			if again, err := decodeTombstone(encodeTombstone(n)); err != nil || again != n {
				t.Fatal(n, again, err)
			}
		}
		if n := decodeMark(b); n != 0 && !bytes.Equal(encodeMark(n), b) {
			t.Fatal("mark", n)
		}
		if id, err := decodeIdentity(b); err == nil {
			if again, err := encodeIdentity(id); err != nil {
				t.Fatal(again, err)
			}
		}
	})
}

// The place for an entry's value is made before the value.
func TestEntrySize(t *testing.T) {
	for shift := range 64 {
		for _, term := range []uint64{0, 1<<shift - 1, 1 << shift} {
			e := &raftpb.Entry{Term: &term, Data: []byte("data")}
			if n := len(appendEntry(nil, e)); n != entrySize(e) {
				t.Errorf("term %d: %d bytes, not %d", term, n, entrySize(e))
			}
		}
	}
}
