package wire

import (
	"bytes"
	"unicode/utf8"
)

// scanner checks the grammar of JSON text (RFC 8259) without building anything.
// After it has passed a text, every error of the decoder is an error of a field.
type scanner struct {
	s   []byte
	i   int
	why string // "" while the text is sound
}

// checkJSON checks that s is one JSON value, valid UTF-8 with paired surrogates, at
// most depth deep, with nothing but white space around it.
func checkJSON(s []byte, depth int) *SyntaxError {
	x := scanner{s: s}
	if !utf8.Valid(s) {
		return &SyntaxError{Reason: "invalid UTF-8"}
	}
	x.space()
	x.value(depth)
	x.space()
	if x.why == "" && x.i < len(s) {
		x.why = "something follows the JSON value"
	}
	if x.why != "" {
		return &SyntaxError{Offset: x.i, Reason: x.why}
	}
	return nil
}

// soundJSON is checkJSON without the reason.
func soundJSON(s []byte, depth int) bool {
	x := scanner{s: s}
	x.space()
	x.value(depth)
	x.space()
	return x.why == "" && x.i == len(s) && utf8.Valid(s)
}

func (x *scanner) peek() byte {
	if x.i < len(x.s) {
		return x.s[x.i]
	}
	return 0
}

func (x *scanner) space() {
	for x.i < len(x.s) {
		switch x.s[x.i] {
		case ' ', '\t', '\n', '\r':
			x.i++
		default:
			return
		}
	}
}

func (x *scanner) fail(why string) {
	if x.why == "" {
		x.why = why
	}
}

func (x *scanner) value(depth int) {
	switch c := x.peek(); c {
	case '"':
		x.str()
	case '{', '[':
		if depth == 0 {
			x.fail("nested too deep")
			return
		}
		x.i++
		x.space()
		if x.peek() == c+2 { // '}' and ']' stand two after '{' and '['
			x.i++
			return
		}
		x.elements(c, depth-1)
	case 't':
		x.word("true")
	case 'f':
		x.word("false")
	case 'n':
		x.word("null")
	default:
		x.number()
	}
}

// elements scans what stands between the brackets, and the closing one.
func (x *scanner) elements(open byte, depth int) {
	for x.why == "" {
		if open == '{' {
			x.space()
			x.str()
			x.space()
			x.want(':')
		}
		x.space()
		x.value(depth)
		x.space()
		if x.peek() == open+2 {
			x.i++
			return
		}
		x.want(',')
	}
}

func (x *scanner) want(c byte) {
	if x.why != "" {
		return
	}
	if x.peek() != c {
		x.fail("expected '" + string(c) + "'")
		return
	}
	x.i++
}

func (x *scanner) word(w string) {
	if !bytes.HasPrefix(x.s[x.i:], []byte(w)) {
		x.fail("not a JSON value")
		return
	}
	x.i += len(w)
}

func (x *scanner) str() {
	x.want('"')
	for x.why == "" {
		for x.i < len(x.s) && plain[x.s[x.i]] {
			x.i++
		}
		switch {
		case x.i == len(x.s):
			x.fail("string without an end")
		case x.s[x.i] == '"':
			x.i++
			return
		case x.s[x.i] == '\\':
			x.escape()
		default:
			x.fail("control character in a string")
		}
	}
}

func (x *scanner) escape() {
	x.i++
	switch x.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		x.i++
	case 'u':
		switch r := x.unit(); {
		case r < 0 || r >= 0xDC00 && r < 0xE000:
			x.fail("bad \\u escape in a string")
		case r >= 0xD800 && r < 0xDC00:
			if x.peek() != '\\' {
				x.fail("lone surrogate in a string")
				return
			}
			x.i++
			if low := x.unit(); low < 0xDC00 || low >= 0xE000 {
				x.fail("lone surrogate in a string")
			}
		}
	default:
		x.fail("bad escape in a string")
	}
}

// unit reads uXXXX; -1 if it is none.
func (x *scanner) unit() int {
	if len(x.s)-x.i < 5 || x.s[x.i] != 'u' {
		return -1
	}
	r := 0
	for _, c := range x.s[x.i+1 : x.i+5] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | int(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | int(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	x.i += 5
	return r
}

func (x *scanner) number() {
	if x.peek() == '-' {
		x.i++
	}
	if x.peek() == '0' {
		x.i++
	} else {
		x.digits()
	}
	if x.peek() == '.' {
		x.i++
		x.digits()
	}
	if c := x.peek(); c == 'e' || c == 'E' {
		x.i++
		if c := x.peek(); c == '+' || c == '-' {
			x.i++
		}
		x.digits()
	}
}

func (x *scanner) digits() {
	start := x.i
	for c := x.peek(); c >= '0' && c <= '9'; c = x.peek() {
		x.i++
	}
	if x.i == start {
		x.fail("not a JSON value")
	}
}

// appendCompact appends sound JSON text without its white space.
func appendCompact(b, s []byte) []byte {
	quoted := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quoted && c == '\\':
			b = append(b, c)
			i++
			c = s[i]
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		}
		b = append(b, c)
	}
	return b
}
