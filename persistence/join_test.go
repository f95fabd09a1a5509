package persistence

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A backup joined of parts is the backup of the whole, and one that lacks a group, or has one twice, is none.
func TestJoinBackups(t *testing.T) {
	fs := vfs.NewMem()
	src := openOn(t, fs, "data")
	for _, step := range script(t) {
		if err := step.run(src); err != nil {
			t.Fatal(err)
		}
	}
	seeded(t, src, 3, 3000, 900)
	groups, err := src.Groups()
	if err != nil || len(groups) != 4 {
		t.Fatal(groups, err)
	}
	part := func(groups ...uint32) func() (io.ReadCloser, error) {
		var b bytes.Buffer
		if _, err := src.Backup(&b, groups...); err != nil {
			t.Fatal(err)
		}
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	}
	var whole bytes.Buffer
	sum, err := JoinBackups(&whole, groups, part(groups[2]), part(groups[0], groups[3]), part(groups[1]))
	if err != nil || sum.Groups != 4 || sum.Identity != src.Identity() {
		t.Fatalf("%+v %v", sum, err)
	}
	if restored, err := Restore("joined", bytes.NewReader(whole.Bytes()), Options{FS: fs, Logger: silent, Create: &Identity{Node: 9}}); err != nil || restored.Groups != 4 {
		t.Fatalf("%+v %v", restored, err)
	}
	if d := diff(rowsOf(t, openOn(t, fs, "joined")), rowsOf(t, src)); d != "" {
		t.Error(d)
	}
	other := openOn(t, fs, "other")
	if err := script(t)[0].run(other); err != nil {
		t.Fatal(err)
	}
	foreign := backup(t, other)
	cut := func() (io.ReadCloser, error) {
		r, err := part(groups[1])()
		return struct {
			io.Reader
			io.Closer
		}{io.LimitReader(r, 200), r}, err
	}
	for name, parts := range map[string][]func() (io.ReadCloser, error){
		"a group is missing":       {part(groups[:3]...)},
		"a group comes twice":      {part(groups...), part(groups[0])},
		"a part of another":        {part(groups[:3]...), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(foreign)), nil }},
		"a part that is cut off":   {part(slices.Delete(slices.Clone(groups), 1, 2)...), cut},
		"no part":                  {},
		"a part that is not there": {func() (io.ReadCloser, error) { return nil, io.ErrClosedPipe }},
	} {
		var b bytes.Buffer
		_, err := JoinBackups(&b, groups, parts...)
		if err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := Restore("x-"+name, &b, Options{FS: fs, Logger: silent}); !errors.Is(err, ErrBackup) {
			t.Errorf("%s: what is written restores: %v", name, err)
		}
	}
}
