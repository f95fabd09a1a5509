package api

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"testing"

	"muster/actors/link"
)

var update = flag.Bool("update", false, "rewrite golden files")

type callerFunc func(ctx context.Context, up *link.Up) (*link.Down, error)

func (f callerFunc) Call(ctx context.Context, up *link.Up) (*link.Down, error) { return f(ctx, up) }

var nobody = callerFunc(func(context.Context, *link.Up) (*link.Down, error) { return nil, errors.New("no link") })

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// The document is what clients are generated from: each change of it must be seen.
func TestOpenAPIGolden(t *testing.T) {
	a, err := New(Config{Caller: nobody, Version: "test", Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openapi.json", "openapi.yaml"} {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest("GET", "/v1/"+name, nil))
		file := "testdata/" + name
		if *update {
			if err := os.MkdirAll("testdata", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, w.Body.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), want) {
			t.Errorf("%s differs: look at the change, then go test ./edge/api -run Golden -update", file)
		}
	}
}
