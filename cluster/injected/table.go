package injected

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "measure this package's injected defects and write their rows of docs/verification.md")

const (
	page  = "docs/verification.md"
	begin = "<!-- begin: make defects -->\n"
	end   = "<!-- end -->\n"
	head  = "\n| defect | injected in | package | red checker | seeds | red of so many seeds, by checker | by its outcome alone, seeds |\n" +
		"|---|---|---|---|---|---|---|\n"
)

// row is one line of the table: name, in, package, checker, seeds, counts, outcome.
type row [7]string

// Table holds the rows of this package in docs/verification.md to the list of its defects; with -update it measures
// them and writes the rows. Packages that write must not do so at the same time.
func Table(t *testing.T, bugs []Bug) {
	root, pkg := module(t)
	if *update {
		var mine []row
		for i := range bugs {
			mine = append(mine, bugs[i].measure(t, pkg))
		}
		before, rows, after := read(t, root)
		rows = slices.DeleteFunc(rows, func(r row) bool { return r[2] == pkg })
		write(t, root, before, append(rows, mine...), after)
		return
	}
	_, rows, _ := read(t, root)
	if why := stale(rows, pkg, bugs); why != "" {
		t.Errorf("%s: %s; run: go test ./%s -run TestVerification -update", page, why, pkg)
	}
}

// stale says what is wrong with the rows of a package; "": nothing.
func stale(rows []row, pkg string, bugs []Bug) string {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r[2] != pkg })
	if len(rows) != len(bugs) {
		return "has " + strconv.Itoa(len(rows)) + " defects of " + pkg + ", there are " + strconv.Itoa(len(bugs))
	}
	for i, b := range bugs {
		seeds, err := strconv.ParseUint(rows[i][4], 10, 64)
		switch r := rows[i]; {
		case r[0] != b.Name || r[1] != b.In:
			return "has " + strconv.Quote(r[0]) + " in " + r[1] + " where " + strconv.Quote(b.Name) + " in " + b.In + " is due"
		case b.By != "" && r[3] != b.By:
			return strconv.Quote(b.Name) + " was found by " + r[3] + ", not by " + b.By
		case err != nil || seeds == 0 || seeds > b.Within || r[3] == "":
			return strconv.Quote(b.Name) + " took " + r[4] + " seeds, at most " + strconv.FormatUint(b.Within, 10) + " may be"
		}
	}
	return ""
}

// module is the directory of the module, and that of the package under test in it.
func module(t *testing.T) (root, pkg string) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for root = dir; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			t.Fatal("no go.mod above " + dir)
		}
	}
	if pkg, err = filepath.Rel(root, dir); err != nil {
		t.Fatal(err)
	}
	return root, filepath.ToSlash(pkg)
}

// read cuts the page into what is before the table, its rows, and what is after it.
func read(t *testing.T, root string) (before string, rows []row, after string) {
	b, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no markers for the table", page)
	}
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if i >= 2 && len(cells) == len(row{}) {
			rows = append(rows, row(cells))
		} else if i >= 2 {
			t.Fatalf("%s: a row of %d cells: %s", page, len(cells), line)
		}
	}
	return before, rows, after
}

func write(t *testing.T, root, before string, rows []row, after string) {
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a[2], b[2]) })
	out := before + begin + head
	for _, r := range rows {
		out += "| " + strings.Join(r[:], " | ") + " |\n"
	}
	if err := os.WriteFile(filepath.Join(root, page), []byte(out+"\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
