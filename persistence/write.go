package persistence

import (
	"bytes"
	"fmt"
	"maps"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"
)

// Write applies the updates as one Pebble batch: after a crash all of it is there or
// none, and nothing of a later Write without the earlier ones. With sync it and every
// earlier Write are on the disk when it returns; without, a kill -9 may lose it.
//
// A replica keeps its id until it is destroyed, unless its generation grows.
//
// ErrInvalid and ErrRetired say that the updates break a rule and nothing was written.
// After any other error the store has failed and the process must end.
func (s *Store) Write(us []Update, sync bool) error {
	if s.readOnly {
		return fail(ErrReadOnly, nil, "%s was opened to read only", s.dir)
	}
	if err := s.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Err(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	after := outcome{logs: make(map[uint32]*replicaLog, len(us)), retire: map[uint32]uint64{}}
	for i := range us {
		if err := s.add(b, &us[i], &after); err != nil {
			return err
		}
	}
	if err := s.commit(b, sync); err != nil {
		return err
	}
	s.noteWritten(&after)
	return nil
}

// outcome is what a batch, once committed, changes in memory.
type outcome struct {
	logs   map[uint32]*replicaLog // nil: the replica is gone
	retire map[uint32]uint64
}

func (s *Store) noteWritten(after *outcome) {
	for g, r := range after.logs {
		s.setReplica(g, r)
	}
	s.logs.Lock()
	defer s.logs.Unlock()
	maps.Copy(s.retire, after.retire)
}

// commitSynced makes every earlier write durable and moves the mark.
func (s *Store) commitSynced() error {
	b := s.db.NewBatch()
	defer b.Close()
	return s.commit(b, true)
}

// commit applies b and, when synced, moves the mark. Pebble panics or logs a fatal line
// when its log cannot be written; both become the store's failure.
func (s *Store) commit(b *pebble.Batch, sync bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.stuck.Store(true)
			err = s.broken(asError(p), "writing")
		}
	}()
	o := pebble.NoSync
	if sync {
		o = pebble.Sync
	}
	if b.Empty() {
		if !sync {
			return nil
		}
		if err := b.LogData(nil, nil); err != nil {
			return s.broken(err, "writing")
		}
	}
	if err := s.db.Apply(b, o); err != nil {
		return s.broken(err, "writing")
	}
	if err := s.Err(); err != nil {
		return err
	}
	if sync {
		if err := s.mark.set(uint64(b.SeqNum()) + uint64(b.Count())); err != nil {
			return s.broken(err, "writing")
		}
	}
	return nil
}

func asError(p any) error {
	if err, ok := p.(error); ok {
		return err
	}
	return fmt.Errorf("%v", p)
}

// add puts one update into the batch and notes its outcome.
func (s *Store) add(b *pebble.Batch, u *Update, after *outcome) error {
	r, touched := after.logs[u.Group]
	if old := s.groups[u.Group]; !touched && old != nil {
		c := *old
		r = &c
	}
	next := max(s.retire[u.Group], after.retire[u.Group])
	if u.Destroy != 0 {
		if u.State != nil || u.Hard != nil || len(u.Entries) > 0 || len(u.Ops) > 0 {
			return fail(ErrInvalid, nil, "group %d: an update that destroys has other changes", u.Group)
		}
		after.logs[u.Group], after.retire[u.Group] = nil, max(u.Destroy, next)
		return destroy(b, u.Group, max(u.Destroy, next))
	}
	if r == nil {
		if u.State == nil {
			return fail(ErrInvalid, nil, "group %d: the first update of a replica has no state", u.Group)
		}
		r = &replicaLog{first: u.State.Truncated + 1, last: u.State.Truncated}
	}
	after.logs[u.Group] = r
	if err := addLog(b, u, r); err != nil {
		return err
	}
	if err := s.addOps(b, u, touched); err != nil {
		return err
	}
	if u.State != nil {
		if err := addState(b, u, r, next); err != nil {
			return err
		}
	}
	if u.Hard == nil {
		return nil
	}
	if c := u.Hard.GetCommit(); c > r.last {
		return fail(ErrInvalid, nil, "group %d: commit %d is beyond the log's end %d", u.Group, c, r.last)
	}
	return b.Set(hardKey(u.Group), encodeHard(u.Hard), nil)
}

func addState(b *pebble.Batch, u *Update, r *replicaLog, next uint64) error {
	st := u.State
	switch {
	case st.Replica == 0:
		return fail(ErrInvalid, nil, "group %d: the state has no replica id", u.Group)
	case st.Replica < next:
		return retired(u.Group, st.Replica, next)
	case r.id != 0 && r.id != st.Replica && st.Generation <= r.generation:
		return fail(ErrInvalid, nil, "group %d: replica %d becomes %d without being destroyed, in generation %d", u.Group, r.id, st.Replica, r.generation)
	case st.Truncated != r.first-1:
		return fail(ErrInvalid, nil, "group %d: the state says truncated at %d, the log begins at %d", u.Group, st.Truncated, r.first)
	case st.Applied < st.Truncated || st.Applied > r.last:
		return fail(ErrInvalid, nil, "group %d: applied %d is outside the log (%d, %d]", u.Group, st.Applied, st.Truncated, r.last)
	}
	r.id, r.truncatedTerm, r.applied, r.generation = st.Replica, st.TruncatedTerm, st.Applied, st.Generation
	return b.Set(stateKey(u.Group), encodeState(st), nil)
}

