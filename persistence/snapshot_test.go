package persistence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// seeded writes a group with n rows of 100 bytes.
func seeded(t testing.TB, s *Store, group uint32, n int, applied uint64) model {
	t.Helper()
	u := Update{Group: group, State: &State{Applied: applied, AppliedTerm: 3, Truncated: applied, TruncatedTerm: 3, Replica: 5,
		Conf: voters(5, 6), Members: []Member{{5, 1}, {6, 2}}, Hash: 77, At: 88, Generation: 2}, Hard: hardState(40, 6, applied)}
	for i := range n {
		u.Ops = append(u.Ops, put(fmt.Sprintf("r%06d", i), strings.Repeat("v", 100)))
	}
	if err := s.Write([]Update{u}, true); err != nil {
		t.Fatal(err)
	}
	m, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func send(t testing.TB, s *Store, group uint32) []byte {
	t.Helper()
	p, err := s.Snapshot(group)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var b bytes.Buffer
	n, err := p.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatal(n, err)
	}
	return b.Bytes()
}

// TestIngestOwnRows: the receiver's hard state is made of its own term and vote, never
// the sender's; its log is empty and its replica id its own.
func TestIngestOwnRows(t *testing.T) {
	src, dst := openMem(t), openMem(t)
	seeded(t, src, 1, 5000, 900)
	if err := dst.Write([]Update{{Group: 1, State: &State{Replica: 9}, Hard: hardState(41, 9, 0), Entries: entries(1, 50, 2, "old"), Ops: []Op{put("old", "row")}}}, true); err != nil {
		t.Fatal(err)
	}
	staged, err := dst.Receive(iotest.OneByteReader(bytes.NewReader(send(t, src, 1))))
	if err != nil {
		t.Fatal(err)
	}
	if err := dst.Ingest(staged, 41, 9, 9); err != nil {
		t.Fatal(err)
	}
	hard, st, first, last, err := dst.Load(1)
	if err != nil || hard.GetTerm() != 41 || hard.GetVote() != 9 || hard.GetCommit() != 900 || first != 901 || last != 900 {
		t.Fatalf("%v [%d, %d] %v", hard, first, last, err)
	}
	if st.Replica != 9 || st.Truncated != 900 || st.TruncatedTerm != 3 || st.Applied != 900 || st.AppliedTerm != 3 || st.Hash != 77 || st.At != 88 ||
		st.Generation != 2 || len(st.Conf.GetVoters()) != 2 || len(st.Members) != 2 {
		t.Fatalf("%+v", st)
	}
	if _, ok, _ := dst.Get(0, []byte("old")); ok {
		t.Error("a row from before the snapshot is still there")
	}
	if kinds, err := dst.Count(1); err != nil || len(kinds) != 1 || kinds[0] != (Kind{Byte: 'r', Rows: 5000, KeyBytes: 35000, Values: 500_000}) {
		t.Errorf("%+v %v", kinds, err)
	}
	if names, err := dst.fs.List(dst.path(stagedDir)); err != nil || len(names) != 0 {
		t.Errorf("staged files stay: %v %v", names, err)
	}
	if err := dst.Write([]Update{{Group: 1, Entries: entries(901, 901, 41, "x")}}, true); err != nil {
		t.Error(err)
	}
}

