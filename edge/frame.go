package edge

import (
	"encoding/binary"

	"muster/clients/wire"
)

// WebSocket opcodes, with the final bit set: Muster never fragments.
const (
	opText  = 0x81
	opClose = 0x88
)

// maxHeader is the longest header of a server frame.
const maxHeader = 10

// appendFrame appends a whole unmasked frame.
func appendFrame(b []byte, op byte, payload []byte) []byte {
	return append(appendHeader(b, op, len(payload)), payload...)
}

func appendHeader(b []byte, op byte, n int) []byte {
	switch {
	case n < 126:
		return append(b, op, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, op, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, op, 127), uint64(n))
}

// sealFrame puts the header before a payload that was built behind maxHeader spare
// bytes, and returns the frame within b.
func sealFrame(b []byte, op byte) []byte {
	var h [maxHeader]byte
	head := appendHeader(h[:0], op, len(b)-maxHeader)
	start := maxHeader - len(head)
	copy(b[start:], head)
	return b[start:]
}

var spareHeader [maxHeader]byte

// newFrame begins a payload with room for its header.
func newFrame(b []byte) []byte {
	if b == nil {
		b = make([]byte, 0, 512) // most replies fit
	}
	return append(b[:0], spareHeader[:]...)
}

func closeFrame(code wire.CloseCode) []byte {
	payload := binary.BigEndian.AppendUint16(nil, uint16(code))
	return appendFrame(nil, opClose, append(payload, code.Reason()...))
}

var pingFrame = appendFrame(nil, opText, []byte(wire.PingFrame))
