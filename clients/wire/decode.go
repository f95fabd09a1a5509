package wire

import (
	"errors"
	"strconv"
	"sync"

	"github.com/go-faster/jx"
)

// Message is every message of the schema.
type Message interface {
	// AppendJSON appends the message as one JSON object without line breaks.
	AppendJSON(b []byte) []byte
	Reset()
	decodeJSON(d *jx.Decoder) error
}

type pointer[T any] interface {
	*T
	Message
}

// SyntaxError says that a frame or a line is not JSON, or not a frame of this
// protocol. The socket's stream cannot be trusted any more: close 4002.
type SyntaxError struct {
	Offset int // byte in the line (or frame) at which it was noticed
	Reason string
}

func (e *SyntaxError) Error() string {
	return e.Reason + " at byte " + strconv.Itoa(e.Offset)
}

// FieldError says that a line is sound JSON with a bad field: answer error 107.
type FieldError struct {
	ID     uint64 // of the command, 0 if it has none (or a bad one)
	Path   string // such as connect.watch[3]; "" is the line itself
	Reason string
}

func (e *FieldError) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return e.Path + ": " + e.Reason
}

var decoders = sync.Pool{New: func() any { return new(jx.Decoder) }}

// Decode replaces m by the JSON object in line. Its errors are *SyntaxError and
// *FieldError; after an error m holds what was read until then. m keeps nothing of line.
//
// Rules: unknown fields and unknown words of an enum are ignored, null is absent, a
// field given twice or two methods at once are errors, numbers are whole and in range.
func Decode(line []byte, m Message) error {
	m.Reset()
	if err := checkJSON(line, MaxDepth); err != nil {
		return err
	}
	d := decoders.Get().(*jx.Decoder)
	d.ResetBytes(line)
	err := m.decodeJSON(d)
	d.ResetBytes(nil)
	decoders.Put(d)
	if err == nil {
		return nil
	}
	var field *FieldError
	if !errors.As(err, &field) {
		return &SyntaxError{Reason: err.Error()}
	}
	if field.Path == "" {
		return &SyntaxError{Reason: "a line must be a JSON object"}
	}
	field.ID = commandID(line)
	return field
}

// commandID finds the id of a sound line whose fields could not all be read.
func commandID(line []byte) (id uint64) {
	d := jx.DecodeBytes(line)
	f := object(d)
	for f.next() {
		if string(f.key()) != "id" {
			f.skip()
			continue
		}
		var n uint64
		if number(&f, 0, "id", &n); f.err == nil {
			id = n
		}
	}
	return id
}

// fields walks over one JSON object; the generated decoders are made of it. After the
// first error it stops.
type fields struct {
	d    *jx.Decoder
	it   jx.ObjIter
	seen uint64 // bit n: field n was given
	err  error
}

func object(d *jx.Decoder) (f fields) {
	f.d = d
	if d.Next() != jx.Object {
		f.err = &FieldError{Reason: "must be an object"}
		return f
	}
	f.it, f.err = d.ObjIter()
	return f
}

// next goes to the next field that is not null.
func (f *fields) next() bool {
	for f.err == nil && f.it.Next() {
		if f.d.Next() != jx.Null {
			return true
		}
		f.err = f.d.Null()
	}
	if f.err == nil {
		f.err = f.it.Err()
	}
	return false
}

func (f *fields) key() []byte { return f.it.Key() }

func (f *fields) skip() { f.err = f.d.Skip() }

func (f *fields) bad(name, reason string) {
	f.err = &FieldError{Path: name, Reason: reason}
}

func (f *fields) once(n int, name string) bool {
	if f.seen&(1<<n) != 0 {
		f.bad(name, "given twice")
		return false
	}
	f.seen |= 1 << n
	return true
}

// is passes a field that comes for the first time and has the wanted type.
func (f *fields) is(n int, name string, want jx.Type, reason string) bool {
	if !f.once(n, name) {
		return false
	}
	if f.d.Next() != want {
		f.bad(name, reason)
		return false
	}
	return true
}

// alone passes the first member of a oneof.
func (f *fields) alone(first bool, name string) bool {
	if !first {
		f.bad(name, "two methods at once")
	}
	return first
}

// end closes the field name whose value ended with err.
func (f *fields) end(name string, err error) {
	if err == nil {
		return
	}
	var field *FieldError
	if errors.As(err, &field) {
		switch {
		case field.Path == "":
			field.Path = name
		case field.Path[0] == '[':
			field.Path = name + field.Path
		default:
			field.Path = name + "." + field.Path
		}
	}
	f.err = err
}

func (f *fields) str(n int, name string, p *string) {
	if f.is(n, name, jx.String, "must be a string") {
		*p, f.err = f.d.Str()
	}
}

// word reads an enum's word; the bytes are valid until the next read.
func (f *fields) word(n int, name string) (v []byte, ok bool) {
	if f.is(n, name, jx.String, "must be a string") {
		v, f.err = f.d.StrBytes()
	}
	return v, f.err == nil
}

func (f *fields) boolean(n int, name string, p *bool) {
	if f.is(n, name, jx.Bool, "must be true or false") {
		*p, f.err = f.d.Bool()
	}
}

// raw keeps the value's JSON text without white space.
func (f *fields) raw(n int, name string, p *string) {
	if !f.once(n, name) {
		return
	}
	text, err := f.d.Raw()
	if err != nil {
		f.err = err
		return
	}
	if !soundJSON(text, MaxRawDepth) {
		f.bad(name, "nested deeper than "+strconv.Itoa(MaxRawDepth))
		return
	}
	*p = string(appendCompact(make([]byte, 0, len(text)), text))
}
