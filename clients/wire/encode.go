package wire

import (
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// The functions here are what the generated encoders are made of: each appends one
// field, with a comma unless it is the object's first (b still ends at start), and
// nothing for a zero value.

// plain holds the bytes that stand for themselves inside a JSON string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\'
	}
	return
}()

func putKey(b []byte, start int, key string) []byte {
	if len(b) != start {
		b = append(b, ',')
	}
	return append(b, key...)
}

func putString(b []byte, start int, key, v string) []byte {
	if v == "" {
		return b
	}
	return appendString(putKey(b, start, key), v)
}

func putBool(b []byte, start int, key string, v bool) []byte {
	if !v {
		return b
	}
	return append(putKey(b, start, key), "true"...)
}

func putNumber[T uint32 | uint64](b []byte, start int, key string, v T) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendUint(putKey(b, start, key), uint64(v), 10)
}

func putOptional[T uint32 | uint64](b []byte, start int, key string, v *T) []byte {
	if v == nil {
		return b
	}
	return strconv.AppendUint(putKey(b, start, key), uint64(*v), 10)
}

func putStrings(b []byte, start int, key string, v []string) []byte {
	if len(v) == 0 {
		return b
	}
	b = putKey(b, start, key)
	for i, s := range v {
		b = appendString(append(b, bracket(i)), s)
	}
	return append(b, ']')
}

func putNumbers(b []byte, start int, key string, v []uint64) []byte {
	if len(v) == 0 {
		return b
	}
	b = putKey(b, start, key)
	for i, n := range v {
		b = strconv.AppendUint(append(b, bracket(i)), n, 10)
	}
	return append(b, ']')
}

func putMessage[T any, P pointer[T]](b []byte, start int, key string, v P) []byte {
	if v == nil {
		return b
	}
	return v.AppendJSON(putKey(b, start, key))
}

func putMessages[T any, P pointer[T]](b []byte, start int, key string, v []P) []byte {
	if len(v) == 0 {
		return b
	}
	b = putKey(b, start, key)
	for i, m := range v {
		b = m.AppendJSON(append(b, bracket(i)))
	}
	return append(b, ']')
}

func bracket(i int) byte {
	if i == 0 {
		return '['
	}
	return ','
}

// putRaw embeds JSON text. What is not sound JSON, or nested deeper than MaxRawDepth,
// is left out: it must not break the frame for its receiver.
func putRaw(b []byte, start int, key, v string) []byte {
	if v == "" || v == "null" {
		return b
	}
	text := unsafe.Slice(unsafe.StringData(v), len(v))
	if !soundJSON(text, MaxRawDepth) {
		return b
	}
	return appendCompact(putKey(b, start, key), text)
}

// putDevices writes the list as an object in the list's order; entries without a
// class or a state, and second entries of a class, are left out.
func putDevices(b []byte, start int, key string, v []*DeviceState) []byte {
	var seen uint64
	for _, d := range v {
		class, state := d.GetClass(), d.GetState().Name()
		if class.Name() == "" || state == "" || seen&(1<<class) != 0 {
			continue
		}
		if seen == 0 {
			b = append(putKey(b, start, key), '{')
		} else {
			b = append(b, ',')
		}
		seen |= 1 << class
		b = append(b, '"')
		b = append(b, class.Name()...)
		b = append(b, '"', ':')
		b = appendString(b, state)
	}
	if seen != 0 {
		b = append(b, '}')
	}
	return b
}

const hexDigits = "0123456789abcdef"

// appendString appends s quoted; bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf && plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			if c >= utf8.RuneSelf {
				b = append(b, "\uFFFD"...)
			} else {
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
