package api

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"muster/actors/link"
	"muster/actors/presence"
)

var (
	block = regexp.MustCompile("(?s)```(sh|json)\n(.*?)```")
	curl  = regexp.MustCompile(`^curl -s( -X (\w+))? "?\$API([^" ]+)"?( -H "\$AUTH")?( --json '(.*)')?$`)
)

// Every curl of the guide is a request that works, and the answer printed below it,
// if there is one, is what it gets. Every call of the API has an example.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	core := newFake(t)
	core.users[presence.Key{App: "default", User: "alice"}] = &link.View{
		State: uint32(presence.DND), Text: "in a call", Emoji: "📞", Since: 1_800_000_000_000, LastSeen: 1_800_000_000_000,
		Devices: []*link.Device{{Class: uint32(presence.Mobile), State: uint32(presence.Online)}, {Class: uint32(presence.Web), State: uint32(presence.Away)}},
	}
	core.online("default", "carol")
	core.online("default", "dave")
	a := newAPI(t, core)
	a.cfg.Hooks = &hooked{back: map[uint32]uint64{}}
	a.mux.HandleFunc("GET /metrics", func(http.ResponseWriter, *http.Request) {})
	shown := map[string]bool{} // routes with an example
	last, checked := "", 0
	for _, m := range block.FindAllStringSubmatch(string(text), -1) {
		if m[1] == "json" {
			if last != "" {
				checked++
				sameJSON(t, last, m[2])
			}
			last = ""
			continue
		}
		for line := range strings.Lines(m[2]) {
			if !strings.HasPrefix(line, "curl") {
				continue
			}
			c := curl.FindStringSubmatch(strings.TrimSpace(line))
			if c == nil {
				t.Errorf("not in the form of this guide: %s", line)
				continue
			}
			method, path, auth, body := c[2], c[3], c[4], strings.ReplaceAll(c[6], "CURSOR", (&places{}).String())
			if method == "" {
				method = "GET"
				if body != "" {
					method = "POST"
				}
			}
			r := request(method, path, body)
			if auth == "" {
				r.Header.Del("Authorization")
			}
			_, route := a.mux.Handler(r)
			shown[route] = true
			w := do(a, r)
			if w.Code != 200 {
				t.Errorf("%s%d %s", line, w.Code, w.Body)
			}
			last = w.Body.String()
		}
	}
	if checked < 6 {
		t.Errorf("only %d answers compared: the guide is not read", checked)
	}
	for path, item := range a.huma.OpenAPI().Paths {
		for method, op := range map[string]any{"GET": item.Get, "POST": item.Post, "DELETE": item.Delete, "PUT": item.Put} {
			if !reflect.ValueOf(op).IsNil() && !shown[method+" "+path] {
				t.Errorf("%s %s has no example in the guide", method, path)
			}
		}
	}
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("the guide shows\n%s\nthe API answers\n%s", want, got)
	}
}

// The metrics that the guide names are there.
func TestGuideMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := New(Config{Caller: nobody, Registerer: reg, Log: quiet()}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Caller: nobody, Registerer: reg, Log: quiet()}); err == nil {
		t.Error("two APIs count into one registry")
	}
}
