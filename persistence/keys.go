package persistence

import (
	"encoding/binary"
	"math"
)

// Outer keys. The table is in doc.go; the golden test pins the bytes.
const (
	spaceStore     = 0x01 // rows of the directory itself
	spaceTombstone = 0x02 // retired replicas
	spaceGroup     = 0x03 // everything of a group

	storeIdentity = 0x01

	// Parts of a group. Rows are last, so that what a snapshot's receiver builds itself
	// sorts before the rows it was sent.
	partHard  = 0x01
	partState = 0x02
	partLog   = 0x03
	partRow   = 0x04
)

const groupPrefix = 1 + 4 // space, group

func appendGroup(b []byte, group uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, spaceGroup), group)
}

func identityKey() []byte { return []byte{spaceStore, storeIdentity} }

func tombstoneKey(group uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{spaceTombstone}, group)
}

func hardKey(group uint32) []byte  { return append(appendGroup(nil, group), partHard) }
func stateKey(group uint32) []byte { return append(appendGroup(nil, group), partState) }

func appendLogKey(b []byte, group uint32, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(appendGroup(b, group), partLog), index)
}

func logKey(group uint32, index uint64) []byte { return appendLogKey(nil, group, index) }

func appendRowKey(b []byte, group uint32, inner []byte) []byte {
	return append(append(appendGroup(b, group), partRow), inner...)
}

func rowKey(group uint32, inner []byte) []byte {
	return appendRowKey(make([]byte, 0, groupPrefix+1+len(inner)), group, inner)
}

// groupSpan is the half-open span of all keys of a group.
func groupSpan(group uint32) (from, to []byte) {
	if group == math.MaxUint32 {
		return appendGroup(nil, group), []byte{spaceGroup + 1}
	}
	return appendGroup(nil, group), appendGroup(nil, group+1)
}

// partSpan is the half-open span of one part of a group.
func partSpan(group uint32, part byte) (from, to []byte) {
	p := appendGroup(nil, group)
	return append(p, part), append(p[:len(p):len(p)], part+1)
}

// Key is an outer key taken apart.
type Key struct {
	Space, Part byte
	Group       uint32
	Index       uint64 // of a log entry
	Inner       []byte // of a row; a view of the bytes parsed
}

// ParseKey takes an outer key apart; false if the store never writes such a key.
func ParseKey(b []byte) (k Key, ok bool) {
	if len(b) < 2 {
		return Key{}, false
	}
	k.Space, b = b[0], b[1:]
	switch {
	case k.Space == spaceStore:
		k.Part = b[0]
		return k, len(b) == 1 && k.Part == storeIdentity
	case k.Space != spaceTombstone && k.Space != spaceGroup || len(b) < 4:
		return Key{}, false
	}
	k.Group, b = binary.BigEndian.Uint32(b), b[4:]
	if k.Space == spaceTombstone {
		return k, len(b) == 0
	}
	if len(b) == 0 {
		return Key{}, false
	}
	k.Part, b = b[0], b[1:]
	switch k.Part {
	case partHard, partState:
		return k, len(b) == 0
	case partLog:
		if len(b) != 8 {
			return Key{}, false
		}
		k.Index = binary.BigEndian.Uint64(b)
		return k, true
	case partRow:
		k.Inner = b
		return k, true
	}
	return Key{}, false
}
