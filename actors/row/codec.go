package row

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
)

// Version is the newest that this build writes; it reads all before it too. It is the first byte of every value.
const Version = 1

// Oldest is the oldest that this build can write: that of the minor version before.
const Oldest = 1

const version = 1 // of the values that are encoded here

// newest is the version that this process reads.
var newest byte = Version

// Reads makes this process read versions up to one that no build has yet, as if it were that build: for tests of rolling
// upgrades, before anything else runs.
func Reads(version uint8) { newest = version }

// Stamp says in the values that they are of a version that this process writes.
func Stamp(writes []Write, written uint8) {
	if written == version {
		return
	}
	for _, w := range writes {
		if len(w.Value) > 0 {
			w.Value[0] = written
		}
	}
}

// ErrNewer says that a row was written by a newer program.
var ErrNewer = errors.New("row: written by a newer version of this program")

// errShort says that a row ends too early, has bytes left over or holds what cannot be.
var errShort = errors.New("row: damaged value")

// Write is one change of a shard's rows. End not nil: delete all keys in [Key, End); Value nil: delete Key; else put.
type Write struct{ Key, End, Value []byte }

func put(key, value []byte) Write { return Write{Key: key, Value: value} }
func del(key []byte) Write        { return Write{Key: key} }

// Delete removes a range.
func (r Range) Delete() Write { return Write{Key: r.From, End: r.To} }

// open takes the version off a value.
func open(v []byte) ([]byte, error) {
	switch {
	case len(v) == 0:
		return nil, errShort
	case v[0] > newest:
		return nil, fmt.Errorf("%w: version %d", ErrNewer, v[0])
	case v[0] < version:
		return nil, errShort
	}
	return v[1:], nil
}

// encode is the value of a message.
func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{}.MarshalAppend([]byte{version}, m)
	if err != nil {
		panic(err) // a string that is not UTF-8: refused at every entrance
	}
	return b
}

func decode(v []byte, m proto.Message) error {
	b, err := open(v)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", errShort, err)
	}
	return nil
}

// Varints and strings of the rows without a message.

func unsigned(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }
func signed(b []byte, n int64) []byte    { return binary.AppendVarint(b, n) }
func text(b []byte, s string) []byte     { return append(unsigned(b, uint64(len(s))), s...) }

// reader takes a value apart. After a fault all it gives is zero.
type reader struct {
	rest []byte
	bad  bool
}

func read(v []byte) (*reader, error) {
	rest, err := open(v)
	return &reader{rest: rest}, err
}

func (r *reader) fail() {
	r.bad, r.rest = true, nil
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) unsigned() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) signed() int64 {
	n, size := binary.Varint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) text() string {
	n := r.unsigned()
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) end() error {
	if r.bad || len(r.rest) > 0 {
		return errShort
	}
	return nil
}

// ms is an instant in Unix ms; 0 is no time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
