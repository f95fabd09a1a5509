package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	"muster/persistence"
)

const (
	commandVersion = 1
	maxCommand     = 1 << 20  // bytes of one proposal
	maxGrouped     = 64 << 10 // bytes of several proposals in one entry
)

// ErrCommand says that an entry's payload is not a command that this build knows.
var ErrCommand = errors.New("cluster: not a command")

// newer says of which newer build an entry, or what a snapshot says beside the rows, is.
func newer(what string, found, known byte) error {
	if found <= known {
		return ErrCommand
	}
	return fmt.Errorf("%w that this build knows: %s %d, known up to %d: a newer build wrote it, start that one", ErrCommand, what, found, known)
}

// command is the payload of an entry: all proposals of a shard in one turn.
//
//	version 1 · term · shard time (zigzag) · seq of the last proposal · mark index [· mark hash, 8 bytes]
//	· number of ops · ops: kind, key [, value or end]; all numbers are uvarints, all bytes have their length before them
type command struct {
	term uint64
	at   int64
	seq  uint64
	mark mark
	ops  []persistence.Op
}

// mark is the rolling hash after an index; index 0: none.
type mark struct{ index, hash uint64 }

const (
	opPut = iota
	opDelete
	opDeleteRange
	lastOp = opDeleteRange
)

// sizeOf is what ops take in a command, a little rounded up.
func sizeOf(ops []persistence.Op) int64 {
	n := int64(32)
	for i := range ops {
		n += 8 + int64(len(ops[i].Key)+len(ops[i].End)+len(ops[i].Value))
	}
	return n
}

func (c *command) encode() []byte {
	b := make([]byte, 0, sizeOf(c.ops)+32)
	b = append(b, commandVersion)
	b = binary.AppendUvarint(b, c.term)
	b = binary.AppendVarint(b, c.at)
	b = binary.AppendUvarint(b, c.seq)
	b = binary.AppendUvarint(b, c.mark.index)
	if c.mark.index != 0 {
		b = binary.BigEndian.AppendUint64(b, c.mark.hash)
	}
	b = binary.AppendUvarint(b, uint64(len(c.ops)))
	for i := range c.ops {
		op := &c.ops[i]
		switch {
		case op.End != nil:
			b = appendBytes(appendBytes(append(b, opDeleteRange), op.Key), op.End)
		case op.Value == nil:
			b = appendBytes(append(b, opDelete), op.Key)
		default:
			b = appendBytes(appendBytes(append(b, opPut), op.Key), op.Value)
		}
	}
	return b
}

func appendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// decodeCommand shares b's memory.
func decodeCommand(b []byte) (c command, err error) {
	r := reader{b: b}
	if v := r.byte(); v != commandVersion {
		return c, newer("version", v, commandVersion)
	}
	c.term, c.at, c.seq, c.mark.index = r.uvarint(), r.varint(), r.uvarint(), r.uvarint()
	if c.mark.index != 0 {
		c.mark.hash = r.uint64()
	}
	n := r.uvarint()
	if n > uint64(len(r.b))/2 { // an op takes two bytes at least
		return command{}, ErrCommand
	}
	c.ops = make([]persistence.Op, 0, n)
	for range n {
		kind := r.byte()
		op := persistence.Op{Key: r.bytes()}
		switch kind {
		case opPut:
			op.Value = r.bytes()
		case opDelete:
		case opDeleteRange:
			op.End = r.bytes()
		default:
			return command{}, newer("change of kind", kind, lastOp)
		}
		c.ops = append(c.ops, op)
	}
	if r.bad || len(r.b) != 0 {
		return command{}, ErrCommand
	}
	return c, nil
}

// reader takes fields off b; bad says that one was missing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes is never nil unless the reader went bad.
func (r *reader) bytes() []byte {
	return r.take(r.uvarint())
}

// baseVersion is of what a snapshot says beside the rows.
const baseVersion = 1

// encodeBase is a snapshot's Data: hash, shard time, generation and members. Who receives it
// adds the node it came from.
func encodeBase(s *persistence.State) []byte {
	b := binary.BigEndian.AppendUint64([]byte{baseVersion}, s.Hash)
	b = binary.AppendVarint(b, s.At)
	b = binary.AppendUvarint(b, s.Generation)
	return appendMembers(b, s.Members)
}

func decodeBase(b []byte) (s persistence.State, from uint64, err error) {
	r := reader{b: b}
	if v := r.byte(); v != baseVersion {
		return s, 0, newer("snapshot of version", v, baseVersion)
	}
	s.Hash, s.At, s.Generation, s.Members, from = r.uint64(), r.varint(), r.uvarint(), r.members(), r.uvarint()
	if r.bad || len(r.b) != 0 {
		return persistence.State{}, 0, ErrCommand
	}
	return s, from, nil
}

// appendMembers is also a configuration change's context: whom it adds.
func appendMembers(b []byte, ms []persistence.Member) []byte {
	b = binary.AppendUvarint(b, uint64(len(ms)))
	for _, m := range ms {
		b = binary.AppendUvarint(binary.AppendUvarint(b, m.Replica), m.Node)
	}
	return b
}

func (r *reader) members() (ms []persistence.Member) {
	n := r.uvarint()
	if n > uint64(len(r.b))/2 {
		r.bad = true
		return nil
	}
	for range n {
		ms = append(ms, persistence.Member{Replica: r.uvarint(), Node: r.uvarint()})
	}
	return ms
}
