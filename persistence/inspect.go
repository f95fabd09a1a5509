package persistence

import (
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Kind counts the rows of a group whose inner keys begin with one byte.
type Kind struct {
	Byte             byte
	Rows             int64
	KeyBytes, Values int64 // bytes of inner keys and of values
}

// Count reads all rows of a group and counts them by the first byte of their inner key.
func (s *Store) Count(group uint32) ([]Kind, error) {
	var kinds [256]Kind
	err := s.Scan(group-1, nil, nil, func(key, value []byte) bool {
		if len(key) == 0 {
			return true
		}
		k := &kinds[key[0]]
		k.Byte = key[0]
		k.Rows++
		k.KeyBytes += int64(len(key))
		k.Values += int64(len(value))
		return true
	})
	return slices.DeleteFunc(kinds[:], func(k Kind) bool { return k.Rows == 0 }), err
}

// Check reads everything: every block's checksum, every key, every value this package
// wrote itself, and the rules that Load checks. It returns the first thing found wrong.
func (s *Store) Check() error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return s.read(err)
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		err = checkPair(it)
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return s.explain(err)
	}
	gs, err := s.Groups()
	if err != nil {
		return err
	}
	for _, g := range gs {
		_, _, first, last, err := s.Load(g)
		if err != nil {
			return err
		}
		for lo := first; lo <= last; lo += 256 {
			if _, err := readLog(s.db, g, lo, min(lo+256, last+1), 1<<62); err != nil {
				return s.explain(err)
			}
		}
	}
	return nil
}

func checkPair(it *pebble.Iterator) error {
	k, ok := ParseKey(it.Key())
	if !ok {
		return fail(ErrCorrupt, nil, "key %x is not of this layout", it.Key())
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return err
	}
	switch {
	case k.Space == spaceStore:
		_, err = decodeIdentity(v)
	case k.Space == spaceTombstone:
		_, err = decodeTombstone(v)
	case k.Part == partHard:
		_, err = decodeHard(v)
	case k.Part == partState:
		_, err = decodeState(v)
	case k.Part == partLog:
		_, err = decodeEntry(k.Index, v)
	}
	return err
}
