package persistence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

type raftHard = raftpb.HardState

// Snapshot is one group as it stood when it was taken: State with the ConfState of
// that moment, and the rows.
type Snapshot struct {
	Group uint32
	State State

	s  *Store
	it *pebble.Iterator // not a pebble.Snapshot: an excise beside it would take rows from one
}

// Snapshot freezes a group. Close it soon, and before the store: it keeps deleted data.
func (s *Store) Snapshot(group uint32) (*Snapshot, error) {
	from, to := groupSpan(group)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return nil, s.read(err)
	}
	p := &Snapshot{Group: group, s: s, it: it}
	if p.State, _, err = readHead(it, group); err != nil {
		_ = it.Close()
		if classify(err, "") == ErrNoGroup {
			return nil, err
		}
		return nil, s.read(err)
	}
	return p, s.Err()
}

// WriteTo writes the snapshot as a stream for Receive. It may be called again. The
// sender's hard state is not part of it.
func (p *Snapshot) WriteTo(w io.Writer) (int64, error) {
	sw := &streamWriter{w: w}
	if err := sw.begin(streamSnapshot); err != nil {
		return sw.n, err
	}
	err := sw.group(p.Group, p.it, false)
	if ierr := p.it.Error(); ierr != nil {
		err = p.s.read(ierr)
	}
	return sw.n, err
}

// Close lets the snapshot go.
func (p *Snapshot) Close() error { return p.s.read(p.it.Close()) }

// stagedTarget is the size at which a staged file is finished and the next begun.
const stagedTarget = 32 << 20

// Staged is a received snapshot: checked, in files of its own, not yet part of the store.
type Staged struct {
	Group uint32
	State State // the sender's: Applied, AppliedTerm, Conf, Members, Hash, At, Generation

	s     *Store
	dir   string
	paths []string
	w     *sstable.Writer
	mu    sync.Mutex
	done  bool
}

// Receive reads a snapshot's stream, no byte more, and stages its rows. ErrBackup if
// the stream is cut off, damaged or cannot be read: nothing stays on the disk then. A disk that fails fails the store.
func (s *Store) Receive(r io.Reader) (*Staged, error) {
	sr := &streamReader{r: r}
	if err := sr.begin(streamSnapshot); err != nil {
		return nil, err
	}
	kind, b, err := sr.next()
	if err != nil {
		return nil, err
	}
	if kind != chunkGroup {
		return nil, damaged("chunk %q where the group should be", kind)
	}
	h, err := decodeGroupHead(b, false)
	if err != nil {
		return nil, err
	}
	return s.stage(h, sr)
}

// stage writes the rows that follow a group's head into files.
func (s *Store) stage(h groupHead, sr *streamReader) (*Staged, error) {
	if s.readOnly {
		return nil, fail(ErrReadOnly, nil, "%s was opened to read only", s.dir)
	}
	t := &Staged{Group: h.group, State: h.state, s: s, dir: s.path(stagedDir, strconv.FormatUint(s.staged.Add(1), 10))}
	if err := t.write(sr); err != nil {
		_ = t.Discard()
		return nil, err
	}
	return t, nil
}

func (t *Staged) write(sr *streamReader) error {
	if err := t.s.staging(t.s.fs.MkdirAll(t.dir, 0o750)); err != nil {
		return err
	}
	if err := sr.rows(func(inner, value []byte) error { return t.s.staging(t.put(inner, value)) }); err != nil {
		return err
	}
	return t.s.staging(t.finish())
}

func (s *Store) staging(err error) error {
	if err == nil {
		return nil
	}
	return s.broken(err, "staging a snapshot")
}

func (t *Staged) put(inner, value []byte) error {
	if t.w == nil {
		if err := t.create("rows"); err != nil {
			return err
		}
	}
	if err := t.w.Set(rowKey(t.Group, inner), value); err != nil {
		return err
	}
	if t.w.Raw().EstimatedSize() < stagedTarget {
		return nil
	}
	return t.finish()
}

