package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// random fills a message with random values, raw JSON and objects in canonical form.
func random(r *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if r.IntN(3) == 0 || f.ContainingOneof() != nil && !f.HasOptionalKeyword() && r.IntN(4) > 0 {
			continue
		}
		switch {
		case proto.GetExtension(f.Options(), E_AsObject).(bool):
			list := m.Mutable(f).List()
			for _, class := range r.Perm(5)[:r.IntN(5)] {
				d := &DeviceState{Class: DeviceClass(class + 1), State: State(1 + r.IntN(6))}
				list.Append(protoreflect.ValueOfMessage(d.ProtoReflect()))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			for range r.IntN(4) {
				if f.Message() == nil {
					list.Append(scalar(r, f))
					continue
				}
				e := list.NewElement()
				random(r, e.Message())
				list.Append(e)
			}
		case f.Message() != nil:
			random(r, m.Mutable(f).Message())
		default:
			m.Set(f, scalar(r, f))
		}
	}
}

func scalar(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 0)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(r.Uint32() >> r.IntN(32))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(r.Uint64() >> r.IntN(64))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(f.Enum().Values().Len())))
	}
	if proto.GetExtension(f.Options(), E_RawJson).(bool) {
		return protoreflect.ValueOfString([]string{"", "1", `{"a":["b",null]}`, `"x y"`, "false"}[r.IntN(5)])
	}
	letters := []rune("abcxyz019 \"\\/\n\r\t\b\x00\x1f\x7fäß€\u2028\U0001F600\uFFFD<&")
	var s strings.Builder
	for range r.IntN(12) {
		s.WriteRune(letters[r.IntN(len(letters))])
	}
	return protoreflect.ValueOfString(s.String())
}

// The JSON codec and the protobuf codec must agree on every message.
func TestCodecsAgree(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		for _, m := range []interface {
			Message
			proto.Message
		}{&Command{}, &Reply{}} {
			random(r, m.ProtoReflect())
			line := m.AppendJSON(nil)
			if !json.Valid(line) || bytes.ContainsAny(line, "\n\r") {
				t.Fatalf("seed %d: not a line of JSON: %q", seed, line)
			}
			back := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
			if err := Decode(line, back); err != nil {
				t.Fatalf("seed %d: %s: %v", seed, line, err)
			}
			binary, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			want := m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(binary, want); err != nil {
				t.Fatal(err)
			}
			if got := back.(proto.Message); !proto.Equal(got, want) {
				t.Fatalf("seed %d: %s\ngot  %s\nwant %s", seed, line, protojson.Format(got), protojson.Format(want))
			}
		}
	}
}

func TestStrings(t *testing.T) {
	for c := range rune(0x300) {
		checkString(t, string(c))
	}
	for _, s := range []string{"", "\u2028\u2029", "\U0010FFFF", strings.Repeat("a\"", 5000), "<script>&"} {
		checkString(t, s)
	}
	if got := string(appendString(nil, "a\xffb\xc0")); got != "\"a\uFFFDb\uFFFD\"" {
		t.Errorf("broken UTF-8: %q", got)
	}
}

func checkString(t *testing.T, s string) {
	t.Helper()
	var back string
	text := appendString(nil, s)
	if err := json.Unmarshal(text, &back); err != nil || back != s || !utf8.Valid(text) {
		t.Errorf("%q: %s: %q %v", s, text, back, err)
	}
}

// What an application put into a raw field cannot break the frame.
func TestRawCannotBreakTheFrame(t *testing.T) {
	for in, want := range map[string]string{
		"{\n \"a\" : 1\r\n}":     `{"id":"c","activity":{"a":1}}`,
		`"a\nb"`:                 `{"id":"c","activity":"a\nb"}`,
		"null":                   `{"id":"c"}`,
		"{":                      `{"id":"c"}`,
		`1},"x":{`:               `{"id":"c"}`,
		`1 2`:                    `{"id":"c"}`,
		"\"\xff\"":               `{"id":"c"}`,
		"\"\n\"":                 `{"id":"c"}`,
		strings.Repeat("[", 9e4): `{"id":"c"}`,
	} {
		if got := string((&Claim{Id: "c", Activity: in}).AppendJSON(nil)); got != want {
			t.Errorf("%.40q: got %s, want %s", in, got, want)
		}
	}
}

// The scanner takes what encoding/json takes, less what the protocol forbids.
func TestScannerAgainstStandardLibrary(t *testing.T) {
	pieces := strings.Split(`{ } [ ] , : "a" "\u00e9" "\ud83d\ude00" "\"" " 0 -0 12 1.5 -1e+5 1e 1. .5 - true fals null \ /`, " ")
	r := rand.New(rand.NewPCG(7, 7))
	valid := 0
	for range 200_000 {
		var s string
		for range 1 + r.IntN(7) {
			s += pieces[r.IntN(len(pieces))]
		}
		got, want := soundJSON([]byte(s), MaxDepth), json.Valid([]byte(s))
		if got != want {
			t.Fatalf("%s: got %v, want %v", s, got, want)
		}
		if got {
			valid++
			var compact bytes.Buffer
			_ = json.Compact(&compact, []byte(" "+s+"\n"))
			if c := appendCompact(nil, []byte(" "+s+"\n")); !bytes.Equal(c, compact.Bytes()) {
				t.Fatalf("%s: compacted to %s", s, c)
			}
		}
	}
	if valid < 1000 {
		t.Fatalf("only %d valid texts", valid)
	}
}

