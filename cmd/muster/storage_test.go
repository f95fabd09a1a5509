package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"muster/persistence"
)

// servedData starts a server process on dir, lets f use it and stops it.
func servedData(t *testing.T, dir string, f func(api string), args ...string) {
	t.Helper()
	p, _, api := serveChild(t, append([]string{"--data", dir, "--log-level", "warn"}, args...)...)
	if f != nil {
		f(api)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d: %q", code, p.lines)
	}
}

// storeFor publishes n messages to ann over HTTP and returns their ids.
func storeFor(t *testing.T, api, user string, n int) (ids []string) {
	t.Helper()
	c := &campaign{t: t, api: api}
	for i := range n {
		id := uuid.Must(uuid.NewV7()).String()
		if _, err := c.publish(t.Context(), id, message{user: user, body: fmt.Sprintf(`{"n":%d}`, i)}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// expectStored reads the outbox of a user as its first device and wants it to begin with these ids in this order.
func expectStored(t *testing.T, url, user string, ids []string) {
	t.Helper()
	c := &campaign{t: t, url: url, sent: map[string]message{}, acked: map[string]bool{}, got: map[string][]uint64{}, devices: map[string]*inbound{}}
	got := c.outbox(user, len(ids))
	for i, id := range ids {
		if i >= len(got) || got[i] != id {
			t.Fatalf("the outbox of %s holds %d entries of %d; entry %d should be %s: %.200q", user, len(got), len(ids), i, id, got[min(i, len(got)):])
		}
	}
}

// refused starts a server on dir that must end with exit code 1 and one line that holds
// all the texts.
func refused(t *testing.T, dir string, texts []string, args ...string) {
	t.Helper()
	p := spawn(t, append([]string{"serve", "--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--data", dir, "--log-level", "error"}, args...)...)
	if code := p.exit(); code != 1 {
		t.Fatalf("exit code %d: %q", code, p.lines)
	}
	last := p.lines[len(p.lines)-1]
	for _, text := range texts {
		if !strings.Contains(last, text) {
			t.Errorf("line %q, want %q in it", last, text)
		}
	}
	if !strings.HasPrefix(last, "muster: ") {
		t.Errorf("line %q does not say who speaks", last)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := t.TempDir()
	p, url, api := serveChild(t, "--data", dir)
	refused(t, dir, []string{"STORE_LOCKED", dir, "stop the other process"})
	if code := quietly([]string{"backup", filepath.Join(t.TempDir(), "b"), "--data", dir}); code != 1 {
		t.Errorf("an offline backup beside a server: exit code %d", code)
	}
	ids := storeFor(t, api, "ann", 3)
	expectStored(t, url, "ann", ids)
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestDirectoryOfAnotherCluster(t *testing.T) {
	dir := t.TempDir()
	servedData(t, dir, nil)
	refused(t, dir, []string{"STORE_FOREIGN", dir}, "--cluster-id", "ours")
	servedData(t, dir, nil, "--cluster-id", identityOf(t, dir).Cluster)
}

func identityOf(t *testing.T, dir string) persistence.Identity {
	t.Helper()
	store, err := persistence.Inspect(dir, persistence.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	return store.Identity()
}

func TestNewerDirectory(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	servedData(t, dir, func(api string) { ids = storeFor(t, api, "ann", 3) })
	format := filepath.Join(dir, "FORMAT")
	old, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	write(t, format, []byte("muster data directory, format 99\n"))
	refused(t, dir, []string{"STORE_NEWER", "99"})
	write(t, format, old)
	_, url, _ := serveChild(t, "--data", dir)
	expectStored(t, url, "ann", ids)
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// filesOf lists the files of a directory tree by the end of their names, the largest first.
func filesOf(t *testing.T, dir, suffix string) (names []string) {
	t.Helper()
	size := map[string]int64{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(name, suffix) {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				size[name] = info.Size()
				names = append(names, name)
			}
		}
		return err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("no files *%s in %s: %v", suffix, dir, err)
	}
	slices.SortFunc(names, func(a, b string) int { return int(size[b] - size[a]) })
	return names
}

// A log that ends before what had been synced is refused, and with the log put back
// nothing is missing.
func TestTruncatedLog(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	servedData(t, dir, func(api string) { ids = storeFor(t, api, "ann", 50) })
	kept := copyTree(t, dir)
	for _, log := range filesOf(t, dir, ".log") {
		info, err := os.Stat(log)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(log, info.Size()/2); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, dir, []string{"STORE_LOST", "restore a backup"})
	_, url, _ := serveChild(t, "--data", kept)
	expectStored(t, url, "ann", ids)
}

// copyTree copies a directory into a new one.
func copyTree(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestCorruptedFile(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	servedData(t, dir, func(api string) { ids = storeFor(t, api, "ann", 50) })
	servedData(t, dir, nil) // its start makes tables of the log
	kept := copyTree(t, dir)
	for _, table := range filesOf(t, dir, ".sst") {
		data, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(len(data), 4096) {
			data[i] ^= 0x5a
		}
		write(t, table, data)
	}
	refused(t, dir, []string{"STORE_CORRUPT", "restore a backup"})
	_, url, _ := serveChild(t, "--data", kept)
	expectStored(t, url, "ann", ids)
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	servedData(t, dir, func(api string) { ids = storeFor(t, api, "ann", 3) })
	mounted := t.TempDir()
	if err := syscall.Mount(dir, mounted, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer func() { _ = syscall.Unmount(mounted, syscall.MNT_DETACH) }()
	if err := syscall.Mount("", mounted, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot mount read-only: %v", err)
	}
	refused(t, mounted, []string{"STORE_READ_ONLY", "make it writable"})
	_, url, _ := serveChild(t, "--data", dir)
	expectStored(t, url, "ann", ids)
}

// mountDisk mounts a small disk for a test; without the right to, the test is skipped.
func mountDisk(t *testing.T, size, kind string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, kind, 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes room from a disk until left bytes are free.
func fill(t *testing.T, disk string, left int64, name ...string) (file string) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(disk, &s); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(disk, "filler")
	if len(name) > 0 {
		file = name[0]
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if free := int64(s.Bavail) * s.Bsize; free > left {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, free-left); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// A disk that is low refuses durable changes and says so; when there is room again it goes on.
// A disk that is full ends the server; with room it starts and has everything.
func TestFullDisk(t *testing.T) {
	disk := mountDisk(t, "1400m", "tmpfs")
	dir := filepath.Join(disk, "data")
	p, _, api := serveChild(t, "--data", dir)
	ids := storeFor(t, api, "ann", 5)

	filler := fill(t, disk, 200<<20)
	c := &campaign{t: t, api: api}
	within(t, "low disk in /readyz", func() bool { return strings.Contains(readyz(t, api), "disk") })
	if _, again, err := c.publishOnce(t.Context(), uuid.Must(uuid.NewV7()).String(), message{user: "ann", body: "1"}); err == nil || !again {
		t.Errorf("a publish on a low disk: %v, to be tried again: %v", err, again)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	within(t, "ready again", func() bool { return readyz(t, api) == "" })
	ids = append(ids, storeFor(t, api, "ann", 5)...)

	// Full at once: what is acknowledged until the server notices, or ends, is kept.
	filler = fill(t, disk, 0)
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		id := uuid.Must(uuid.NewV7()).String()
		if _, _, err := c.publishOnce(t.Context(), id, message{user: "ann", body: "1"}); err == nil {
			ids = append(ids, id)
		} else {
			break
		}
	}
	if err := p.cmd.Process.Kill(); err != nil { // it has ended by itself
		p.line("muster: the server stopped: ")
		if code := p.exit(); code != 1 {
			t.Errorf("exit code %d: %q", code, p.lines)
		}
	}
	<-p.ended
	p = spawn(t, "serve", "--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--data", dir)
	p.line("the disk is too full") // the ballast let it start; it takes no writes
	p.signal(syscall.SIGKILL)
	<-p.ended
	fill(t, disk, 0, filler+"2")
	refused(t, dir, []string{"STORE_DISK_FULL", "make room"})
	for _, name := range []string{filler, filler + "2"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	_, url, _ := serveChild(t, "--data", dir)
	expectStored(t, url, "ann", ids)
}

// within waits for a condition.
func within(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); !met(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// shiftTime moves the time that every group has committed.
func shiftTime(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	store, err := persistence.Open(dir, persistence.Options{Ballast: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	groups, err := store.Groups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		_, state, _, _, err := store.Load(g)
		if err != nil {
			t.Fatal(err)
		}
		state.At += by.Milliseconds()
		if err := store.Write([]persistence.Update{{Group: g, State: &state}}, true); err != nil {
			t.Fatal(err)
		}
	}
}

// To a node that starts, a clock that was set back or ahead by an hour is one that differs from what it
// stored. Nothing acknowledged goes, and what is sent now arrives.
func TestClockJumps(t *testing.T) {
	for name, by := range map[string]time.Duration{"back": time.Hour, "ahead": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var ids []string
			servedData(t, dir, func(api string) { ids = storeFor(t, api, "ann", 3) })
			shiftTime(t, dir, by)
			p, _, api := serveChild(t, "--data", dir)
			if by > 0 {
				if line := p.line("the clock of this machine is behind"); !strings.Contains(line, "behind=1h0m0s") && !strings.Contains(line, "behind=59m") {
					t.Errorf("line %q", line)
				}
			}
			ids = append(ids, storeFor(t, api, "ann", 3)...)
			p.signal(syscall.SIGKILL)
			<-p.ended
			_, url, _ := serveChild(t, "--data", dir)
			expectStored(t, url, "ann", ids)
		})
	}
}
