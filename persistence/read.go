package persistence

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"
)

// Get returns a copy of a row; ok is false if there is none.
func (s *Store) Get(shard uint32, key []byte) (value []byte, ok bool, err error) {
	var buf [128]byte
	return s.get(appendRowKey(buf[:0], shard+1, key))
}

func (s *Store) get(key []byte) ([]byte, bool, error) {
	v, closer, err := s.db.Get(key)
	if err != nil {
		if errors.Is(err, pebble.ErrNotFound) {
			return nil, false, s.Err()
		}
		return nil, false, s.read(err)
	}
	value := append(make([]byte, 0, len(v)), v...)
	return value, true, s.read(closer.Close())
}

// Scan visits the rows [from, to) of a shard in key order until visit returns false;
// an empty to means to the end. Keys are inner keys; key and value are valid only during
// the call of visit.
func (s *Store) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	return s.read(scanRows(s.db, shard+1, from, to, visit))
}

func scanRows(r pebble.Reader, group uint32, from, to []byte, visit func(key, value []byte) bool) error {
	_, end := partSpan(group, partRow)
	if len(to) > 0 {
		end = rowKey(group, to)
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: rowKey(group, from), UpperBound: end})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !visit(it.Key()[groupPrefix+1:], v) {
			break
		}
	}
	return it.Close()
}

// Load reads what a replica needs to start: its hard state, its state row and the
// bounds of its log [first, last]; last is first-1 when the log is empty. It checks
// that what was committed or applied is in the log: ErrCorrupt or ErrLost otherwise.
func (s *Store) Load(group uint32) (*raftpb.HardState, State, uint64, uint64, error) {
	hard, st, first, last, err := load(s.db, group)
	if err != nil {
		var own *Error
		if errors.As(err, &own) && own.Code == ErrNoGroup {
			return nil, State{}, 0, 0, err
		}
		return nil, State{}, 0, 0, s.read(err)
	}
	return hard, st, first, last, s.Err()
}

func load(r pebble.Reader, group uint32) (hard *raftpb.HardState, st State, first, last uint64, err error) {
	v, ok, err := getCopy(r, stateKey(group))
	switch {
	case err != nil:
		return nil, st, 0, 0, err
	case !ok:
		return nil, st, 0, 0, fail(ErrNoGroup, nil, "there is no replica of group %d", group)
	}
	if st, err = decodeState(v); err != nil {
		return nil, st, 0, 0, err
	}
	hard = hardState(0, 0, 0)
	if v, ok, err = getCopy(r, hardKey(group)); err != nil {
		return nil, st, 0, 0, err
	} else if ok {
		if hard, err = decodeHard(v); err != nil {
			return nil, st, 0, 0, err
		}
	}
	first, last, err = logBounds(r, group, st.Truncated)
	if err != nil {
		return nil, st, 0, 0, err
	}
	switch {
	case st.Applied > last:
		err = fail(ErrLost, nil, "group %d: entry %d was applied, the log ends at %d", group, st.Applied, last)
	case hard.GetCommit() > last:
		err = fail(ErrLost, nil, "group %d: entry %d was committed, the log ends at %d", group, hard.GetCommit(), last)
	case st.Applied < st.Truncated:
		err = fail(ErrCorrupt, nil, "group %d: applied %d is behind the truncated log (%d)", group, st.Applied, st.Truncated)
	}
	return hard, st, first, last, err
}

// logBounds finds the ends of a group's log and checks that they join.
func logBounds(r pebble.Reader, group uint32, truncated uint64) (first, last uint64, err error) {
	from, to := partSpan(group, partLog)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return 0, 0, err
	}
	first, last = truncated+1, truncated
	if it.First() {
		k, ok := ParseKey(it.Key())
		if !ok || k.Index != first {
			return 0, 0, errors.Join(fail(ErrCorrupt, nil, "group %d: the log begins at %d, not after %d", group, k.Index, truncated), it.Close())
		}
		it.Last()
		if k, ok = ParseKey(it.Key()); !ok {
			return 0, 0, errors.Join(fail(ErrCorrupt, nil, "group %d: key %x in the log", group, it.Key()), it.Close())
		}
		last = k.Index
	}
	return first, last, it.Close()
}

func getCopy(r pebble.Reader, key []byte) ([]byte, bool, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	v = append([]byte{}, v...)
	return v, true, closer.Close()
}

// Entries reads the log [lo, hi), at least one entry and then no more than maxBytes of
// data. ErrCompacted and ErrUnavailable as raft's Storage means them.
func (s *Store) Entries(group uint32, lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	if err := s.inLog(group, lo, hi); err != nil {
		return nil, err
	}
	es, err := readLog(s.db, group, lo, hi, maxBytes)
	return es, s.read(err)
}

// inLog says whether [lo, hi) is in the log.
func (s *Store) inLog(group uint32, lo, hi uint64) error {
	r := s.replica(group)
	switch {
	case r == nil:
		return fail(ErrNoGroup, nil, "there is no replica of group %d", group)
	case lo < r.first:
		return fail(ErrCompacted, nil, "group %d: entry %d was truncated", group, lo)
	case hi > r.last+1:
		return fail(ErrUnavailable, nil, "group %d: entry %d is beyond the log's end", group, hi-1)
	}
	return nil
}

func readLog(r pebble.Reader, group uint32, lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	if lo >= hi {
		return nil, nil
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: logKey(group, lo), UpperBound: logKey(group, hi)})
	if err != nil {
		return nil, err
	}
	es := make([]*raftpb.Entry, 0, min(hi-lo, 256))
	var size uint64
	for ok := it.First(); ok; ok = it.Next() {
		want := lo + uint64(len(es))
		if k, good := ParseKey(it.Key()); !good || k.Index != want {
			err = fail(ErrCorrupt, nil, "group %d: log entry %d is missing", group, want)
			break
		}
		var v []byte
		if v, err = it.ValueAndErr(); err != nil {
			break
		}
		if size += uint64(len(v)); size > maxBytes && len(es) > 0 {
			return es, it.Close()
		}
		var e *raftpb.Entry
		if e, err = decodeEntry(want, v); err != nil {
			break
		}
		es = append(es, e)
	}
	if err == nil && uint64(len(es)) != hi-lo {
		if err = it.Error(); err == nil {
			err = fail(ErrCorrupt, nil, "group %d: log entry %d is missing", group, lo+uint64(len(es)))
		}
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	return es, err
}

// Term is the term of entry i; also of the last truncated one.
func (s *Store) Term(group uint32, i uint64) (uint64, error) {
	if r := s.replica(group); r != nil && i == r.first-1 {
		return r.truncatedTerm, nil
	}
	if err := s.inLog(group, i, i+1); err != nil {
		return 0, err
	}
	var term uint64
	v, closer, err := s.db.Get(logKey(group, i))
	if err == nil {
		n := 0
		if len(v) > 2 && v[0] == entryVersion {
			term, n = binary.Uvarint(v[2:])
		}
		if n <= 0 {
			err = fail(ErrCorrupt, nil, "group %d: log entry %d cannot be read", group, i)
		}
		err = errors.Join(err, closer.Close())
	}
	return term, s.read(err)
}
