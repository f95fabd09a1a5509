package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
)

// vector is one entry of clients/testdata/wire; its README says what the keys mean.
type vector struct {
	Name  string
	Dir   string
	In    json.RawMessage
	InHex string `json:"in_hex"`
	Out   json.RawMessage
	Proto string
	Error string
	Close CloseCode
	Code  Code
	Path  string
	ID    uint64
}

func loadVectors(t testing.TB) map[string][]vector {
	files, err := filepath.Glob("../testdata/wire/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	all := map[string][]vector{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var vs []vector
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&vs); err != nil {
			t.Fatal(f, err)
		}
		all[filepath.Base(f)] = vs
	}
	return all
}

// text is the line that a vector's in or out stands for.
func text(t testing.TB, raw json.RawMessage) []byte {
	if len(raw) > 0 && raw[0] == '"' {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		return []byte(s)
	}
	return appendCompact(nil, raw)
}

func (v vector) line(t testing.TB) []byte {
	if v.InHex == "" {
		return text(t, v.In)
	}
	line, err := hex.DecodeString(v.InHex)
	if err != nil {
		t.Fatal(v.Name, err)
	}
	return line
}

func (v vector) message() Message {
	if v.Dir == "c2s" {
		return &Command{}
	}
	return &Reply{}
}

func TestVectors(t *testing.T) {
	n := 0
	for file, vs := range loadVectors(t) {
		names := map[string]bool{}
		for _, v := range vs {
			n++
			if names[v.Name] || v.Dir != "c2s" && v.Dir != "s2c" {
				t.Errorf("%s: %q: name given twice, or no dir", file, v.Name)
			}
			names[v.Name] = true
			t.Run(file+"/"+v.Name, func(t *testing.T) { v.run(t) })
		}
	}
	if n < 100 {
		t.Errorf("only %d vectors", n)
	}
}

func (v vector) run(t *testing.T) {
	m := v.message()
	line := v.line(t)
	err := Decode(line, m)
	var syntax *SyntaxError
	var field *FieldError
	switch {
	case v.Error == "syntax":
		if !errors.As(err, &syntax) || v.Close != CloseDecode {
			t.Fatalf("%s\ngot %v, want a syntax error", line, err)
		}
	case v.Error == "field":
		if !errors.As(err, &field) || v.Code != CodeBadRequest || field.Path != v.Path || field.ID != v.ID {
			t.Fatalf("%s\ngot %+v, want a field error at %s of command %d", line, err, v.Path, v.ID)
		}
	case err != nil:
		t.Fatalf("%s\n%v", line, err)
	default:
		want := line
		if v.Out != nil {
			want = text(t, v.Out)
		}
		if got := m.AppendJSON(nil); !bytes.Equal(got, want) {
			t.Fatalf("in   %s\ngot  %s\nwant %s", line, got, want)
		}
		v.binary(t, m.(proto.Message))
	}
}

// binary checks that the message says the same in protobuf, and in the bytes of the vector if it has some.
func (v vector) binary(t *testing.T, m proto.Message) {
	want, err := hex.DecodeString(v.Proto)
	if err == nil && v.Proto == "" {
		want, err = proto.Marshal(m)
	}
	if err != nil {
		t.Fatal(err)
	}
	back := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(want, back); err != nil || !proto.Equal(m, back) {
		t.Fatalf("in protobuf: %v\ngot  %v\nwant %v", err, back, m)
	}
}
