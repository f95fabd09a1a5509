package muster

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rule says what one package (and those below it) may import: packages of this
// module by prefix, and third parties by prefix. The longest matching rule counts.
type rule struct {
	module     []string
	thirdParty []string
}

var rules = map[string]rule{
	".":               {},
	"actors/presence": {},
	"actors/room":     {module: []string{"actors/presence"}},
	"actors/link": {
		thirdParty: []string{"google.golang.org/protobuf", "github.com/cespare/xxhash"},
	},
	"actors": {
		module:     []string{"actors"},
		thirdParty: []string{"github.com/asynkron/protoactor-go/actor", "github.com/asynkron/protoactor-go/eventstream", "google.golang.org/protobuf", "github.com/cespare/xxhash"},
	},
	"actors/actorstest": {module: []string{"actors/link", "actors/row"}},
	"actors/row": {
		module:     []string{"actors/presence"},
		thirdParty: []string{"google.golang.org/protobuf"},
	},
	"persistence": {
		thirdParty: []string{"github.com/cockroachdb/pebble/v2", "go.etcd.io/raft/v3/raftpb", "google.golang.org/protobuf", "github.com/google/uuid"},
	},
	"cluster": {
		module:     []string{"persistence"},
		thirdParty: []string{"go.etcd.io/raft/v3", "google.golang.org/protobuf"},
	},
	"cluster/gossip":   {thirdParty: []string{"github.com/hashicorp/memberlist", "google.golang.org/protobuf"}},
	"cluster/birth":    {},
	"cluster/injected": {},
	"cluster/stream": {
		module:     []string{"cluster"},
		thirdParty: []string{"google.golang.org/grpc", "google.golang.org/protobuf", "go.etcd.io/raft/v3/raftpb", "golang.org/x/time/rate"},
	},
	"cluster/meta": {
		module:     []string{"cluster", "persistence"},
		thirdParty: []string{"google.golang.org/protobuf", "go.etcd.io/raft/v3/raftpb", "github.com/cespare/xxhash"},
	},
	"edge/hooks": {
		module:     []string{"actors/link"},
		thirdParty: []string{"github.com/standard-webhooks/standard-webhooks", "github.com/prometheus/client_golang"},
	},
	"edge": {
		module: []string{"edge", "actors/link", "actors/presence", "clients/wire", "clients/js"},
		thirdParty: []string{
			"github.com/coder/websocket", "github.com/golang-jwt/jwt", "github.com/MicahParks/",
			"github.com/prometheus/client_golang", "github.com/asynkron/protoactor-go/actor", "github.com/asynkron/protoactor-go/eventstream",
			"github.com/danielgtaylor/huma", "google.golang.org/protobuf", "golang.org/x/sys", "golang.org/x/time/rate",
			"github.com/google/uuid", "github.com/oklog/ulid",
		},
	},
	"clients/wire": {
		thirdParty: []string{"google.golang.org/protobuf", "github.com/go-faster/jx"},
		module:     []string{"clients/wire"},
	},
	"clients/js": {},
	"clients/go": {
		module:     []string{"clients/wire"},
		thirdParty: []string{"github.com/coder/websocket", "github.com/google/uuid"},
	},
	"cmd/muster": {module: []string{""}, thirdParty: []string{""}},
}

// Files and functions that may pass the bound, each with its reason.
var (
	longFiles     = map[string]string{}
	longFunctions = map[string]string{}
)

const (
	maxFile     = 500
	maxFunction = 70
)

// sourceFiles calls f with every hand-written Go file outside tests.
func sourceFiles(t *testing.T, f func(file string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go") {
			f(filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func ruleFor(dir string) (rule, bool) {
	for d := dir; ; d = path.Dir(d) {
		if r, ok := rules[d]; ok {
			return r, true
		}
		if d == "." || d == "/" {
			return rule{}, false
		}
	}
}

func allowed(imp string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return p == "" || imp == p || strings.HasPrefix(imp, strings.TrimSuffix(p, "/")+"/") ||
			strings.HasSuffix(p, "/") && strings.HasPrefix(imp, p)
	})
}

func TestImports(t *testing.T) {
	checked := 0
	sourceFiles(t, func(file string) {
		dir := path.Dir(file)
		r, ok := ruleFor(dir)
		if !ok {
			t.Errorf("%s: no import rule for package %s", file, dir)
			return
		}
		for _, imp := range imports(t, file) {
			checked++
			if why := refuse(dir, imp, r); why != "" {
				t.Errorf("%s imports %q: %s", file, imp, why)
			}
		}
	})
	if checked < 50 {
		t.Fatalf("only %d imports found: the walk is broken", checked)
	}
}

func refuse(dir, imp string, r rule) string {
	if in, ok := strings.CutPrefix(imp, "muster/"); ok {
		if in == dir || allowed(in, r.module) {
			return ""
		}
		return "not in the import table of " + dir
	}
	if !strings.Contains(strings.Split(imp, "/")[0], ".") {
		if pure(dir) && impure[imp] {
			return dir + " is a pure core: no I/O, clock, lock, log or randomness"
		}
		return ""
	}
	if allowed(imp, r.thirdParty) {
		return ""
	}
	return "third party not in the import table of " + dir
}

func pure(dir string) bool { return dir == "actors/presence" || dir == "actors/room" }

// What a pure core may not import. time stands for its types alone: see TestCoresArePure.
var impure = map[string]bool{
	"os": true, "io": true, "net": true, "net/http": true, "log": true, "log/slog": true, "context": true,
	"math/rand": true, "math/rand/v2": true, "crypto/rand": true, "sync": true, "sync/atomic": true, "runtime": true, "unsafe": true,
}

// TestCoresArePure refuses goroutines, channels and reading the clock in the cores.
func TestCoresArePure(t *testing.T) {
	clock := []string{"Now", "Since", "Until", "After", "AfterFunc", "NewTimer", "NewTicker", "Sleep", "Tick"}
	files := 0
	sourceFiles(t, func(file string) {
		if !pure(path.Dir(file)) {
			return
		}
		files++
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%s: goroutine or channel in a pure core", fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s: time.%s in a pure core", fset.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	})
	if files == 0 {
		t.Fatal("no core files found")
	}
}

func imports(t *testing.T, file string) []string {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range f.Imports {
		p, _ := strconv.Unquote(s.Path.Value)
		out = append(out, p)
	}
	return out
}

func generated(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for n := 0; n < 5 && s.Scan(); n++ {
		if strings.Contains(s.Text(), "Code generated") {
			return true
		}
	}
	return false
}

// TestSizes keeps files and functions short.
func TestSizes(t *testing.T) {
	sourceFiles(t, func(file string) {
		if generated(file) {
			return
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := fset.File(f.Pos()).LineCount(); n > maxFile && longFiles[file] == "" {
			t.Errorf("%s has %d lines, more than %d", file, n, maxFile)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if n > maxFunction && longFunctions[file+":"+fn.Name.Name] == "" {
				t.Errorf("%s: %s has %d lines, more than %d", file, fn.Name.Name, n, maxFunction)
			}
		}
	})
}

// TestNames refuses package names that say nothing.
func TestNames(t *testing.T) {
	empty := []string{"util", "utils", "common", "types", "models", "helpers", "manager"}
	sourceFiles(t, func(file string) {
		if slices.Contains(empty, path.Base(path.Dir(file))) {
			t.Errorf("%s: a package is named for what it does", file)
		}
	})
}
