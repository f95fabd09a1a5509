package stream

import (
	"encoding/binary"
	"errors"

	"google.golang.org/grpc/mem"
)

// A frame is one gRPC message: the epoch's version, one byte, and envelopes. An envelope is its length (uvarint), form, kind,
// for relayed forms the far node and its epoch (8 bytes each, big endian), and the payload.

// form says what follows in an envelope.
type form byte

const (
	direct    form = iota
	relayTo        // pass it on to the far node
	relayFrom      // from the far node, passed on
)

type envelope struct {
	form    form
	kind    byte
	far     uint64 // node, of relayed forms
	epoch   uint64 // with it
	payload []byte
}

const (
	frameBytes = 256 << 10 // a frame holds so much, or one larger payload
	headBytes  = 2
	farBytes   = 16
	maxMessage = MaxPayload + 1<<10
)

var errFrame = errors.New("stream: not a frame")

func (e *envelope) size() int {
	if e.form != direct {
		return headBytes + farBytes + len(e.payload)
	}
	return headBytes + len(e.payload)
}

func (e *envelope) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(e.size()))
	b = append(b, byte(e.form), e.kind)
	if e.form != direct {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, e.far), e.epoch)
	}
	return append(b, e.payload...)
}

// parse is the other way; false for a form that this build does not know.
func (e *envelope) parse(b []byte) bool {
	if len(b) < headBytes || form(b[0]) > relayFrom {
		return false
	}
	e.form, e.kind, e.payload = form(b[0]), b[1], b[headBytes:]
	if e.form == direct {
		return true
	}
	if len(e.payload) < farBytes {
		return false
	}
	e.far, e.epoch, e.payload = binary.BigEndian.Uint64(e.payload), binary.BigEndian.Uint64(e.payload[8:]), e.payload[farBytes:]
	return true
}

// frameOf encodes envelopes into a buffer that gRPC gives back to its pool.
func frameOf(wire uint8, es []envelope) mem.Buffer {
	size := 1
	for i := range es {
		size += es[i].size() + binary.MaxVarintLen32
	}
	pool := mem.DefaultBufferPool()
	buf := pool.Get(size)
	b := append((*buf)[:0], wire)
	for i := range es {
		b = es[i].append(b)
	}
	*buf = b
	return mem.NewBuffer(buf, pool)
}

// openFrame reads a frame's envelopes; their payloads share its memory. Envelopes of unknown form are counted and skipped.
func openFrame(b []byte, wire uint8, each func(envelope)) (unknown int, err error) {
	if len(b) == 0 || b[0] != wire {
		return 0, errFrame
	}
	for b = b[1:]; len(b) > 0; {
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return unknown, errFrame
		}
		body := b[n : n+int(size) : n+int(size)]
		b = b[n+int(size):]
		var e envelope
		if !e.parse(body) {
			unknown++
			continue
		}
		each(e)
	}
	return unknown, nil
}

// raw is the codec: messages are bytes.
type raw struct{}

// message is what raw carries: out is sent, in was received.
type message struct {
	out mem.Buffer
	in  []byte
}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(*message)
	if !ok {
		return nil, errFrame
	}
	return mem.BufferSlice{m.out}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return errFrame
	}
	m.in = data.Materialize()
	return nil
}

func (raw) Name() string { return "muster" }