func TestDecodeKeepsNothingOfTheLine(t *testing.T) {
	line := []byte(`{"id":1,"claim":{"id":"c1","state":"dnd","activity":{"a":"b"}}}`)
	var c Command
	if err := Decode(line, &c); err != nil {
		t.Fatal(err)
	}
	want := c.String()
	for i := range line {
		line[i] = 'x'
	}
	if got := c.String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDecodeReplacesTheMessage(t *testing.T) {
	c := Command{Id: 7, Method: &Command_Bye{}}
	if err := Decode([]byte(`{"ping":{}}`), &c); err != nil || c.Id != 0 || c.GetPing() == nil {
		t.Error(err, &c)
	}
}

func TestAllocations(t *testing.T) {
	p := samplePresence()
	b := make([]byte, 0, 4096)
	entry := p.AppendJSON(nil)
	entries := [][]byte{entry, entry}
	frame := []byte(PingFrame)
	for name, f := range map[string]func(){
		"encode": func() { b = p.AppendJSON(b[:0]) },
		"push":   func() { b = AppendPresencePush(b[:0], entries...) },
		"ping":   func() { _ = IsPing(frame) },
	} {
		if n := testing.AllocsPerRun(100, f); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestPresencePush(t *testing.T) {
	one, two := samplePresence(), &Presence{User: "u3", State: State_STATE_OFFLINE}
	want := (&Reply{Body: &Reply_Push{Push: &Push{Presence: []*Presence{one, two}}}}).AppendJSON(nil)
	got := AppendPresencePush([]byte("x"), one.AppendJSON(nil), two.AppendJSON(nil))
	if string(got[1:]) != string(want) {
		t.Errorf("got %s, want %s", got[1:], want)
	}
	size := len(one.AppendJSON(nil)) + 1 + len(two.AppendJSON(nil)) + PresencePushOverhead
	if size != len(want) {
		t.Errorf("size %d, want %d", size, len(want))
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", MaxFrame)
	for _, c := range []struct{ in, want string }{
		{"{}", "{}"},
		{"{}\n", "{}"},
		{" {}\r\n\r\n {\"id\":1} \n\n", `{}|{"id":1}`},
		{long, long},
		{long + "x", "error"},
		{"", "error"},
		{"\n \n", "error"},
		{strings.Repeat("{}\n", 64), strings.TrimSuffix(strings.Repeat("{}|", 64), "|")},
		{strings.Repeat("{}\n", 65), "error"},
	} {
		var got []string
		lines, err := Lines([]byte(c.in))
		if err != nil {
			got = []string{"error"}
		} else {
			for range 2 { // a sequence can be gone over again
				got = nil
				for l := range lines {
					got = append(got, string(l))
				}
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%.50q: got %.50q, want %.50q", c.in, s, c.want)
		}
	}
}

func TestIsPing(t *testing.T) {
	for in, want := range map[string]bool{
		"{}": true, " { }\n": true, "": false, "{": false, "}": false, "{}{}": false, `{"id":1}`: false, "{\n}": true, "[]": false,
	} {
		if IsPing([]byte(in)) != want {
			t.Errorf("%q: want %v", in, want)
		}
	}
}

func TestValidID(t *testing.T) {
	for in, want := range map[string]bool{
		"u1": true, "A.b_c@d+e=f-9": true, "": false, "a b": false, "ä": false, "a/b": false, "a:b": false, "a\x00": false,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		if ValidID(in) != want {
			t.Errorf("%q: want %v", in, want)
		}
	}
}

func samplePresence() *Presence {
	return &Presence{
		User: "user-4711", State: State_STATE_ONLINE, Ver: []uint64{1789000000, 123456}, SinceAt: 1789000000123,
		Devices: []*DeviceState{{Class: DeviceClass_DEVICE_CLASS_MOBILE, State: State_STATE_ONLINE}},
	}
}

func sampleConnect() []byte {
	c := &Connect{Token: strings.Repeat("t", 200), DeviceId: "d-9", Class: DeviceClass_DEVICE_CLASS_WEB, Attempt: 1789000000000}
	for i := range 20 {
		c.Watch = append(c.Watch, fmt.Sprintf("user-%d", i))
	}
	return (&Command{Id: 1, Method: &Command_Connect{Connect: c}}).AppendJSON(nil)
}

func BenchmarkEncodePresence(b *testing.B) {
	p, buf := samplePresence(), make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = p.AppendJSON(buf[:0])
	}
}

func BenchmarkPresencePush(b *testing.B) {
	entry, buf := samplePresence().AppendJSON(nil), make([]byte, 0, 512)
	entries := [][]byte{entry}
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendPresencePush(buf[:0], entries...)
	}
}

func benchmarkDecode(b *testing.B, line []byte, m Message) {
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if err := Decode(line, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeConnect(b *testing.B) { benchmarkDecode(b, sampleConnect(), &Command{}) }

func BenchmarkDecodeStatus(b *testing.B) {
	benchmarkDecode(b, []byte(`{"id":4,"status":{"state":"dnd","text":"in a call","ttl_ms":1800000}}`), &Command{})
}

func BenchmarkDecodePush(b *testing.B) {
	benchmarkDecode(b, AppendPresencePush(nil, samplePresence().AppendJSON(nil)), &Reply{})
}
