package persistence

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3/raftpb"
)

// Birth is the first chunk of a backup: of which store it is and when it was taken.
type Birth struct {
	Identity
	TakenAt int64 `json:"taken_at"` // Unix ms
}

// Summary is what a backup or a restore covered.
type Summary struct {
	Birth
	Groups      int
	Rows, Bytes int64 // Bytes of keys and values, without frames
}

// Backup writes groups of the node, all if none is named, as they stand at one moment, beside normal work.
// Each group is consistent: its rows are those of its applied index. The log is left out.
func (s *Store) Backup(w io.Writer, groups ...uint32) (Summary, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceGroup}, UpperBound: []byte{spaceGroup + 1}})
	if err != nil {
		return Summary{}, s.read(err)
	}
	sum, err := s.backup(w, it, groups)
	if ierr := it.Close(); ierr != nil {
		err = s.read(ierr)
	}
	if err == nil {
		err = s.Err()
	}
	return sum, err
}

func (s *Store) backup(w io.Writer, it *pebble.Iterator, groups []uint32) (Summary, error) {
	sum := Summary{Birth: Birth{Identity: s.identity, TakenAt: time.Now().UnixMilli()}}
	birth, err := json.Marshal(sum.Birth)
	if err != nil {
		return sum, err
	}
	sw := &streamWriter{w: w}
	if err := sw.begin(streamBackup); err != nil {
		return sum, err
	}
	if err := sw.chunk(chunkBirth, birth); err != nil {
		return sum, err
	}
	for ok := it.First(); ok; {
		k, good := ParseKey(it.Key())
		if !good {
			return sum, s.broken(fail(ErrCorrupt, nil, "key %x is not of this layout", it.Key()), "reading")
		}
		if len(groups) == 0 || slices.Contains(groups, k.Group) {
			if err := sw.group(k.Group, it, true); err != nil {
				return sum, err
			}
			sum.Groups++
		}
		_, end := groupSpan(k.Group)
		ok = it.SeekGE(end)
	}
	sum.Rows, sum.Bytes = sw.rows, sw.bytes
	return sum, sw.chunk(chunkLast, binary.AppendUvarint(nil, uint64(sum.Groups)))
}

// termLeap is how far a restored group's term is ahead of the stored one: the old
// cluster, if it still runs, does not reach it by elections.
const termLeap = 1 << 20

// Restore makes a new cluster of one node in an empty directory from a backup. The
// identity is Options.Create's; what it leaves empty is new (cluster id, store) or the
// backup's (node id, name). Every group begins as a group of one voter with a new replica
// id and no log, under a term above the stored one, with the next generation, so that
// streams get a new epoch.
//
// ErrNotEmpty, ErrBackup, ErrNewer, ErrDiskFull. After an error the directory is empty
// again; after a crash Open refuses what is there.
func Restore(dir string, r io.Reader, o Options) (sum Summary, err error) {
	s := &Store{dir: dir, o: o.withDefaults(), groups: map[uint32]*replicaLog{}, retire: map[uint32]uint64{}}
	s.fs, s.log = s.o.FS, s.o.Logger
	if err := s.checkEmpty(); err != nil {
		return Summary{}, s.explain(err)
	}
	sr := &streamReader{r: r}
	if sum.Birth, err = sr.birth(); err != nil {
		return Summary{}, err
	}
	id, err := restored(sum.Birth, o.Create)
	if err != nil {
		return Summary{}, err
	}
	err = s.restore(sr, id, &sum)
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		err = s.explain(err)
		return Summary{}, errors.Join(err, s.wipe())
	}
	return sum, nil
}

// restored is the identity of the new cluster.
func restored(from Birth, create *Identity) (Identity, error) {
	id := Identity{Node: from.Node, Name: from.Name}
	if create != nil {
		id.Cluster, id.Store = create.Cluster, create.Store
		if create.Node != 0 {
			id.Node = create.Node
		}
		if create.Name != "" {
			id.Name = create.Name
		}
	}
	if id.Cluster == from.Cluster || id.Store == from.Identity.Store {
		return id, fail(ErrInvalid, nil, "a restored cluster needs ids of its own, not those of %s", from.Cluster)
	}
	return id, nil
}

func (s *Store) checkEmpty() error {
	names, err := s.fs.List(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if n != "lost+found" {
			return fail(ErrNotEmpty, nil, "%s is not empty: a backup is restored into an empty directory", s.dir)
		}
	}
	return nil
}

func (s *Store) restore(sr *streamReader, id Identity, sum *Summary) error {
	if err := s.openPebble(true); err != nil {
		return err
	}
	for {
		kind, b, err := sr.next()
		if err != nil {
			return err
		}
		switch kind {
		case chunkGroup:
			if err := s.restoreGroup(sr, b, id.Node); err != nil {
				return err
			}
			sum.Groups++
		case chunkLast:
			d := decoder{b: b}
			if n := d.uvarint(); d.end() != nil || n != uint64(sum.Groups) {
				return damaged("%d groups came, %d were sent", sum.Groups, n)
			}
			if _, err := io.ReadFull(sr.r, make([]byte, 1)); !errors.Is(err, io.EOF) {
				return errors.Join(damaged("something follows its end"), err)
			}
			sum.Rows, sum.Bytes = sr.rowCount, sr.byteCount
			if err := s.writeIdentity(id); err != nil {
				return err
			}
			sum.Identity = s.identity
			return nil
		default:
			return damaged("chunk %q between groups", kind)
		}
	}
}

func (s *Store) restoreGroup(sr *streamReader, head []byte, node uint64) error {
	h, err := decodeGroupHead(head, true)
	if err != nil {
		return err
	}
	if s.replica(h.group) != nil {
		return damaged("group %d comes twice", h.group)
	}
	t, err := s.stage(h, sr)
	if err != nil {
		return err
	}
	next := t.State.lastReplica() + 1
	t.State.Conf = &raftpb.ConfState{Voters: []uint64{next}}
	t.State.Members = []Member{{Replica: next, Node: node}}
	t.State.Generation++
	term := max(h.hard.GetTerm()+termLeap, uint64(time.Now().Unix()))
	return s.Ingest(t, term, 0, next)
}

// lastReplica is the largest replica id the group has had, as far as its state knows.
func (s *State) lastReplica() uint64 {
	last := s.Replica
	for _, m := range s.Members {
		last = max(last, m.Replica)
	}
	for _, ids := range [][]uint64{s.Conf.GetVoters(), s.Conf.GetLearners(), s.Conf.GetVotersOutgoing(), s.Conf.GetLearnersNext()} {
		for _, id := range ids {
			last = max(last, id)
		}
	}
	return last
}

// wipe deletes what Restore made.
func (s *Store) wipe() error {
	var errs []error
	for _, n := range []string{pebbleDir, stagedDir, markFile, ballastFile, formatFile} {
		errs = append(errs, s.fs.RemoveAll(s.path(n)))
	}
	return errors.Join(errs...)
}

func (s *streamReader) birth() (b Birth, err error) {
	if err := s.begin(streamBackup); err != nil {
		return b, err
	}
	kind, payload, err := s.next()
	if err != nil {
		return b, err
	}
	if kind != chunkBirth || json.Unmarshal(payload, &b) != nil || b.Format < 1 {
		return b, damaged("its birth cannot be read")
	}
	if b.Format > formatVersion {
		return b, newer(b.Format)
	}
	return b, nil
}
