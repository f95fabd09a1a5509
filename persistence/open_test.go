package persistence

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"muster/persistence/memdisk"
)

func refusedOpen(t *testing.T, dir string, o Options, want Code) {
	t.Helper()
	s, err := Open(dir, o)
	if err == nil {
		_ = s.Close()
		t.Fatalf("opened, want %s", want)
	}
	line := err.Error()
	if !hasCode(err, want) || strings.Contains(line, "\n") || !strings.Contains(line, dir) {
		t.Fatalf("%v, want %s in one line that names %s", err, want, dir)
	}
	t.Log(line)
}

func TestIdentity(t *testing.T) {
	fs := vfs.NewMem()
	refusedOpen(t, "data", Options{FS: fs, Logger: silent}, ErrNotBorn)
	if names, err := fs.List("data"); err == nil {
		t.Errorf("a refused directory was made: %v", names)
	}
	s := openOn(t, fs, "data")
	id := s.Identity()
	if id.Format != 1 || id.Cluster != "c" || id.Node != 7 || id.Name != "n7" || len(id.Store) != 36 || id.BornAt == 0 {
		t.Fatalf("%+v", id)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o := small(fs)
	o.Create = &Identity{Node: 99, Cluster: "other"}
	s, err := Open("data", o)
	if err != nil || s.Identity() != id {
		t.Fatalf("born again: %+v %v", s.Identity(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Cluster = "other"
	refusedOpen(t, "data", o, ErrForeign)
	write(t, fs, "data/FORMAT", "muster data directory, format 2\n")
	refusedOpen(t, "data", o, ErrNewer)
	write(t, fs, "data/FORMAT", "something else")
	refusedOpen(t, "data", o, ErrCorrupt)
}

func write(t *testing.T, fs vfs.FS, path, text string) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write([]byte(text))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestLocked opens a directory that another process has open.
func TestLocked(t *testing.T) {
	if dir := os.Getenv("MUSTER_TEST_HOLD"); dir != "" {
		s, err := Open(dir, Options{Create: &Identity{Node: 1}, Ballast: -1, Logger: silent})
		fmt.Println("held", err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = s.Close()
		return
	}
	dir := filepath.Join(t.TempDir(), "data")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestLocked$")
	cmd.Env = append(os.Environ(), "MUSTER_TEST_HOLD="+dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var line string
	if _, err := fmt.Fscanf(out, "held %s\n", &line); err != nil || line != "<nil>" {
		t.Fatal(line, err)
	}
	refusedOpen(t, dir, Options{Logger: silent}, ErrLocked)
	if _, err := Inspect(dir, Options{Logger: silent}); !hasCode(err, ErrLocked) {
		t.Errorf("inspecting: %v", err)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Options{Logger: silent, Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Logger: silent}); !hasCode(err, ErrLocked) {
		t.Errorf("twice in one process: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadOnlyDisk: Open says so, Inspect reads all the same and changes nothing.
func TestReadOnlyDisk(t *testing.T) {
	mem := vfs.NewMem()
	s := openOn(t, mem, "data")
	want := seeded(t, s, 1, 10, 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var changes atomic.Int64
	ro := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if mutates(op.Kind) || op.Kind == errorfs.OpLock {
			changes.Add(1)
			return syscall.EROFS
		}
		return nil
	}))
	refusedOpen(t, "data", small(ro), ErrReadOnly)
	refusedOpen(t, "fresh", small(ro), ErrReadOnly)
	changes.Store(0)
	s, err := Inspect("data", small(ro))
	if err != nil {
		t.Fatal(err)
	}
	compare(t, s, want, "inspecting")
	if err := errors.Join(s.Check(), func() error { _, err := s.Backup(io.Discard); return err }()); err != nil {
		t.Error(err)
	}
	if err := s.Write([]Update{{Group: 1, Ops: []Op{put("x", "y")}}}, true); !hasCode(err, ErrReadOnly) {
		t.Errorf("write: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := changes.Load(); n != 1 { // the lock
		t.Errorf("inspecting tried %d changes", n)
	}
}

func readFile(t *testing.T, fs vfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLogCutOff cuts the write-ahead log at every length: what was synced is there, or
// Open says that it is not. A log cut within what was never synced is fine.
func TestLogCutOff(t *testing.T) {
	mem := memdisk.New()
	s := openOn(t, mem, "data")
	var want []model
	ends := []int{}
	log := ""
	names, _ := mem.List("data/pebble")
	for _, n := range names {
		if strings.HasSuffix(n, ".log") {
			log = "data/pebble/" + n
		}
	}
	for i := range 8 {
		u := Update{Group: 1, Ops: []Op{put(fmt.Sprint("k", i), strings.Repeat("v", 30))}}
		if i == 0 {
			u.State = &State{Replica: 1}
		}
		if err := s.Write([]Update{u}, i < 6); err != nil {
			t.Fatal(err)
		}
		m, _ := dump(s)
		want, ends = append(want, m), append(ends, len(readFile(t, mem, log)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	full := readFile(t, mem, log)
	lost, fine := 0, 0
	for n := range len(full) + 1 {
		clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: randSource()})
		write(t, clone, log, string(full[:n]))
		s, err := Open("data", small(clone))
		if hasCode(err, ErrLost) || hasCode(err, ErrCorrupt) {
			if lost++; n >= ends[5] {
				t.Fatalf("cut at %d, after the last sync at %d: %v", n, ends[5], err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		got, _ := dump(s)
		if !slices.ContainsFunc(want[5:], func(m model) bool { return diff(got, m) == "" }) {
			t.Fatalf("cut at %d: a synced write is missing and nobody says so", n)
		}
		fine++
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if lost < 200 || fine < 20 {
		t.Fatalf("%d cuts were found, %d were fine", lost, fine)
	}
	clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: randSource()})
	if err := clone.Remove(log); err != nil {
		t.Fatal(err)
	}
	refusedOpen(t, "data", small(clone), ErrLost)
}

// TestDamagedFiles flips a byte in every file of Pebble, at many places: Open, Check or
// a read says so, or the data is what it was.
func TestDamagedFiles(t *testing.T) {
	mem := memdisk.New()
	s := openOn(t, mem, "data")
	seeded(t, s, 1, 2000, 5)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	want := seeded(t, s, 2, 20, 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := mem.List("data/pebble")
	found := map[string]int{}
	for _, n := range names {
		kind := strings.Trim(n, "0123456789-")
		path := "data/pebble/" + n
		b := readFile(t, mem, path)
		if len(b) == 0 {
			continue
		}
		end := len(b)
		if kind == ".log" { // a recycled file: what follows is of the log before
			end = min(end, 3000)
		}
		for i := 0; i < end; i += max(1, end/60) {
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: randSource()})
			bad := bytes.Clone(b)
			bad[i] ^= 0x55
			write(t, clone, path, string(bad))
			code := look(t, clone, want)
			if code != "" {
				found[kind+" "+string(code)]++
			}
		}
	}
	t.Log(found)
	if found[".sst STORE_CORRUPT"] < 30 || found[".log STORE_CORRUPT"]+found[".log STORE_LOST"] < 30 || found["MANIFEST STORE_CORRUPT"] < 10 {
		t.Error("damage was not found where it was done")
	}
}

// look opens a directory and reads everything. It returns what was found wrong.
func look(t *testing.T, fs vfs.FS, want model) (code Code) {
	t.Helper()
	var told error
	o := small(fs)
	o.Fatal = func(err error) { told = err }
	s, err := Open("data", o)
	if err != nil {
		return classify(err, "")
	}
	defer s.Close()
	if err := s.Check(); err != nil {
		if told == nil && s.Err() == nil {
			t.Errorf("%v, but the store goes on", err)
		}
		return classify(err, "")
	}
	compare(t, s, want, "damage")
	return ""
}

// TestRefusedUpdates: a broken rule is refused, nothing is written, the store goes on.
func TestRefusedUpdates(t *testing.T) {
	s := openMem(t)
	if err := s.Write([]Update{{Group: 1, State: &State{Replica: 3, Applied: 2, AppliedTerm: 1}, Entries: entries(1, 10, 1, "e")},
		{Group: 2, State: &State{Replica: 3}}, {Group: 2, Destroy: 7}, {Group: 2, Destroy: 5}}, true); err != nil {
		t.Fatal(err)
	}
	was, _ := dump(s)
	if next, err := s.Tombstones(); err != nil || len(next) != 1 || next[2] != 7 {
		t.Fatal(next, err)
	}
	gap := entries(11, 12, 1, "e")
	*gap[1].Index = 13
	for name, c := range map[string]struct {
		u    []Update
		want Code
	}{
		"no state at first":              {[]Update{{Group: 9, Ops: []Op{put("a", "b")}}}, ErrInvalid},
		"no replica id":                  {[]Update{{Group: 9, State: &State{}}}, ErrInvalid},
		"below the tombstone":            {[]Update{{Group: 2, State: &State{Replica: 6}}}, ErrRetired},
		"below a tombstone of the batch": {[]Update{{Group: 1, Destroy: 5}, {Group: 1, State: &State{Replica: 4}}}, ErrRetired},
		"another replica id":             {[]Update{{Group: 1, State: &State{Replica: 4}}}, ErrInvalid},
		"a gap after the log":            {[]Update{{Group: 1, Entries: entries(12, 12, 1, "e")}}, ErrInvalid},
		"a gap in the entries":           {[]Update{{Group: 1, Entries: gap}}, ErrInvalid},
		"applied beyond the log":         {[]Update{{Group: 1, State: &State{Replica: 3, Applied: 11}}}, ErrInvalid},
		"committed beyond the log":       {[]Update{{Group: 1, Hard: hardState(1, 1, 11)}}, ErrInvalid},
		"truncated without a state":      {[]Update{{Group: 1, Truncate: 2}}, ErrInvalid},
		"truncated beyond applied":       {[]Update{{Group: 1, Truncate: 4, State: &State{Replica: 3, Applied: 3, Truncated: 4}}}, ErrInvalid},
		"state truncated, log not":       {[]Update{{Group: 1, State: &State{Replica: 3, Applied: 3, Truncated: 2}}}, ErrInvalid},
		"destroyed with other changes":   {[]Update{{Group: 1, Destroy: 9, Ops: []Op{put("a", "b")}}}, ErrInvalid},
		"the second of two":              {[]Update{{Group: 1, Ops: []Op{put("a", "b")}}, {Group: 1, Truncate: 99}}, ErrInvalid},
	} {
		if err := s.Write(c.u, true); !hasCode(err, c.want) || s.Err() != nil {
			t.Errorf("%s: %v (%v), want %s", name, err, s.Err(), c.want)
		}
		compare(t, s, was, name)
	}
	if err := s.Write([]Update{{Group: 2, State: &State{Replica: 7}}}, true); err != nil {
		t.Error(err)
	}
}

// TestLogRules: what a start must find in the log; written past Write's own checks.
func TestLogRules(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(s *Store) error
		want   Code
	}{
		"applied beyond the log's end":    {func(s *Store) error { return s.db.Delete(logKey(1, 10), nil) }, ErrLost},
		"committed beyond the log's end":  {func(s *Store) error { return s.db.Set(hardKey(1), encodeHard(hardState(1, 1, 11)), nil) }, ErrLost},
		"a log that begins too late":      {func(s *Store) error { return s.db.Delete(logKey(1, 1), nil) }, ErrCorrupt},
		"no state row":                    {func(s *Store) error { return s.db.Delete(stateKey(1), nil) }, ErrCorrupt},
		"a key of nobody":                 {func(s *Store) error { return s.db.Set([]byte{3, 0, 0, 0, 1, 9}, nil, nil) }, ErrCorrupt},
		"a newer state row":               {func(s *Store) error { return s.db.Set(stateKey(1), []byte{2}, nil) }, ErrNewer},
		"a hole in the log":               {func(s *Store) error { return s.db.Delete(logKey(1, 5), nil) }, ErrCorrupt},
		"an entry that cannot be read":    {func(s *Store) error { return s.db.Set(logKey(1, 5), []byte{1}, nil) }, ErrCorrupt},
		"no identity":                     {func(s *Store) error { return s.db.Delete(identityKey(), nil) }, ErrCorrupt},
		"an identity that cannot be read": {func(s *Store) error { return s.db.Set(identityKey(), []byte("{}"), nil) }, ErrCorrupt},
		"a tombstone that cannot be read": {func(s *Store) error { return s.db.Set(tombstoneKey(1), []byte{1}, nil) }, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			s := openMem(t)
			if err := errors.Join(s.Write([]Update{{Group: 1, State: &State{Replica: 3, Applied: 10, AppliedTerm: 1}, Entries: entries(1, 10, 1, "e")}}, true),
				c.damage(s), s.Close()); err != nil {
				t.Fatal(err)
			}
			s, err := Open("data", small(s.fs))
			if err == nil {
				err = s.Check()
				_ = s.Close()
			}
			if !hasCode(err, c.want) {
				t.Fatalf("%v, want %s", err, c.want)
			}
			t.Log(err)
		})
	}
}

// TestFailureStays: with nobody to tell, the error comes back from the write, and every
// method returns it from then on.
func TestFailureStays(t *testing.T) {
	var full atomic.Bool
	o := small(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".log") {
			return syscall.ENOSPC
		}
		return nil
	})))
	s, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	seeded(t, s, 1, 3, 5)
	full.Store(true)
	u := []Update{{Group: 1, Ops: []Op{put("a", "b")}}}
	first := s.Write(u, true)
	if !hasCode(first, ErrDiskFull) || !errors.Is(first, syscall.ENOSPC) {
		t.Fatal(first)
	}
	full.Store(false)
	_, _, getErr := s.Get(0, []byte("r000000"))
	_, _, _, _, loadErr := s.Load(1)
	_, groupsErr := s.Groups()
	_, backupErr := s.Backup(io.Discard)
	for i, err := range []error{s.Write(u, true), s.Write(nil, false), getErr, loadErr, groupsErr, backupErr,
		s.Scan(0, nil, nil, func(_, _ []byte) bool { return true }), s.Close()} {
		if err == nil || err.Error() != first.Error() {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// TestReadsBesideWrites is for the race detector.
func TestReadsBesideWrites(t *testing.T) {
	s := openMem(t)
	seeded(t, s, 1, 500, 5)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := range 200 {
				_, ok, err := s.Get(0, fmt.Appendf(nil, "r%06d", i))
				n := 0
				serr := s.Scan(0, nil, nil, func(_, _ []byte) bool { n++; return n < 20 })
				_, terr := s.Term(1, 5)
				if err := errors.Join(err, serr, terr, s.Err()); err != nil || !ok || n != 20 {
					t.Error(err, ok, n)
					return
				}
				s.Room()
			}
		})
	}
	for i := range uint64(200) {
		if err := s.Write([]Update{{Group: 1, Entries: entries(6+i, 6+i, 3, "x"), Ops: []Op{put(fmt.Sprintf("r%06d", i), "new"), delRange("s", "t")}}}, i%3 == 0); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}

// TestRealDisk runs on the file system that will be used: the ballast takes its space,
// and a directory lives through closing and opening.
func TestRealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, err := Open(dir, Options{Create: &Identity{Node: 1}, Ballast: 1 << 20, Reserve: 1, Logger: silent})
	if err != nil {
		t.Fatal(err)
	}
	want := seeded(t, s, 1, 100, 5)
	if free, low := s.Room(); free == 0 || low {
		t.Error(free, low)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "ballast"), &st); err != nil || st.Blocks*512 < 1<<20 {
		t.Errorf("the ballast takes %d bytes: %v", st.Blocks*512, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{Ballast: -1, Logger: silent}); err != nil {
		t.Fatal(err)
	}
	compare(t, s, want, "reopened")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReplicaIDAndGeneration: a replica changes its id only with its generation.
func TestReplicaIDAndGeneration(t *testing.T) {
	s := openMem(t)
	state := State{Applied: 1, Truncated: 1, Conf: voters(1), Replica: 1, Generation: 1}
	write := func() error { return s.Write([]Update{{Group: 3, State: &state}}, true) }
	if err := write(); err != nil {
		t.Fatal(err)
	}
	state.Replica = 9
	if err := write(); !hasCode(err, ErrInvalid) {
		t.Errorf("another id in the same generation: %v", err)
	}
	state.Generation = 2
	if err := write(); err != nil {
		t.Errorf("another id in a new generation: %v", err)
	}
}