func (t *Staged) create(name string) error {
	path := t.s.fs.PathJoin(t.dir, fmt.Sprintf("%s-%d.sst", name, len(t.paths)))
	f, err := t.s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	o := t.s.pebbleOptions()
	o.EnsureDefaults()
	t.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), o.MakeWriterOptions(0, t.s.db.TableFormat()))
	t.paths = append(t.paths, path)
	return nil
}

// finish closes the file being written and syncs it.
func (t *Staged) finish() error {
	if t.w == nil {
		return nil
	}
	w := t.w
	t.w = nil
	return w.Close()
}

// Discard deletes the staged files. After Ingest it does nothing.
func (t *Staged) Discard() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return nil
	}
	t.done = true
	if t.w != nil {
		_ = t.w.Close()
	}
	return t.s.fs.RemoveAll(t.dir)
}

// Ingest replaces everything the group has here, log included, by the staged rows in
// one step: after a crash the old replica is there or the new one. The receiver's own
// rows are built here: hard state with the given term and vote and the snapshot's index
// as commit, an empty log after that index, the sender's ConfState, the given replica id.
// No Write to the group may run meanwhile. The Staged is used up, also by a failure.
//
// ErrInvalid and ErrRetired say that nothing changed. After any other error the store
// has failed.
func (s *Store) Ingest(t *Staged, term, vote, replica uint64) (err error) {
	st := t.State
	st.Replica = replica
	st.Truncated, st.TruncatedTerm = st.Applied, st.AppliedTerm
	defer t.Discard() // what stays is deleted by the next Open
	if err := s.mayIngest(t.Group, &st, term); err != nil {
		return err
	}
	if err := t.own(&st, hardState(term, vote, st.Applied)); err != nil {
		return s.staging(err)
	}
	if err := s.excise(t); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setReplica(t.Group, &replicaLog{first: st.Applied + 1, last: st.Applied, truncatedTerm: st.AppliedTerm, id: replica, applied: st.Applied, generation: st.Generation})
	return s.commitSynced()
}

func (s *Store) mayIngest(group uint32, st *State, term uint64) error {
	if err := s.Err(); err != nil {
		return err
	}
	s.logs.RLock()
	defer s.logs.RUnlock()
	old := s.groups[group]
	switch {
	case st.Replica == 0:
		return fail(ErrInvalid, nil, "group %d: a snapshot is ingested without a replica id", group)
	case st.Replica < s.retire[group]:
		return retired(group, st.Replica, s.retire[group])
	case term < st.AppliedTerm:
		return fail(ErrInvalid, nil, "group %d: term %d is older than the snapshot's entry (%d)", group, term, st.AppliedTerm)
	case old != nil && old.id != 0 && old.id != st.Replica:
		return fail(ErrInvalid, nil, "group %d: replica %d becomes %d without being destroyed", group, old.id, st.Replica)
	case old != nil && st.Applied < old.applied && st.Generation <= old.generation:
		return fail(ErrInvalid, nil, "group %d: a snapshot of entry %d would undo entry %d", group, st.Applied, old.applied)
	}
	return nil
}

// own stages the receiver's own rows; they sort before the sender's.
func (t *Staged) own(st *State, hard *raftHard) error {
	if err := t.create("own"); err != nil {
		return err
	}
	return errors.Join(
		t.w.Set(hardKey(t.Group), encodeHard(hard)),
		t.w.Set(stateKey(t.Group), encodeState(st)),
		t.finish())
}

func (s *Store) excise(t *Staged) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.broken(asError(p), "ingesting a snapshot")
		}
	}()
	from, to := groupSpan(t.Group)
	if _, err := s.db.IngestAndExcise(context.Background(), t.paths, nil, nil, pebble.KeyRange{Start: from, End: to}); err != nil {
		return s.broken(err, "ingesting a snapshot")
	}
	return s.Err()
}
