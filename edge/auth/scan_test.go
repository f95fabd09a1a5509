package auth

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"
)

type member struct{ name, value string }

// reference walks an object with the standard library.
func reference(data []byte) (list []member, ok bool) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, false
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, false
		}
		list = append(list, member{name.(string), string(raw)})
	}
	return list, true
}

// The walk sees what the standard library sees, whatever the text.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "a" : 1 , "b":[1,{"c":"]}"}], "a":"\"\\", "\u0061":null } `, `{"a":true,"b":-1.5e+3}`, `{"":""}`, `[]`, `"x"`, `1`, ``,
		`{"a":"\\"}`, `{"\\":{}}`, "{\"\xff\":1}", `{"a":1}x`, `{"a":"\ud800"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got []member
		err := members(data, func(name string, raw []byte) error {
			got = append(got, member{name, string(raw)})
			return nil
		})
		want, ok := reference(data)
		if ok != (err == nil) || ok && !slices.Equal(got, want) {
			t.Fatalf("%q: %v, %v; want %v, %v", data, got, err, want, ok)
		}
		for _, m := range got {
			if m.value[0] != '[' {
				continue
			}
			var std []string
			list, err := texts([]byte(m.value))
			// The library takes null for an empty string; a claim may not.
			if stdErr := json.Unmarshal([]byte(m.value), &std); err == nil && (stdErr != nil || !slices.Equal(list, std)) {
				t.Fatalf("%q: %q, want %q, %v", m.value, list, std, stdErr)
			}
		}
	})
}
