package wire

import (
	"bytes"
	"iter"
)

// PingFrame is the server's ping and the client's answer.
const PingFrame = "{}"

// IsPing reports whether a frame (or a line) is the empty object.
func IsPing(frame []byte) bool {
	if string(frame) == PingFrame {
		return true
	}
	frame = bytes.Trim(frame, space)
	return len(frame) >= 2 && frame[0] == '{' && frame[len(frame)-1] == '}' &&
		len(bytes.Trim(frame[1:len(frame)-1], space)) == 0
}

const space = " \t\r\n"

// Lines goes over the lines of a frame, without copying and leaving out blank ones.
// More than MaxFrame bytes, more than MaxLines lines, or no line at all is a *SyntaxError.
func Lines(frame []byte) (iter.Seq[[]byte], error) {
	frame, err := checkFrame(frame)
	return func(yield func([]byte) bool) { eachLine(frame, yield) }, err
}

func checkFrame(frame []byte) ([]byte, error) {
	if len(frame) > MaxFrame {
		return nil, &SyntaxError{Offset: MaxFrame, Reason: "frame larger than 64 KiB"}
	}
	frame = bytes.Trim(frame, space)
	if len(frame) == 0 {
		return nil, &SyntaxError{Reason: "empty frame"}
	}
	if bytes.Count(frame, []byte{'\n'}) >= MaxLines {
		return nil, &SyntaxError{Reason: "more than 64 lines in a frame"}
	}
	return frame, nil
}

func eachLine(rest []byte, yield func([]byte) bool) {
	for len(rest) > 0 {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		if line = bytes.Trim(line, space); len(line) > 0 && !yield(line) {
			return
		}
	}
}

// The parts of a push frame made of encoded presences.
const (
	presenceHead = `{"push":{"presence":[`
	presenceTail = `]}}`
	// PresencePushOverhead is what AppendPresencePush adds to the sum of its entries'
	// lengths, beside one byte for each entry after the first.
	PresencePushOverhead = len(presenceHead) + len(presenceTail)
)

// AppendPresencePush appends one push frame made of presences that AppendJSON has
// encoded before, at least one: what is encoded once goes to many sockets.
func AppendPresencePush(b []byte, entries ...[]byte) []byte {
	b = append(b, presenceHead...)
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e...)
	}
	return append(b, presenceTail...)
}
