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
	direct form = iota
)

type envelope struct {
	form    form
	kind    byte
	payload []byte
}

const (
	frameBytes = 256 << 10 // a frame holds so much, or one larger payload
	headBytes  = 2
	maxMessage = MaxPayload + 1<<10
)

var errFrame = errors.New("stream: not a frame")

func (e *envelope) size() int { return headBytes + len(e.payload) }

func (e *envelope) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(e.size()))
	b = append(b, byte(e.form), e.kind)
	return append(b, e.payload...)
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

// open reads a frame's envelopes; their payloads share its memory. Envelopes of unknown form are counted and skipped.
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
		if len(body) < headBytes || form(body[0]) != direct {
			unknown++
			continue
		}
		each(envelope{form(body[0]), body[1], body[headBytes:]})
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
