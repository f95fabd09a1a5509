package persistence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
)

// formatVersion is the version of the directory: its files, key layout and codecs.
const formatVersion = 1

// pebbleFormat is set at birth; excise needs FormatVirtualSSTables or later.
const pebbleFormat = pebble.FormatTableFormatV6

// Names in the directory.
const (
	formatFile = "FORMAT"
	creating   = "CREATING" // there until Pebble's files have been made
	pebbleDir  = "pebble"
	stagedDir  = "staged"
)

func (s *Store) path(name ...string) string {
	return s.fs.PathJoin(append([]string{s.dir}, name...)...)
}

func newer(format int) error {
	return fail(ErrNewer, nil, "the directory has format %d, this version knows %d: start the newer muster", format, formatVersion)
}

// Open opens the data directory, which it creates if Options.Create says so. At most
// one process has it open. Staged files of snapshots that were never ingested are deleted.
//
// ErrNotBorn, ErrLocked, ErrNewer, ErrForeign, ErrCorrupt, ErrLost, ErrReadOnly,
// ErrDiskFull.
func Open(dir string, o Options) (*Store, error) { return open(dir, o, false) }

// Inspect opens the data directory to read only, for a look from outside while no
// process runs on it. Nothing on the disk changes but the lock.
func Inspect(dir string, o Options) (*Store, error) { return open(dir, o, true) }

func open(dir string, o Options, readOnly bool) (s *Store, err error) {
	s = &Store{dir: dir, o: o.withDefaults(), readOnly: readOnly, groups: map[uint32]*replicaLog{}}
	s.fs, s.log = s.o.FS, s.o.Logger
	defer func() {
		if err != nil {
			_ = s.Close()
			err = s.explain(err)
			s = nil
		}
	}()
	if err := s.openPebble(s.o.Create != nil && !readOnly); err != nil {
		return s, err
	}
	if err := s.checkIdentity(); err != nil {
		return s, err
	}
	if err := s.loadReplicas(); err != nil {
		return s, err
	}
	return s, s.Err()
}

// openPebble checks the directory, locks it and opens Pebble in it.
func (s *Store) openPebble(create bool) error {
	born, err := s.checkFormat()
	if err != nil {
		return err
	}
	if !born && !create {
		return fail(ErrNotBorn, nil, "%s holds no data of muster", s.dir)
	}
	if err := s.takeLock(); err != nil {
		return err
	}
	if !s.readOnly {
		if err := s.prepare(born); err != nil {
			return err
		}
	}
	if err := s.makeDB(); err != nil {
		return err
	}
	if err := s.checkMark(); err != nil {
		return err
	}
	if !s.readOnly {
		s.Room()
	}
	return s.Err()
}

// makeDB opens Pebble. What a power loss left while its files were first made is made again: nothing was ever
// written to it.
func (s *Store) makeDB() error {
	birth, err := exists(s.fs, s.path(creating))
	if err != nil {
		return err
	}
	if birth && s.readOnly {
		return fail(ErrNotBorn, nil, "%s holds no data of muster", s.dir)
	}
	err = s.openDB()
	if !birth || err != nil && classify(err, "") != ErrCorrupt {
		return err
	}
	if err != nil {
		if err := s.clearPebble(); err != nil {
			return err
		}
		if err := s.openDB(); err != nil {
			return err
		}
	}
	if err := s.fs.Remove(s.path(creating)); err != nil {
		return err
	}
	return syncDir(s.fs, s.dir)
}

