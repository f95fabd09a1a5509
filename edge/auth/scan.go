package auth

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

var errNotObject = errors.New("not a JSON object")

// members calls f with each member of the JSON object in data, in order; raw is the
// value's text. An error of f ends the walk. A name may come twice: f decides.
func members(data []byte, f func(name string, raw []byte) error) error {
	if !utf8.Valid(data) || !json.Valid(data) {
		return errNotObject
	}
	i := space(data, 0)
	if data[i] != '{' {
		return errNotObject
	}
	// From here on data is known to be valid JSON, so the walk needs no error of its own.
	i = space(data, i+1)
	for data[i] != '}' {
		end := skipString(data, i)
		name, err := text(data[i:end])
		if err != nil {
			return err
		}
		i = space(data, end) // the colon
		start := space(data, i+1)
		end = skipValue(data, start)
		if err := f(name, data[start:end]); err != nil {
			return err
		}
		i = space(data, end)
		if data[i] == ',' {
			i = space(data, i+1)
		}
	}
	return nil
}

func space(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r' {
		i++
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func skipValue(b []byte, i int) int {
	depth := 0
	for {
		switch b[i] {
		case '"':
			i = skipString(b, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		default:
			i++
		}
		if depth > 0 {
			continue
		}
		if c := b[i-1]; c == '"' || c == '}' || c == ']' {
			return i
		}
		if c := b[i]; c == ',' || c == '}' || c == ']' || c <= ' ' {
			return i
		}
	}
}

// text decodes a JSON string.
func text(raw []byte) (string, error) {
	if raw[0] != '"' {
		return "", errors.New("not a string")
	}
	s := string(raw[1 : len(raw)-1])
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	err := json.Unmarshal(raw, &s)
	return s, err
}

// texts decodes a JSON list of strings. Pointers tell null from the empty string.
func texts(raw []byte) ([]string, error) {
	var list []*string
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil || slices.Contains(list, nil) {
		return nil, errors.New("not a list of strings")
	}
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = *s
	}
	return texts, nil
}
