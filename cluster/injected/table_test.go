package injected

import (
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// The table has rows of exactly the packages that show them.
func TestPackages(t *testing.T) {
	root, self := module(t)
	var want, got []string
	err := fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(file, "_test.go") || path.Dir(file) == self {
			return err
		}
		b, err := os.ReadFile(path.Join(root, file))
		if strings.Contains(string(b), "injected.Table(t,") {
			want = append(want, path.Dir(file))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := read(t, root)
	for _, r := range rows {
		got = append(got, r[2])
	}
	slices.Sort(want)
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) || len(want) == 0 {
		t.Errorf("the table has rows of %v, the defects are in %v; run: make defects", got, want)
	}
}

// A table that is not the list's is noticed.
func TestStale(t *testing.T) {
	bugs := []Bug{{Name: "a", In: "x", By: "red", Within: 10}, {Name: "b", In: "y", Within: 10}}
	a, b := row{"a", "x", "p", "red", "3"}, row{"b", "y", "p", "red", "10"}
	for _, rows := range [][]row{{a, b}, {a, {"c", "", "other"}, b}} {
		if why := stale(rows, "p", bugs); why != "" {
			t.Error(why)
		}
	}
	late := b
	late[4] = "11"
	blue := a
	blue[3] = "blue"
	for _, rows := range [][]row{{a}, {b, a}, {blue, b}, {a, b, b}, {a, late}, {a, {"b", "z", "p", "red", "3"}}, {a, {"b", "y", "p", "", "3"}}} {
		if stale(rows, "p", bugs) == "" {
			t.Errorf("%v passes", rows)
		}
	}
}

// The first seed that turns a checker red counts, and those that do in the sample.
func TestMeasure(t *testing.T) {
	b := Bug{Name: "n", In: "i", Within: 9, Sample: 8, OutcomeWithin: 3,
		Try: func(_ *testing.T, seed uint64) (string, string) {
			return []string{"", "", "one", "two"}[seed%4], "said"
		},
		Outcome: func(*testing.T, uint64) (string, string) { return "", "" }}
	want := row{"n", "i", "p", "one", "2", "one 2, two 2 of 8", "not found in 3"}
	if got := b.measure(t, "p"); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	b.By, want[3], want[4] = "two", "two", "3"
	if got := b.measure(t, "p"); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	names := Checkers{{"first", "b c"}, {"second", "c"}}
	if names.Of("a b c") != "first" || names.Of("x c") != "second" || !strings.HasPrefix(names.Of("d"), "unnamed") {
		t.Error("a checker has the wrong name")
	}
}