// clearPebble removes Pebble's files but the lock.
func (s *Store) clearPebble() error {
	names, err := s.fs.List(s.path(pebbleDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != "LOCK" {
			if err := s.fs.RemoveAll(s.path(pebbleDir, name)); err != nil {
				return err
			}
		}
	}
	return syncDir(s.fs, s.path(pebbleDir))
}

func (s *Store) openDB() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = asError(p)
		}
	}()
	s.db, err = pebble.Open(s.path(pebbleDir), s.pebbleOptions())
	if errors.Is(err, fs.ErrNotExist) {
		err = fail(ErrCorrupt, err, "%s: a file is missing%s", s.dir, s.advice(ErrCorrupt))
	}
	return err
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Cache == 0 {
		o.Cache = DefaultCache
	}
	if o.Memtable == 0 {
		o.Memtable = DefaultMemtable
	}
	if o.Ballast == 0 {
		o.Ballast = DefaultBallast
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// explain turns what stopped Open into one line that names the directory.
func (s *Store) explain(err error) error {
	var own *Error
	if errors.As(err, &own) {
		if !strings.Contains(own.Text, s.dir) {
			own = &Error{Code: own.Code, Text: s.dir + ": " + own.Text + s.advice(own.Code), Err: own.Err}
		}
		return own
	}
	code := classify(err, ErrFailed)
	return fail(code, err, "%s cannot be opened%s", s.dir, s.advice(code))
}

// advice says what to do about a failure.
func (s *Store) advice(code Code) string {
	switch code {
	case ErrCorrupt, ErrLost:
		return " (what the disk holds is damaged: restore a backup, or let the cluster rebuild the node in an empty directory)"
	case ErrReadOnly:
		return " (the disk takes no writes)"
	case ErrDiskFull:
		return " (no space left: free some, or delete " + s.path(ballastFile) + ")"
	}
	return ""
}

// checkFormat reads the format file, the one thing every version understands.
func (s *Store) checkFormat() (born bool, err error) {
	f, err := s.fs.Open(s.path(formatFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b, err := io.ReadAll(io.LimitReader(f, 256))
	if err = errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	var format int
	if n, _ := fmt.Sscanf(string(b), "muster data directory, format %d\n", &format); n != 1 || format < 1 {
		return false, fail(ErrCorrupt, nil, "%s cannot be read", s.path(formatFile))
	}
	if format > formatVersion {
		return false, newer(format)
	}
	return true, nil
}

func (s *Store) takeLock() (err error) {
	if !s.readOnly {
		if err := makeDir(s.fs, s.path(pebbleDir)); err != nil {
			return err
		}
	}
	s.lock, err = pebble.LockDirectory(s.path(pebbleDir), s.fs)
	if s.readOnly && classify(err, "") == ErrReadOnly {
		// Nobody can run on a disk that takes no writes, so nobody need be kept out.
		s.lock, err = pebble.LockDirectory(s.path(pebbleDir), unlocked{s.fs})
	}
	if err == nil || classify(err, "") != "" {
		return err
	}
	return fail(ErrLocked, nil, "%s is in use by another process", s.dir)
}

type unlocked struct{ vfs.FS }

func (unlocked) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// prepare makes the directory's own files and forgets what was staged.
func (s *Store) prepare(born bool) error {
	if err := s.fs.RemoveAll(s.path(stagedDir)); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(s.path(stagedDir), 0o750); err != nil {
		return err
	}
	held, err := exists(s.fs, s.path(ballastFile))
	if err != nil {
		return err
	}
	s.ballast.held = held
	if _, low := s.Room(); low && held {
		n, err := s.Release()
		if err != nil {
			return err
		}
		s.log.Warn("the disk is low, the ballast is released", "dir", s.dir, "bytes", n)
	}
	if born {
		return nil
	}
	// Again for a process that was killed between making the directory and syncing it.
	if err := syncDir(s.fs, s.fs.PathDir(s.dir)); err != nil {
		return err
	}
	if err := s.writeFile(creating, ""); err != nil {
		return err
	}
	return s.writeFile(formatFile, fmt.Sprintf("muster data directory, format %d\n", formatVersion))
}

// writeFile makes a file that is there whole, after a power loss too.
func (s *Store) writeFile(name, text string) error {
	tmp := s.path(name + ".new")
	f, err := s.fs.Create(tmp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(tmp, s.path(name)); err != nil {
		return err
	}
	return syncDir(s.fs, s.dir)
}

// makeDir makes a directory that survives a power loss: each parent that was missing,
// and the one that was there, is synced.
func makeDir(vs vfs.FS, dir string) error {
	if ok, err := exists(vs, dir); ok || err != nil {
		return err
	}
	parent := vs.PathDir(dir)
	if parent != dir {
		if err := makeDir(vs, parent); err != nil {
			return err
		}
	}
	if err := vs.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return syncDir(vs, parent)
}

func syncDir(vs vfs.FS, dir string) error {
	d, err := vs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                 watched{s.fs, s},
		Lock:               s.lock,
		ReadOnly:           s.readOnly,
		FormatMajorVersion: pebbleFormat,
		CacheSize:          s.o.Cache,
		MemTableSize:       uint64(s.o.Memtable),
		MaxOpenFiles:       512,
		Logger:             quiet{s},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { s.broken(err, "in the background") },
			DataCorruption:  func(i pebble.DataCorruptionInfo) { s.broken(i.Details, "reading "+i.Path) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].IndexBlockSize = 256 << 10 // one level of index: a Get reads one block less
	}
	return o
}

// quiet is Pebble's logger: errors pass, a fatal error fails the store and returns.
type quiet struct{ s *Store }

func (quiet) Infof(string, ...any) {}

func (q quiet) Errorf(format string, args ...any) {
	q.s.log.Error(oneLine(fmt.Sprintf(format, args...)), "dir", q.s.dir)
}

func (q quiet) Fatalf(format string, args ...any) {
	for _, a := range args {
		if err, ok := a.(error); ok {
			q.s.broken(err, strings.TrimSuffix(format, ": %v"))
			return
		}
	}
	q.s.broken(errors.New(oneLine(fmt.Sprintf(format, args...))), "in Pebble")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// checkMark compares what Pebble recovered with what had been synced.
func (s *Store) checkMark() error {
	marked, err := readMark(s.fs, s.path(markFile))
	if err != nil || s.readOnly {
		return err
	}
	at, err := position(s.db)
	if err != nil {
		return err
	}
	if at < marked {
		return fail(ErrLost, nil, "%s ends at write %d, but write %d had been synced%s", s.dir, at, marked, s.advice(ErrLost))
	}
	return s.mark.open(s.fs, s.path(markFile), marked)
}

// checkIdentity reads the identity, or writes it in a directory that has none and no data.
func (s *Store) checkIdentity() error {
	v, ok, err := s.get(identityKey())
	if err != nil {
		return err
	}
	if ok {
		if s.identity, err = decodeIdentity(v); err != nil {
			return err
		}
		if s.o.Cluster != "" && s.o.Cluster != s.identity.Cluster {
			return fail(ErrForeign, nil, "%s holds data of cluster %s, not of %s", s.dir, s.identity.Cluster, s.o.Cluster)
		}
		return nil
	}
	if gs, err := s.Groups(); err != nil {
		return err
	} else if len(gs) > 0 {
		return fail(ErrCorrupt, nil, "%s has data but no identity: a restore into it did not finish; empty it and restore again", s.dir)
	}
	if s.o.Create == nil || s.readOnly {
		return fail(ErrNotBorn, nil, "%s holds no data of muster", s.dir)
	}
	return s.writeIdentity(*s.o.Create)
}

func (s *Store) writeIdentity(id Identity) error {
	if id.Node == 0 {
		return fail(ErrInvalid, nil, "an identity has a node id")
	}
	id.Format = formatVersion
	if id.Cluster == "" {
		id.Cluster = uuid.NewString()
	}
	if id.Store == "" {
		id.Store = uuid.NewString()
	}
	if id.BornAt == 0 {
		id.BornAt = time.Now().UnixMilli()
	}
	if s.o.Cluster != "" && s.o.Cluster != id.Cluster {
		return fail(ErrForeign, nil, "%s would be born in cluster %s, not in %s", s.dir, id.Cluster, s.o.Cluster)
	}
	v, err := encodeIdentity(id)
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	if err := b.Set(identityKey(), v, nil); err != nil {
		return err
	}
	if err := s.commit(b, true); err != nil {
		return err
	}
	s.identity = id
	return nil
}

// loadReplicas learns the bounds of all logs.
func (s *Store) loadReplicas() (err error) {
	if s.retire, err = s.Tombstones(); err != nil {
		return err
	}
	gs, err := s.Groups()
	if err != nil {
		return err
	}
	for _, g := range gs {
		_, st, first, last, err := load(s.db, g)
		if classify(err, "") == ErrNoGroup {
			err = fail(ErrCorrupt, nil, "group %d has no state row", g)
		}
		if err != nil {
			return err
		}
		s.groups[g] = &replicaLog{
			first: first, last: last, truncatedTerm: st.TruncatedTerm, id: st.Replica, applied: st.Applied, generation: st.Generation,
		}
	}
	return nil
}

// Close ends the use of the directory; what Write did not sync may be lost. No other
// method may run or be called again. After a failure it may leave the directory locked.
func (s *Store) Close() error {
	s.closing.Store(true)
	s.ballast.mu.Lock()
	defer s.ballast.mu.Unlock()
	var errs []error
	if s.stuck.Load() {
		return s.Err()
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
		s.db = nil
	}
	errs = append(errs, s.mark.close())
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}
