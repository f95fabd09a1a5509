package persistence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// A stream carries rows between stores: one group's (a snapshot) or all groups' (a
// backup). It does not depend on Pebble's formats.
//
//	stream  = 'm' 'u' 's' kind version chunk…
//	chunk   = type(1) length(4, big-endian) payload checksum(4)
//
// The checksum is CRC-32C over everything before it since the stream began, so a chunk
// that is damaged, missing, doubled or out of place is found at once. A stream that has
// no last chunk was cut off.
const (
	streamSnapshot = 's'
	streamBackup   = 'b'
	streamVersion  = 1

	chunkBirth = 'B' // backup: the identity as JSON, when it was taken
	chunkGroup = 'G' // group, state row, hard state (empty in a snapshot)
	chunkRows  = 'R' // rows in key order: key length, inner key, value length, value, …
	chunkEnd   = 'E' // of a group: how many rows it has
	chunkLast  = 'Z' // backup: how many groups it has

	chunkTarget = 256 << 10 // a chunk of rows is sent at this size
	maxChunk    = 64 << 20
)

type streamWriter struct {
	w   io.Writer
	n   int64
	sum uint32
	buf []byte

	rows, bytes int64 // written so far; bytes of keys and values
}

func (s *streamWriter) begin(kind byte) error {
	return s.write([]byte{'m', 'u', 's', kind, streamVersion})
}

func (s *streamWriter) write(b []byte) error {
	s.sum = crc32.Update(s.sum, castagnoli, b)
	n, err := s.w.Write(b)
	s.n += int64(n)
	return err
}

func (s *streamWriter) chunk(kind byte, payload []byte) error {
	if len(payload) > maxChunk {
		return fail(ErrInvalid, nil, "a row of %d bytes is too large for a stream", len(payload))
	}
	if err := s.write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(payload)))); err != nil {
		return err
	}
	if err := s.write(payload); err != nil {
		return err
	}
	return s.write(binary.BigEndian.AppendUint32(nil, s.sum))
}

