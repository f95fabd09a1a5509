package persistence

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Defaults of Options.
const (
	DefaultCache    = 32 << 20
	DefaultMemtable = 16 << 20
	DefaultBallast  = 64 << 20
)

// Options of Open. The zero value opens an existing directory on the real file system.
type Options struct {
	FS      vfs.FS    // default vfs.Default
	Create  *Identity // who to be if the directory has no identity yet; nil: such a directory is refused
	Cluster string    // the cluster the directory must be of; empty: any

	Cache    int64 // bytes of the block cache; 0: DefaultCache
	Memtable int64 // bytes of one memtable, two may exist; 0: DefaultMemtable
	Ballast  int64 // bytes kept aside for a full disk; 0: DefaultBallast, < 0: none
	Reserve  int64 // free bytes below which Room says low; 0: the larger of 1 GiB and 5 % of the disk

	Logger *slog.Logger // default slog.Default
	// Fatal is told once that the store has failed for good, on any goroutine, also while
	// Open runs. It logs the error, which is one line, and ends the process; methods that
	// run meanwhile may never return. Without it Pebble may panic where nobody can recover.
	Fatal func(error)
}

// Store is one node's disk. Get, Scan, Entries, Term, Load, Snapshot and Backup may run
// beside Write and each other. Write and Ingest of one group must not overlap.
//
// After a failed write every method returns that failure: what is on the disk is not
// known any more, so the process must end and read the directory again.
type Store struct {
	dir      string
	o        Options
	fs       vfs.FS
	log      *slog.Logger
	lock     *pebble.Lock
	db       *pebble.DB
	identity Identity
	readOnly bool

	failure atomic.Pointer[Error]
	stuck   atomic.Bool // a failure left Pebble in the middle of something: it cannot be closed
	closing atomic.Bool

	mu   sync.Mutex // one Write at a time; guards mark
	mark mark

	logs   sync.RWMutex // guards what follows; written only with mu held
	groups map[uint32]*replicaLog
	retire map[uint32]uint64

	staged  atomic.Uint64 // numbers the directories of staged snapshots
	ballast ballast
}

// replicaLog is what the store keeps in memory of a replica. It is never changed, only
// replaced.
type replicaLog struct {
	first, last   uint64 // the log holds [first, last]; empty when last == first-1
	truncatedTerm uint64 // term of first-1
	id            uint64 // replica id
	applied       uint64
	generation    uint64
}

func (s *Store) replica(group uint32) *replicaLog {
	s.logs.RLock()
	defer s.logs.RUnlock()
	return s.groups[group]
}

// setReplica is called with mu held; nil forgets the group.
func (s *Store) setReplica(group uint32, r *replicaLog) {
	s.logs.Lock()
	defer s.logs.Unlock()
	if r == nil {
		delete(s.groups, group)
		return
	}
	s.groups[group] = r
}

// Identity says whose the directory is.
func (s *Store) Identity() Identity { return s.identity }

// Dir is the directory the store was opened in.
func (s *Store) Dir() string { return s.dir }

// Err is the failure that ended the store, or nil.
func (s *Store) Err() error {
	if e := s.failure.Load(); e != nil {
		return e
	}
	return nil
}

// broken makes err the store's failure, once, and tells the caller.
func (s *Store) broken(err error, doing string) error {
	code := classify(err, ErrFailed)
	e := &Error{Code: code, Text: s.dir + ": " + doing + s.advice(code), Err: err}
	if s.failure.CompareAndSwap(nil, e) && !s.closing.Load() {
		s.log.Error("the store has failed", "error", e)
		if s.o.Fatal != nil {
			s.o.Fatal(e)
		}
	}
	return s.failure.Load()
}

// read wraps what a read of Pebble returned. A damaged file fails the store.
func (s *Store) read(err error) error {
	if f := s.Err(); f != nil {
		return f
	}
	if err == nil {
		return nil
	}
	return s.broken(err, "reading")
}

// Groups lists the groups that have a replica here, ascending.
func (s *Store) Groups() ([]uint32, error) {
	var out []uint32
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceGroup}, UpperBound: []byte{spaceGroup + 1}})
	if err != nil {
		return nil, s.read(err)
	}
	for ok := it.First(); ok; {
		k, good := ParseKey(it.Key())
		if !good {
			_ = it.Close()
			return nil, s.broken(fail(ErrCorrupt, nil, "key %x is not of this layout", it.Key()), "reading")
		}
		out = append(out, k.Group)
		if k.Group == math.MaxUint32 {
			break
		}
		ok = it.SeekGE(appendGroup(nil, k.Group+1))
	}
	return out, s.read(it.Close())
}

// Tombstones says, for each group that had a replica here, the smallest replica id it
// may come back with.
func (s *Store) Tombstones() (map[uint32]uint64, error) {
	out := map[uint32]uint64{}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceTombstone}, UpperBound: []byte{spaceTombstone + 1}})
	if err != nil {
		return nil, s.read(err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		k, good := ParseKey(it.Key())
		if !good {
			err = fail(ErrCorrupt, nil, "key %x is not of this layout", it.Key())
			break
		}
		out[k.Group], err = decodeTombstone(it.Value())
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return out, s.read(err)
}