func retired(group uint32, id, next uint64) error {
	return fail(ErrRetired, nil, "group %d: replica %d was destroyed here; the next may be %d", group, id, next)
}

func destroy(b *pebble.Batch, group uint32, next uint64) error {
	from, to := groupSpan(group)
	if err := b.DeleteRange(from, to, nil); err != nil {
		return err
	}
	return b.Set(tombstoneKey(group), encodeTombstone(next), nil)
}

func addLog(b *pebble.Batch, u *Update, r *replicaLog) error {
	if len(u.Entries) > 0 {
		from := u.Entries[0].GetIndex()
		if from < r.first || from > r.last+1 {
			return fail(ErrInvalid, nil, "group %d: entries from %d do not join the log [%d, %d]", u.Group, from, r.first, r.last)
		}
		if from <= r.last {
			if err := clearLog(b, u.Group, from, r.last); err != nil {
				return err
			}
		}
		if err := setEntries(b, u.Group, u.Entries); err != nil {
			return err
		}
		r.last = from + uint64(len(u.Entries)) - 1
	}
	if t := u.Truncate; t >= r.first && t != 0 {
		if t > r.last || u.State == nil || u.State.Truncated != t {
			return fail(ErrInvalid, nil, "group %d: truncating at %d without a state that says so, or beyond the log's end %d", u.Group, t, r.last)
		}
		if err := clearLog(b, u.Group, r.first, t); err != nil {
			return err
		}
		r.first = t + 1
	}
	return nil
}

// fewKeys is up to how many keys a deletion is written key by key: every range deletion
// in a memtable makes all reads beside it slower until the memtable is flushed.
const fewKeys = 64

// clearLog deletes the entries [lo, hi].
func clearLog(b *pebble.Batch, group uint32, lo, hi uint64) error {
	if hi-lo < fewKeys {
		for i := lo; i <= hi; i++ {
			if err := b.Delete(logKey(group, i), nil); err != nil {
				return err
			}
		}
		return nil
	}
	to := logKey(group, hi+1)
	if hi == math.MaxUint64 {
		_, to = partSpan(group, partLog)
	}
	return b.DeleteRange(logKey(group, lo), to, nil)
}

func setEntries(b *pebble.Batch, group uint32, es []*raftpb.Entry) error {
	for i, e := range es {
		if want := es[0].GetIndex() + uint64(i); e.GetIndex() != want {
			return fail(ErrInvalid, nil, "group %d: entry %d stands where %d should", group, e.GetIndex(), want)
		}
		op := b.SetDeferred(groupPrefix+1+8, entrySize(e))
		appendLogKey(op.Key[:0], group, e.GetIndex())
		appendEntry(op.Value[:0], e)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	return nil
}

// addOps adds the ops of an update. again: an earlier update of the batch may have
// written rows of the group.
func (s *Store) addOps(b *pebble.Batch, u *Update, again bool) (err error) {
	var buf []byte
	for i := range u.Ops {
		op := &u.Ops[i]
		buf = appendRowKey(buf[:0], u.Group, op.Key)
		switch {
		case op.End != nil && again:
			err = b.DeleteRange(buf, rowKey(u.Group, op.End), nil)
		case op.End != nil:
			err = s.deleteRows(b, buf, rowKey(u.Group, op.End), u.Ops[:i])
		case op.Value == nil:
			err = b.Delete(buf, nil)
		default:
			err = b.Set(buf, op.Value, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteRows deletes the rows [from, to): those in the store and those that earlier ops
// of the same batch put. Few are deleted one by one.
func (s *Store) deleteRows(b *pebble.Batch, from, to []byte, earlier []Op) error {
	if bytes.Compare(from, to) >= 0 {
		return nil
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return s.read(err)
	}
	var keys [][]byte
	for ok := it.First(); ok && len(keys) <= fewKeys; ok = it.Next() {
		keys = append(keys, bytes.Clone(it.Key()))
	}
	if err := s.read(it.Close()); err != nil {
		return err
	}
	for i := range earlier {
		inner := earlier[i].Key
		if bytes.Compare(inner, from[groupPrefix+1:]) >= 0 && bytes.Compare(inner, to[groupPrefix+1:]) < 0 {
			keys = append(keys, append(bytes.Clone(from[:groupPrefix+1]), inner...))
		}
	}
	if len(keys) > fewKeys {
		return b.DeleteRange(from, to, nil)
	}
	for _, k := range keys {
		if err := b.Delete(k, nil); err != nil {
			return err
		}
	}
	return nil
}