// TestSnapshotIsAMoment: neither writes nor an excise of the group show in a snapshot
// taken before.
func TestSnapshotIsAMoment(t *testing.T) {
	src, s := openMem(t), openMem(t)
	seeded(t, src, 1, 10, 1000)
	seeded(t, s, 1, 3000, 900)
	want := send(t, s, 1)
	p, err := s.Snapshot(1)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	staged, err := s.Receive(bytes.NewReader(send(t, src, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Write([]Update{{Group: 1, Ops: []Op{put("late", "x")}}}, true), s.Ingest(staged, 50, 0, 5), s.db.Compact(background, []byte{0}, []byte{9}, false)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var got bytes.Buffer
		if _, err := p.WriteTo(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("the snapshot has %d bytes now, had %d", got.Len(), len(want))
		}
	}
}

func TestIngestRefused(t *testing.T) {
	src := openMem(t)
	seeded(t, src, 1, 10, 900)
	stream := send(t, src, 1)
	for _, c := range []struct {
		name          string
		before        []Update
		term, replica uint64
		want          Code
	}{
		{"no replica id", nil, 3, 0, ErrInvalid},
		{"a term older than the snapshot's", nil, 2, 1, ErrInvalid},
		{"below the tombstone", []Update{{Group: 1, State: &State{Replica: 3}}, {Group: 1, Destroy: 4}}, 9, 3, ErrRetired},
		{"at the tombstone", []Update{{Group: 1, State: &State{Replica: 3}}, {Group: 1, Destroy: 4}}, 9, 4, ""},
		{"another replica id", []Update{{Group: 1, State: &State{Replica: 3}}}, 9, 4, ErrInvalid},
		{"behind what is applied", []Update{{Group: 1, State: &State{Replica: 3, Generation: 2, Applied: 901, AppliedTerm: 3}, Entries: entries(1, 901, 3, "")}}, 9, 3, ErrInvalid},
		{"behind, but of a later generation", []Update{{Group: 1, State: &State{Replica: 3, Generation: 1, Applied: 901, AppliedTerm: 3}, Entries: entries(1, 901, 3, "")}}, 9, 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openMem(t)
			if err := s.Write(c.before, true); err != nil {
				t.Fatal(err)
			}
			was, _ := dump(s)
			staged, err := s.Receive(bytes.NewReader(stream))
			if err != nil {
				t.Fatal(err)
			}
			err = s.Ingest(staged, c.term, 0, c.replica)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !hasCode(err, c.want) || s.Err() != nil {
				t.Fatal(err, s.Err())
			}
			compare(t, s, was, "a refusal")
			if names, _ := s.fs.List(s.path(stagedDir)); len(names) != 0 {
				t.Error("staged files stay")
			}
		})
	}
}

// TestStreamDamage cuts a snapshot off after every byte and flips a bit of every byte,
// doubles and drops chunks: Receive refuses all of it, and nothing stays.
func TestStreamDamage(t *testing.T) {
	src, s := openMem(t), openMem(t)
	seeded(t, src, 1, 3, 900)
	good := send(t, src, 1)
	refused := func(name string, b []byte) {
		t.Helper()
		staged, err := s.Receive(bytes.NewReader(b))
		if err == nil {
			t.Fatalf("%s is accepted: %+v", name, staged)
		}
		if !hasCode(err, ErrBackup) && !hasCode(err, ErrNewer) {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Err() != nil {
			t.Fatalf("%s fails the store: %v", name, s.Err())
		}
	}
	for i := range good {
		refused(fmt.Sprintf("cut at %d", i), good[:i])
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), b)
		}
	}
	var at []int // where chunks begin
	for i := 5; i < len(good); i += 5 + int(good[i+3])<<8 + int(good[i+4]) + 4 {
		at = append(at, i)
	}
	if len(at) != 3 {
		t.Fatalf("chunks at %v of %d", at, len(good))
	}
	refused("without its rows", append(bytes.Clone(good[:at[1]]), good[at[2]:]...))
	refused("with rows twice", append(bytes.Clone(good[:at[2]]), good[at[1]:]...))
	var miscounted bytes.Buffer
	w := &streamWriter{w: &miscounted}
	head := appendBytes(appendBytes([]byte{1}, encodeState(&State{Replica: 1})), nil)
	if err := errors.Join(w.begin(streamSnapshot), w.chunk(chunkGroup, head), w.chunk(chunkEnd, []byte{5})); err != nil {
		t.Fatal(err)
	}
	refused("fewer rows than were sent", miscounted.Bytes())
	refused("a backup", []byte("musb\x01"))
	refused("of a newer version", []byte("muss\x02xxxxxxxxxxxxxxxxxxxxxxxx"))
	if names, _ := s.fs.List(s.path(stagedDir)); len(names) != 0 {
		t.Errorf("staged files stay: %v", names)
	}
	r := bytes.NewReader(append(bytes.Clone(good), "next"...))
	staged, err := s.Receive(r)
	if err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "next" {
		t.Errorf("the reader is at %q", rest)
	}
	if err := staged.Discard(); err != nil {
		t.Error(err)
	}
}

// TestReaderFails: an error of the connection is the caller's, not the store's.
func TestReaderFails(t *testing.T) {
	src, s := openMem(t), openMem(t)
	seeded(t, src, 1, 3, 900)
	broken := errors.New("connection reset")
	good := send(t, src, 1)
	_, err := s.Receive(io.MultiReader(bytes.NewReader(good[:len(good)/2]), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || s.Err() != nil {
		t.Fatal(err, s.Err())
	}
}

// TestLargeSnapshot passes through several staged files and many chunks.
func TestLargeSnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("40 MB")
	}
	src, dst := openOn(t, vfs.NewMem(), "a"), openOn(t, vfs.NewMem(), "b")
	row, rng := make([]byte, 512<<10), uint64(1)
	for i := range row { // does not compress
		rng = rng*6364136223846793005 + 1442695040888963407
		row[i] = byte(rng >> 56)
	}
	u := []Update{{Group: 1, State: &State{Replica: 1}}}
	for i := range 80 {
		u[0].Ops = []Op{{Key: fmt.Appendf(nil, "%03d", i), Value: row}}
		if err := src.Write(u, false); err != nil {
			t.Fatal(err)
		}
		u[0] = Update{Group: 1}
	}
	staged, err := dst.Receive(bytes.NewReader(send(t, src, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if len(staged.paths) != 2 {
		t.Errorf("%d files", len(staged.paths))
	}
	if err := dst.Ingest(staged, 1, 0, 1); err != nil {
		t.Fatal(err)
	}
	want, _ := dump(src)
	got, _ := dump(dst)
	maps.DeleteFunc(want, func(k, _ string) bool { return k[5] != partRow })
	maps.DeleteFunc(got, func(k, _ string) bool { return k[5] != partRow })
	if d := diff(got, want); d != "" || len(got) != 80 {
		t.Fatal(len(got), d)
	}
}

// FuzzReceive: no stream crashes a receiver, and what it accepts can be ingested.
func FuzzReceive(f *testing.F) {
	src := openMem(f)
	seeded(f, src, 1, 3, 900)
	good := send(f, src, 1)
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte("muss\x01G\x00\x00\x00\x00"))
	s := openMem(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		// Let the fuzzer past the checksums: it writes chunks, this frames them.
		for _, stream := range [][]byte{b, reframe(b)} {
			staged, err := s.Receive(bytes.NewReader(stream))
			if s.Err() != nil {
				t.Fatal(s.Err())
			}
			if err == nil {
				if err := staged.Discard(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// reframe takes b as kind, length (one byte), payload … and makes a stream of it.
func reframe(b []byte) []byte {
	var out bytes.Buffer
	w := &streamWriter{w: &out}
	_ = w.begin(streamSnapshot)
	for len(b) >= 2 {
		n := min(int(b[1]), len(b)-2)
		_ = w.chunk(b[0], b[2:2+n])
		b = b[2+n:]
	}
	return out.Bytes()
}