// group writes a group as the iterator sees it: the iterator's bounds hold the group.
func (s *streamWriter) group(group uint32, it *pebble.Iterator, withHard bool) error {
	st, hard, err := readHead(it, group)
	if err != nil {
		return err
	}
	head := appendBytes(binary.AppendUvarint(nil, uint64(group)), encodeState(&st))
	if withHard {
		head = appendBytes(head, encodeHard(hard))
	} else {
		head = appendBytes(head, nil)
	}
	if err := s.chunk(chunkGroup, head); err != nil {
		return err
	}
	var rows uint64
	s.buf = s.buf[:0]
	_, end := partSpan(group, partRow)
	for ok := it.SeekGE(rowKey(group, nil)); ok && bytes.Compare(it.Key(), end) < 0; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		inner := it.Key()[groupPrefix+1:]
		s.buf = appendBytes(appendBytes(s.buf, inner), v)
		rows++
		s.bytes += int64(len(inner) + len(v))
		if len(s.buf) >= chunkTarget {
			if err := s.chunk(chunkRows, s.buf); err != nil {
				return err
			}
			s.buf = s.buf[:0]
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	if len(s.buf) > 0 {
		if err := s.chunk(chunkRows, s.buf); err != nil {
			return err
		}
	}
	s.rows += int64(rows)
	return s.chunk(chunkEnd, binary.AppendUvarint(nil, rows))
}

// readHead reads a group's state row and hard state at the iterator's moment.
func readHead(it *pebble.Iterator, group uint32) (st State, hard *raftHard, err error) {
	hard = hardState(0, 0, 0)
	if key := hardKey(group); it.SeekGE(key) && bytes.Equal(it.Key(), key) {
		if hard, err = decodeHard(it.Value()); err != nil {
			return st, nil, err
		}
	}
	key := stateKey(group)
	if !it.SeekGE(key) || !bytes.Equal(it.Key(), key) {
		if err := it.Error(); err != nil {
			return st, nil, err
		}
		return st, nil, fail(ErrNoGroup, nil, "there is no replica of group %d", group)
	}
	st, err = decodeState(it.Value())
	return st, hard, err
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

// streamReader reads no byte beyond the last chunk asked for. All its errors are
// ErrBackup, around the reader's own if it has one, or ErrNewer.
type streamReader struct {
	r   io.Reader
	sum uint32
	buf bytes.Buffer

	rowCount, byteCount int64
}

func (s *streamReader) begin(kind byte) error {
	var b [5]byte
	if _, err := io.ReadFull(s.r, b[:]); err != nil {
		return cut(err)
	}
	s.sum = crc32.Update(0, castagnoli, b[:])
	switch {
	case string(b[:3]) != "mus" || b[3] != kind || b[4] == 0:
		return fail(ErrBackup, nil, "this is not a stream of the expected kind")
	case b[4] > streamVersion:
		return fail(ErrNewer, nil, "the stream was written by a newer version (%d, this one knows %d)", b[4], streamVersion)
	}
	return nil
}

// next returns a chunk; the payload is valid until the next call.
func (s *streamReader) next() (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return 0, nil, cut(err)
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxChunk {
		return 0, nil, damaged("a chunk of %d bytes", n)
	}
	s.buf.Reset() // grows with what arrives, not with what a damaged length says
	if _, err := io.CopyN(&s.buf, s.r, int64(n)+4); err != nil {
		return 0, nil, cut(err)
	}
	payload = s.buf.Bytes()[:n]
	s.sum = crc32.Update(crc32.Update(s.sum, castagnoli, head[:]), castagnoli, payload)
	if s.sum != binary.BigEndian.Uint32(s.buf.Bytes()[n:]) {
		return 0, nil, damaged("a checksum does not match")
	}
	s.sum = crc32.Update(s.sum, castagnoli, s.buf.Bytes()[n:])
	return head[0], payload, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fail(ErrBackup, nil, "the stream is cut off")
	}
	return fail(ErrBackup, err, "the stream cannot be read")
}

func damaged(format string, args ...any) error {
	return fail(ErrBackup, nil, "the stream is damaged: "+format, args...)
}

// groupHead is the payload of chunkGroup.
type groupHead struct {
	group uint32
	state State
	hard  *raftHard
}

func decodeGroupHead(b []byte, withHard bool) (h groupHead, err error) {
	d := decoder{b: b}
	g := d.uvarint()
	state, hard := d.take(d.uvarint()), d.take(d.uvarint())
	if d.end() != nil || g > 1<<32-1 || (len(hard) > 0) != withHard {
		return h, damaged("a group cannot be read")
	}
	h.group = uint32(g)
	if h.state, err = decodeState(state); err != nil {
		return h, err
	}
	if withHard {
		h.hard, err = decodeHard(hard)
	}
	return h, err
}

// rows reads chunks up to the end of a group and passes each row on. Keys ascend.
func (s *streamReader) rows(put func(inner, value []byte) error) error {
	var last []byte
	var n uint64
	for {
		kind, b, err := s.next()
		if err != nil {
			return err
		}
		d := decoder{b: b}
		switch kind {
		case chunkEnd:
			if want := d.uvarint(); d.end() != nil || want != n {
				return damaged("%d rows came, %d were sent", n, want)
			}
			return nil
		case chunkRows:
			for len(d.b) > 0 {
				key, value := d.take(d.uvarint()), d.take(d.uvarint())
				if d.bad || n > 0 && bytes.Compare(key, last) <= 0 {
					return damaged("rows cannot be read")
				}
				if err := put(key, value); err != nil {
					return err
				}
				last, n = append(last[:0], key...), n+1
				s.rowCount++
				s.byteCount += int64(len(key) + len(value))
			}
		default:
			return damaged("chunk %q in the rows of a group", kind)
		}
	}
}
