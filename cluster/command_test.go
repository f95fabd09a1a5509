package cluster

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"muster/persistence"
)

func op(key, end, value string) (o persistence.Op) {
	o.Key = []byte(key)
	if end != "-" {
		o.End = []byte(end)
	}
	if value != "-" {
		o.Value = []byte(value)
	}
	return o
}

func TestCommandGolden(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    command
		hex  string
	}{
		{"empty", command{ops: []persistence.Op{}}, "010000000000"},
		{"ops", command{term: 300, at: -2, seq: 7, ops: []persistence.Op{op("a", "-", "b"), op("a", "-", ""), op("c", "-", "-"), op("d", "e", "-")}},
			"01ac02030700" + "04" + "0001610162" + "00016100" + "010163" + "0201640165"},
		{"mark", command{term: 1, at: 1, seq: 1, mark: mark{1024, 0x1122334455667788}, ops: []persistence.Op{}}, "01010201" + "8008" + "1122334455667788" + "00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.c.encode()
			if got := hex.EncodeToString(b); got != tt.hex {
				t.Errorf("encoded %s, want %s", got, tt.hex)
			}
			got, err := decodeCommand(b)
			if err != nil || !reflect.DeepEqual(got, tt.c) {
				t.Errorf("decoded %+v, %v", got, err)
			}
			for n := range b {
				if _, err := decodeCommand(b[:n]); err == nil {
					t.Errorf("the first %d bytes decode", n)
				}
			}
			if _, err := decodeCommand(append(b, 0)); err == nil {
				t.Error("a byte too many decodes")
			}
			if _, err := decodeCommand(append([]byte{2}, b[1:]...)); err == nil {
				t.Error("another version decodes")
			}
		})
	}
}

// What a newer build wrote is said to be that, and what is damaged is not.
func TestCommandOfANewerBuild(t *testing.T) {
	c := command{term: 1, ops: []persistence.Op{op("k", "-", "v")}}
	base := encodeBase(&persistence.State{})
	kind := c.encode()
	kind[6] = lastOp + 1
	for say, err := range map[string]error{
		"version 2, known up to 1: a newer build":             errOf(decodeCommand(append([]byte{2}, c.encode()[1:]...))),
		"change of kind 3, known up to 2: a newer build":      errOf(decodeCommand(kind)),
		"snapshot of version 2, known up to 1: a newer build": func() error { _, _, err := decodeBase(append([]byte{2}, base[1:]...)); return err }(),
	} {
		if !errors.Is(err, ErrCommand) || !strings.Contains(err.Error(), say) {
			t.Errorf("%v, want %q", err, say)
		}
	}
	for _, damaged := range [][]byte{nil, append([]byte{0}, c.encode()[1:]...), c.encode()[:4]} {
		if err := errOf(decodeCommand(damaged)); err != ErrCommand {
			t.Errorf("%x: %v", damaged, err)
		}
	}
}

func errOf(_ command, err error) error { return err }

func TestSizeOfCoversTheEncoding(t *testing.T) {
	for _, n := range []int{0, 1, 100} {
		ops := puts(n, 300)
		c := command{term: 1 << 40, at: 1 << 50, seq: 1 << 30, mark: mark{1 << 40, 1}, ops: ops}
		if got, most := int64(len(c.encode())), sizeOf(ops)+32; got > most {
			t.Errorf("%d ops: %d bytes, sizeOf says %d", n, got, most)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	c := command{term: 5, at: 9, seq: 2, mark: mark{1024, 7}, ops: []persistence.Op{op("k", "-", "v"), op("k", "-", "-"), op("a", "b", "-")}}
	f.Add(c.encode())
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		again, err := decodeCommand(c.encode())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%+v, then %+v, %v", c, again, err)
		}
	})
}

func FuzzDecodeBase(f *testing.F) {
	f.Add(append(encodeBase(&persistence.State{Hash: 1, At: 2, Generation: 3, Members: []persistence.Member{{Replica: 1, Node: 2}}}), 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, from, err := decodeBase(b)
		if err != nil {
			return
		}
		again, from2, err := decodeBase(append(encodeBase(&s), appendUvarint(from)...))
		if err != nil || from != from2 || !reflect.DeepEqual(s, again) {
			t.Fatalf("%+v, then %+v, %v", s, again, err)
		}
	})
}

func appendUvarint(v uint64) []byte {
	var b bytes.Buffer
	for ; v >= 0x80; v >>= 7 {
		b.WriteByte(byte(v) | 0x80)
	}
	b.WriteByte(byte(v))
	return b.Bytes()
}
