package persistence

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"muster/persistence/memdisk"
)

func backup(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Backup(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// rowsOf are the rows of all groups.
func rowsOf(t testing.TB, s *Store) model {
	t.Helper()
	m, err := dump(s)
	if err != nil {
		t.Fatal(err)
	}
	m.deleteIf(func(k string) bool { return k[0] != spaceGroup || k[5] != partRow })
	return m
}

// TestRestore: the rows are the same; the rest is that of a new cluster of one node.
func TestRestore(t *testing.T) {
	fs := vfs.NewMem()
	src := openOn(t, fs, "data")
	steps := script(t)
	for i := range steps {
		if err := steps[i].run(src); err != nil {
			t.Fatal(err)
		}
	}
	seeded(t, src, 3, 3000, 900)
	before := uint64(time.Now().Unix())
	var b bytes.Buffer
	took, err := src.Backup(&b)
	if err != nil || took.Groups != 4 || took.Rows < 3000 || took.Identity != src.Identity() {
		t.Fatalf("%+v %v", took, err)
	}
	sum, err := Restore("new/dir", &b, Options{FS: fs, Logger: silent, Create: &Identity{Name: "renamed"}})
	if err != nil || sum.Groups != took.Groups || sum.Rows != took.Rows || sum.Bytes != took.Bytes || sum.TakenAt != took.TakenAt {
		t.Fatalf("%+v %v, want %+v", sum, err, took)
	}
	s := openOn(t, fs, "new/dir")
	if id := s.Identity(); id != sum.Identity || id.Cluster == src.Identity().Cluster || id.Store == src.Identity().Store ||
		id.Cluster == "" || id.Node != 7 || id.Name != "renamed" {
		t.Fatalf("%+v", id)
	}
	if d := diff(rowsOf(t, s), rowsOf(t, src)); d != "" {
		t.Fatal(d)
	}
	gs, _ := src.Groups()
	for _, g := range gs {
		oldHard, old, _, _, err := src.Load(g)
		if err != nil {
			t.Fatal(err)
		}
		hard, st, first, last, err := s.Load(g)
		if err != nil || first != old.Applied+1 || last != old.Applied || hard.GetCommit() != old.Applied || hard.GetVote() != 0 {
			t.Fatalf("group %d: [%d, %d] %v %v", g, first, last, hard, err)
		}
		if hard.GetTerm() < oldHard.GetTerm()+1<<20 || hard.GetTerm() < before {
			t.Errorf("group %d: term %d after %d", g, hard.GetTerm(), oldHard.GetTerm())
		}
		if st.Replica <= old.lastReplica() || st.Generation != old.Generation+1 || st.Applied != old.Applied || st.Hash != old.Hash || st.At != old.At {
			t.Errorf("group %d: %+v after %+v", g, st, old)
		}
		if v := st.Conf.GetVoters(); len(v) != 1 || v[0] != st.Replica || st.lastReplica() != st.Replica || len(st.Members) != 1 || st.Members[0] != (Member{st.Replica, 7}) {
			t.Errorf("group %d: %+v", g, st)
		}
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

// TestTermOfTheFuture: the stored term may be ahead of the clock.
func TestTermOfTheFuture(t *testing.T) {
	fs := vfs.NewMem()
	src := openOn(t, fs, "data")
	if err := src.Write([]Update{{Group: 1, State: &State{Replica: 1}, Hard: hardState(1<<40, 1, 0)}}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore("new", bytes.NewReader(backup(t, src)), Options{FS: fs, Logger: silent}); err != nil {
		t.Fatal(err)
	}
	hard, _, _, _, err := openOn(t, fs, "new").Load(1)
	if err != nil || hard.GetTerm() != 1<<40+1<<20 {
		t.Fatal(hard, err)
	}
}

// writerFunc writes by calling a function.
type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// TestBackupIsAMoment writes to all groups at once whenever a backup has written a
// little: in the backup all groups show the same write.
func TestBackupIsAMoment(t *testing.T) {
	s := openMem(t)
	var n uint64
	write := func() {
		n++
		var us []Update
		for g := range uint32(8) {
			us = append(us, Update{Group: g, Entries: entries(n, n, 1, "e"), State: &State{Replica: 1, Applied: n, AppliedTerm: 1},
				Ops: []Op{put("n", fmt.Sprint(n)), put(fmt.Sprint("fill", n%50), strings.Repeat("x", 500))}})
		}
		if err := s.Write(us, false); err != nil {
			t.Fatal(err)
		}
	}
	write()
	var b bytes.Buffer
	if _, err := s.Backup(writerFunc(func(p []byte) { b.Write(p); write() })); err != nil {
		t.Fatal(err)
	}
	if n < 50 {
		t.Fatalf("only %d writes beside the backup", n)
	}
	fs := vfs.NewMem()
	if _, err := Restore("r", &b, Options{FS: fs, Logger: silent}); err != nil {
		t.Fatal(err)
	}
	r := openOn(t, fs, "r")
	for g := range uint32(8) {
		v, _, err := r.Get(g-1, []byte("n"))
		_, st, _, _, lerr := r.Load(g)
		if err != nil || lerr != nil || string(v) != "1" || st.Applied != 1 {
			t.Errorf("group %d: row %s, applied %d; %v %v", g, v, st.Applied, err, lerr)
		}
	}
}

// TestRestoreRefused: what cannot be restored is refused and leaves nothing behind.
func TestRestoreRefused(t *testing.T) {
	src := openMem(t)
	seeded(t, src, 1, 3, 900)
	seeded(t, src, 2, 3, 900)
	good := backup(t, src)
	refused := func(name string, b []byte, want ...Code) {
		t.Helper()
		fs := vfs.NewMem()
		_, err := Restore("d", bytes.NewReader(b), Options{FS: fs, Logger: silent, Cache: 1 << 20, Memtable: 256 << 10})
		found := false
		for _, c := range want {
			found = found || hasCode(err, c)
		}
		if !found {
			t.Fatalf("%s: %v, want %v", name, err, want)
		}
		if names, err := fs.List("d"); err == nil && len(names) > 0 {
			t.Fatalf("%s: stays behind: %v", name, names)
		}
	}
	step := 7
	if testing.Short() {
		step = 61
	}
	for i := 0; i < len(good); i += step {
		refused(fmt.Sprintf("cut at %d", i), good[:i], ErrBackup)
		b := bytes.Clone(good)
		b[i] ^= 4
		refused(fmt.Sprintf("byte %d changed", i), b, ErrBackup, ErrNewer)
	}
	refused("something after the end", append(bytes.Clone(good), 0), ErrBackup)
	refused("a snapshot", send(t, src, 1), ErrBackup)
	refused("a newer stream", []byte("musb\x02"), ErrNewer)
	refused("a newer directory", framed(streamBackup, chunkBirth, `{"format":2}`), ErrNewer)
	refused("no birth", framed(streamBackup, chunkLast, "\x00"), ErrBackup)

	fs := vfs.NewMem()
	if err := fs.MkdirAll("d/lost+found", 0o700); err != nil {
		t.Fatal(err)
	}
	same := Options{FS: fs, Logger: silent, Create: &Identity{Cluster: "c"}}
	if _, err := Restore("d", bytes.NewReader(good), same); !hasCode(err, ErrInvalid) {
		t.Errorf("under the same cluster id: %v", err)
	}
	if _, err := Restore("d", bytes.NewReader(good), Options{FS: fs, Logger: silent}); err != nil {
		t.Errorf("beside lost+found: %v", err)
	}
	if _, err := Restore("d", bytes.NewReader(good), Options{FS: fs, Logger: silent}); !hasCode(err, ErrNotEmpty) {
		t.Errorf("twice: %v", err)
	}
}

func framed(kind, chunk byte, payload string) []byte {
	var b bytes.Buffer
	w := &streamWriter{w: &b}
	_ = errors.Join(w.begin(kind), w.chunk(chunk, []byte(payload)))
	return b.Bytes()
}

// TestRestoreCrash takes the power away before every change: what is there afterwards is
// refused, or empty, or the whole restored cluster.
func TestRestoreCrash(t *testing.T) {
	src := openMem(t)
	seeded(t, src, 1, 300, 900)
	seeded(t, src, 2, 300, 900)
	good, want := backup(t, src), rowsOf(t, src)
	mem := memdisk.New()
	var mu sync.Mutex
	outcomes := map[string]int{}
	hook := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !mutates(op.Kind) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, unsynced := range []int{0, 50, 100} {
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: randSource()})
			s, err := Open("d", Options{FS: clone, Logger: silent, Ballast: -1})
			if err != nil {
				outcomes[string(classify(err, ""))]++
				continue
			}
			if d := diff(rowsOf(t, s), want); d != "" {
				t.Errorf("a store opens that was not restored whole:\n%s", d)
			}
			outcomes["whole"]++
			_ = s.Close()
		}
		return nil
	})
	if _, err := Restore("d", bytes.NewReader(good), small(errorfs.Wrap(mem, hook))); err == nil {
		t.Fatal("restored under the cluster's own id")
	}
	o := small(errorfs.Wrap(mem, hook))
	o.Create = nil
	if _, err := Restore("d", bytes.NewReader(good), o); err != nil {
		t.Fatal(err)
	}
	t.Log(outcomes)
	for k, n := range outcomes {
		if k != "whole" && k != string(ErrNotBorn) && k != string(ErrCorrupt) && k != string(ErrFailed) {
			t.Errorf("%d times %q", n, k)
		}
	}
	if outcomes["whole"] == 0 || outcomes[string(ErrCorrupt)] == 0 || outcomes[string(ErrNotBorn)] == 0 {
		t.Error("too few outcomes")
	}
}

// TestRestoreDiskFull: the error is clear and the directory is empty again.
func TestRestoreDiskFull(t *testing.T) {
	src := openMem(t)
	seeded(t, src, 1, 300, 900)
	good := backup(t, src)
	mem := vfs.NewMem()
	full := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	_, err := Restore("d", bytes.NewReader(good), Options{FS: full, Logger: silent})
	if !hasCode(err, ErrDiskFull) {
		t.Fatal(err)
	}
	t.Log(err)
	if names, _ := mem.List("d"); len(names) > 0 {
		t.Errorf("stays behind: %v", names)
	}
}

// FuzzRestore: no backup crashes a restore.
func FuzzRestore(f *testing.F) {
	src := openMem(f)
	seeded(f, src, 1, 2, 900)
	f.Add(backup(f, src))
	f.Add([]byte("musb\x01B\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := Restore("d", bytes.NewReader(b), Options{FS: vfs.NewMem(), Logger: silent, Cache: 1 << 20, Memtable: 256 << 10, Ballast: -1})
		var own *Error
		if err != nil && !errors.As(err, &own) {
			t.Fatal(err)
		}
	})
}
