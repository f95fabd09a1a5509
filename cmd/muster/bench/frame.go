package bench

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Opcodes of WebSocket frames.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA
)

// appendFrame appends a client frame. The masking key is zero, which the protocol
// allows: the server does the same work, the generator none.
func appendFrame(b []byte, op byte, payload []byte) []byte {
	b = append(b, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = append(b, 0x80|127)
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

func textFrame(format string, args ...any) []byte {
	return appendFrame(nil, opText, fmt.Appendf(nil, format, args...))
}

// cutFrame splits the first server frame off b. n is its whole length, 0 if b does
// not hold all of it.
func cutFrame(b []byte) (op byte, payload []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	if b[0]&0xF0 != 0x80 || b[1]&0x80 != 0 {
		return 0, nil, 0, fmt.Errorf("frame header %x: fragmented, compressed or masked", b[:2])
	}
	head, size := 2, int(b[1])
	switch size {
	case 126:
		head = 4
		if len(b) < head {
			return 0, nil, 0, nil
		}
		size = int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		head = 10
		if len(b) < head {
			return 0, nil, 0, nil
		}
		size = int(binary.BigEndian.Uint64(b[2:]))
		if size < 0 || size > 64<<20 {
			return 0, nil, 0, fmt.Errorf("frame of %d bytes", size)
		}
	}
	if len(b) < head+size {
		return 0, nil, 0, nil
	}
	return b[0] & 0x0F, b[head : head+size], head + size, nil
}

var (
	keyUser  = []byte(`"user":"`)
	keyState = []byte(`"state":"`)
	keyText  = []byte(`"text":"`)
)

// view is one entry of a presence push as the generator reads it.
type view struct {
	user  int  // from u<number>; -1: somebody else
	state byte // see stateCode
	seq   uint64
	sent  int64 // generator's clock when the change was sent; 0: no stamp
}

// eachView calls f for every presence entry of a line. Texts are stamps: <seq>.<sent>.
func eachView(line []byte, f func(view)) {
	at := bytes.Index(line, keyUser)
	for at >= 0 {
		entry := line[at+len(keyUser):]
		next := bytes.Index(entry, keyUser)
		at = -1
		rest := entry
		if next >= 0 {
			rest, line = entry[:next], entry
			at = next
		}
		v := view{user: -1}
		if len(rest) > 0 && rest[0] == 'u' {
			v.user = int(number(rest[1:]))
		}
		if i := bytes.Index(rest, keyState); i >= 0 && len(rest) > i+len(keyState) {
			v.state = stateCode(rest[i+len(keyState):])
		}
		if i := bytes.Index(rest, keyText); i >= 0 {
			stamp := rest[i+len(keyText):]
			v.seq = number(stamp)
			if dot := bytes.IndexByte(stamp, '.'); dot >= 0 {
				v.sent = int64(number(stamp[dot+1:]))
			}
		}
		f(v)
	}
}

// stateCode tells the states apart by one letter: a(way), d(nd), n: online, f: offline.
func stateCode(name []byte) byte {
	if name[0] == 'o' && len(name) > 1 {
		return name[1]
	}
	return name[0]
}

// number reads the decimal digits at the start of b.
func number(b []byte) (n uint64) {
	for _, c := range b {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// stringField is the value of a string member without escapes, "" if absent.
func stringField(line []byte, name string) string {
	key := []byte(`"` + name + `":"`)
	i := bytes.Index(line, key)
	if i < 0 {
		return ""
	}
	rest := line[i+len(key):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return ""
	}
	return string(rest[:end])
}
