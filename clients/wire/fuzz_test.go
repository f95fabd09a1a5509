package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

// fuzz checks that a decoder takes any bytes without a crash, refuses with one of the
// two errors, and that what it took encodes to a line that means the same.
func fuzz(f *testing.F, dir string, fresh func() Message) {
	for _, vs := range loadVectors(f) {
		for _, v := range vs {
			if v.Dir == dir {
				f.Add(v.line(f))
			}
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m := fresh()
		if err := Decode(line, m); err != nil {
			var syntax *SyntaxError
			var field *FieldError
			if !errors.As(err, &syntax) && (!errors.As(err, &field) || !json.Valid(line)) {
				t.Fatalf("%q: %T %v", line, err, err)
			}
			return
		}
		if !json.Valid(line) {
			t.Fatalf("took %q", line)
		}
		once := m.AppendJSON(nil)
		if !json.Valid(once) || bytes.ContainsAny(once, "\n\r") {
			t.Fatalf("%q: not a line of JSON: %q", line, once)
		}
		again := fresh()
		if err := Decode(once, again); err != nil {
			t.Fatalf("%q: %q: %v", line, once, err)
		}
		if twice := again.AppendJSON(nil); !bytes.Equal(once, twice) {
			t.Fatalf("%q: %q, then %q", line, once, twice)
		}
	})
}

func FuzzCommand(f *testing.F) { fuzz(f, "c2s", func() Message { return &Command{} }) }

func FuzzReply(f *testing.F) { fuzz(f, "s2c", func() Message { return &Reply{} }) }

func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n{\"id\":1}\r\n\n"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		lines, err := Lines(frame)
		if err != nil {
			return
		}
		n := 0
		for l := range lines {
			n++
			if len(l) == 0 || bytes.ContainsRune(l, '\n') {
				t.Fatalf("%q: line %q", frame, l)
			}
		}
		if n == 0 || n > MaxLines {
			t.Fatalf("%q: %d lines", frame, n)
		}
	})
}
