package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	freeKey = "free-0123456789abcdef"
	shopKey = "shop-0123456789abcdef"
)

func newAPI(t testing.TB, c Caller) *API {
	t.Helper()
	var keys []Key
	for _, s := range []string{freeKey, "shop:" + shopKey} {
		k, err := ParseKey(s, false)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	a, err := New(Config{
		Caller: c, Keys: keys, Log: quiet(), Now: func() time.Time { return time.Unix(1_800_000_000, 0) },
		NewEpoch: func() uint64 { return 0x9f00000000000002 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func request(method, path, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+freeKey)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func do(a *API, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

// wantError checks that the answer is a whole error body of the table.
func wantError(t testing.TB, w *httptest.ResponseRecorder, status int, code wire.Code) {
	t.Helper()
	var e Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatalf("status %d, body %q is no error: %v", w.Code, w.Body, err)
	}
	info, _ := code.Info()
	if w.Code != status || e.Code != uint32(code) || e.Name != info.Name || e.Message == "" || e.Retryable != info.Retryable {
		t.Fatalf("status %d, %+v; want %d, %s", w.Code, e, status, code)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Fatalf("content type %q", ct)
	}
	if (e.RetryAfterMs > 0) != (w.Header().Get("Retry-After") != "") {
		t.Fatalf("retry_after_ms %d, Retry-After %q", e.RetryAfterMs, w.Header().Get("Retry-After"))
	}
}

// The stories in testdata/story: a request, its answer, and what went to the core.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/story", func(t *testing.T, path string) {
		core := newFake(t)
		a := newAPI(t, core)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "online": // online app user…
				for _, arg := range d.CmdArgs[1:] {
					core.online(d.CmdArgs[0].Key, arg.Key)
				}
				return ""
			case "show": // show app user: a View as JSON
				v := &link.View{}
				if err := protojson.Unmarshal([]byte(d.Input), v); err != nil {
					t.Fatal(err)
				}
				core.index = nil
				core.users[presence.Key{App: d.CmdArgs[0].Key, User: d.CmdArgs[1].Key}] = v
				return ""
			case "unreachable":
				core.down[link.ShardOf("default", link.KindUser, d.CmdArgs[0].Key)] = errors.New("no link")
				return ""
			case "settling":
				core.settle[link.ShardOf("default", link.KindUser, d.CmdArgs[0].Key)] = true
				return ""
			case "refuse-user": // refuse-user user CODE
				core.refused[d.CmdArgs[0].Key] = link.Code(link.Code_value[d.CmdArgs[1].Key])
				return ""
			case "refuse":
				core.code = link.Code(link.Code_value[d.CmdArgs[0].Key])
				return ""
			case "call": // first line: METHOD path; then the body
				return call(t, a, core, d.Input)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func call(t *testing.T, a *API, core *fakeCore, input string) string {
	line, body, _ := strings.Cut(input, "\n")
	method, path, _ := strings.Cut(line, " ")
	core.sent = nil
	w := do(a, request(method, path, body))
	out := &bytes.Buffer{}
	fmt.Fprintln(out, w.Code)
	if err := json.Indent(out, bytes.TrimSpace(w.Body.Bytes()), "", " "); err != nil {
		t.Fatalf("%s: not JSON: %q", line, w.Body)
	}
	if len(core.sent) > 4 { // every shard was asked
		fmt.Fprintf(out, "\n-> %d messages", len(core.sent))
		return out.String() + "\n"
	}
	var sent []string
	for _, up := range core.sent {
		up.Shard = 0 // checked by the fake
		data, err := protojson.Marshal(up)
		if err != nil {
			t.Fatal(err)
		}
		var compact bytes.Buffer // protojson shuffles its spaces on purpose
		if err := json.Compact(&compact, data); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, compact.String())
	}
	switch { // sort what was sent in parallel
	case path == "/v1/presence":
		slices.Sort(sent)
	case strings.Contains(path, "/contacts") || path == "/v1/publish":
		slices.Sort(sent)
	}
	for _, s := range sent {
		fmt.Fprintf(out, "\n-> %s", s)
	}
	return out.String() + "\n"
}

func TestKeysAndApps(t *testing.T) {
	core := newFake(t)
	core.online("default", "alice")
	core.online("shop", "bob")
	a := newAPI(t, core)
	bearer := func(key string) map[string]string { return map[string]string{"Authorization": "Bearer " + key} }
	with := func(key, app string) map[string]string {
		h := bearer(key)
		h["X-Muster-App"] = app
		return h
	}
	cases := map[string]struct {
		header map[string]string
		path   string
		app    string // "" refuses
		code   wire.Code
	}{
		"no key":                   {nil, "/v1/counts", "", wire.CodeUnauthorized},
		"empty key":                {map[string]string{"Authorization": "Bearer "}, "/v1/counts", "", wire.CodeUnauthorized},
		"basic":                    {map[string]string{"Authorization": "Basic " + freeKey}, "/v1/counts", "", wire.CodeUnauthorized},
		"wrong key":                {bearer(freeKey + "x"), "/v1/counts", "", wire.CodeUnauthorized},
		"prefix of a key":          {bearer(freeKey[:20]), "/v1/counts", "", wire.CodeUnauthorized},
		"app:key is not the key":   {bearer("shop:" + shopKey), "/v1/counts", "", wire.CodeUnauthorized},
		"key in the query":         {nil, "/v1/counts?key=" + freeKey, "", wire.CodeUnauthorized},
		"unknown path without key": {nil, "/v1/nothing", "", wire.CodeUnauthorized},
		"crooked path without key": {nil, "//v1/counts", "", wire.CodeUnauthorized},
		"path beside openapi":      {nil, "/v1/openapi.json/../counts", "", wire.CodeUnauthorized},
		"free key":                 {bearer(freeKey), "/v1/counts", "default", 0},
		"lower-case scheme":        {map[string]string{"Authorization": "bearer " + freeKey}, "/v1/counts", "default", 0},
		"free key, header":         {with(freeKey, "shop"), "/v1/counts", "shop", 0},
		"free key, query":          {bearer(freeKey), "/v1/counts?app=shop", "shop", 0},
		"free key, both the same":  {with(freeKey, "shop"), "/v1/counts?app=shop", "shop", 0},
		"free key, both differ":    {with(freeKey, "shop"), "/v1/counts?app=x", "", wire.CodeBadRequest},
		"free key, bad app":        {with(freeKey, "a b"), "/v1/counts", "", wire.CodeBadRequest},
		"bound key":                {bearer(shopKey), "/v1/counts", "shop", 0},
		"bound key, its app":       {with(shopKey, "shop"), "/v1/counts", "shop", 0},
		"bound key, another app":   {with(shopKey, "default"), "/v1/counts", "", wire.CodePermissionDenied},
		"bound key, by the query":  {bearer(shopKey), "/v1/counts?app=default", "", wire.CodePermissionDenied},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			core.sent = nil
			r := httptest.NewRequest("GET", c.path, nil)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := do(a, r)
			if c.app == "" {
				info, _ := c.code.Info()
				wantError(t, w, info.HTTP, c.code)
				if len(core.sent) > 0 {
					t.Fatal("something went to the core")
				}
				if (c.code == wire.CodeUnauthorized) != (w.Header().Get("WWW-Authenticate") != "") {
					t.Fatal("WWW-Authenticate")
				}
				return
			}
			if w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			for _, up := range core.sent {
				if got := up.GetAsk().App; got != c.app {
					t.Fatalf("asked for app %q, want %q", got, c.app)
				}
			}
		})
	}
	for _, bad := range []string{"", "short", "a b:0123456789abcdef0123", "shop:", ":0123456789abcdef0123"} {
		if _, err := ParseKey(bad, false); err == nil {
			t.Errorf("key %q accepted", bad)
		}
	}
	if _, err := ParseKey("muster-dev", true); err != nil {
		t.Error(err)
	}
}

func TestOneAppCannotSeeAnother(t *testing.T) {
	core := newFake(t)
	core.online("default", "alice")
	a := newAPI(t, core)
	r := request("GET", "/v1/users/alice", "")
	r.Header.Set("Authorization", "Bearer "+shopKey)
	var u User
	if err := json.Unmarshal(do(a, r).Body.Bytes(), &u); err != nil || u.State != "offline" {
		t.Fatalf("%+v, %v", u, err)
	}
}

func TestBadRequests(t *testing.T) {
	a := newAPI(t, newFake(t))
	cases := []struct {
		method, path, body string
		status             int
		code               wire.Code
	}{
		{"GET", "/v1/nothing", "", 404, wire.CodeMethodNotFound},
		{"GET", "/nothing", "", 404, wire.CodeMethodNotFound},
		{"GET", "/v1/presence", "", 405, wire.CodeMethodNotFound},
		{"PUT", "/v1/users/alice", "{}", 405, wire.CodeMethodNotFound},
		{"POST", "/v1/presence", "", 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", "{", 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", "{}{}", 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", "[]", 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{"users":null}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{"users":[]}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{"users":[1]}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{"users":["a"],"x":1}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{"users":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/presence", `{"users":["` + strings.Repeat("a", maxBody) + `"]}`, 413, wire.CodeTooLarge},
		{"POST", "/v1/presence", strings.Repeat("[", 20_000), 400, wire.CodeBadRequest},
		{"GET", "/v1/users/a%20b", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/users/" + strings.Repeat("a", 129), "", 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/status", `{"state":"sleepy"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/status", `{"state":"dnd","text":"` + strings.Repeat("é", 129) + `"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/status", `{"state":"dnd","emoji":"` + strings.Repeat("é", 17) + `"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/status", `{"state":"dnd","ttl_ms":-1}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/status", `{"state":"dnd","ttl_ms":9999}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/claims", `{"id":"a","ttl_ms":1}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/status", `{"state":"dnd","ttl_ms":1e30}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/claims", `{"id":"","state":"dnd"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/claims", `{"id":"a","state":"invisible"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/claims", `{"id":"a","source":"magic"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/claims", `{"id":"a","priority":101}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/claims", `{"id":"a","activity":"` + strings.Repeat("x", 2048) + `"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/disconnect", `{"device_id":"d","session_id":"s"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/disconnect", `{"code":1000}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/revoke", `{"before":1,"jti":"j"}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/revoke", `{"before":1800000000000}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/revoke", `{"jti":"j","until":1}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/revoke", `{"until":1900000000}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/audience", `{}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/audience", `{"state":{"rule":"friends"}}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/audience", `{"state":{"rule":"only","users":["a b"]}}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/audience", `{"grant":[{"to":"bob","fields":["shoes"],"ttl_ms":1}]}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/contacts", `{}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/contacts", `{"contacts":[{"user":"a/b","subscription":"to"}]}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/blocks", `{"add":["alice"]}`, 400, wire.CodeBadRequest},
		{"POST", "/v1/users/alice/blocks", `{"add":["bob"],"remove":["bob"]}`, 400, wire.CodeBadRequest},
		{"GET", "/v1/online?limit=0", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/online?limit=1001", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/online?limit=x", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/online?cursor=%21", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/online?cursor=MTovLw", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/online?prefix=a%20b", "", 400, wire.CodeBadRequest},
		{"GET", "/v1/explain/alice?watcher=a%20b", "", 400, wire.CodeBadRequest},
	}
	for _, c := range cases {
		w := do(a, request(c.method, c.path, c.body))
		t.Run(c.method+" "+c.path+" "+c.body[:min(len(c.body), 60)], func(t *testing.T) {
			wantError(t, w, c.status, c.code)
			if strings.Contains(w.Body.String(), strings.Repeat("a", 200)) {
				t.Error("the body sent is echoed")
			}
			if (c.status == 405) != (w.Header().Get("Allow") != "") {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
		})
	}
	r := request("POST", "/v1/presence", "users=alice")
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	wantError(t, do(a, r), 415, wire.CodeBadRequest)
}

// Each way in which a shard can refuse or fail, for each call that passes it on.
func TestCoreErrors(t *testing.T) {
	calls := []*struct{ method, path, body string }{
		{"POST", "/v1/users/alice/status", `{"state":"dnd"}`},
		{"POST", "/v1/users/alice/claims", `{"id":"c","state":"dnd"}`},
		{"DELETE", "/v1/users/alice/claims/c", ""},
		{"POST", "/v1/users/alice/disconnect", ""},
		{"POST", "/v1/users/alice/revoke", ""},
		{"POST", "/v1/users/alice/audience", `{"state":{"rule":"nobody"}}`},
		{"DELETE", "/v1/users/alice/contacts/bob", ""},
		{"GET", "/v1/users/alice/contacts", ""},
		{"GET", "/v1/users/alice/outbox", ""},
		{"POST", "/v1/users/alice/outbox/purge", ""},
		{"POST", "/v1/users/alice/graph/invalidate", ""},
		{"DELETE", "/v1/users/alice", ""},
		{"POST", "/v1/users/alice/blocks", `{"add":["bob"]}`},
		{"GET", "/v1/explain/alice", ""},
		{"GET", "/v1/rooms/r1/occupants", ""},
	}
	codes := map[link.Code]wire.Code{
		link.Code_BAD_REQUEST: wire.CodeBadRequest, link.Code_LIMIT: wire.CodeLimitExceeded,
		link.Code_DEVICE_LIMIT: wire.CodeLimitExceeded, link.Code_REVOKED: wire.CodeUnauthorized,
		link.Code_DENIED: wire.CodePermissionDenied, link.Code_BUSY: wire.CodeBusy, link.Code_MOVING: wire.CodeMoving,
		link.Code_STALE_ATTEMPT: wire.CodeConflict, link.Code_NOT_ATTACHED: wire.CodeConflict,
		link.Code_OUTBOX_FULL: wire.CodeOutboxFull, link.Code_ID_EXPIRED: wire.CodeIDExpired, link.Code_ID_REUSED: wire.CodeIDReused,
		link.Code_BLOCKED: wire.CodeBlocked, link.Code_UNKNOWN_OUTCOME: wire.CodeMoving,
		link.Code_UNAVAILABLE: wire.CodeNotReady, link.Code(99): wire.CodeInternal,
	}
	var now Caller
	a := newAPI(t, callerFunc(func(ctx context.Context, up *link.Up) (*link.Down, error) { return now.Call(ctx, up) }))
	for _, c := range calls {
		for _, code := range slices.Sorted(maps.Keys(codes)) {
			core := newFake(t)
			core.code = code
			now = core
			info, _ := codes[code].Info()
			wantError(t, do(a, request(c.method, c.path, c.body)), info.HTTP, codes[code])
		}
		failures := map[string]struct {
			caller Caller
			code   wire.Code
		}{
			"no link":  {nobody, wire.CodeNotReady},
			"time-out": {callerFunc(func(context.Context, *link.Up) (*link.Down, error) { return nil, context.DeadlineExceeded }), wire.CodeNotReady},
			"nil":      {callerFunc(func(context.Context, *link.Up) (*link.Down, error) { return nil, nil }), wire.CodeInternal},
			"wrong":    {callerFunc(func(context.Context, *link.Up) (*link.Down, error) { return &link.Down{}, nil }), wire.CodeInternal},
			"panic":    {callerFunc(func(context.Context, *link.Up) (*link.Down, error) { panic("broken") }), wire.CodeInternal},
		}
		for name, f := range failures {
			t.Run(name+" "+c.path, func(t *testing.T) {
				now = f.caller
				info, _ := f.code.Info()
				wantError(t, do(a, request(c.method, c.path, c.body)), info.HTTP, f.code)
			})
		}
	}
}

// A linearizable read is asked for as such, and has an error where a default one has "unknown".
func TestLinearizable(t *testing.T) {
	core := newFake(t)
	core.online("default", "alice")
	a := newAPI(t, core)
	reads := []*struct{ method, path, body string }{
		{"GET", "/v1/users/alice", ""}, {"GET", "/v1/users/alice/contacts", ""}, {"GET", "/v1/users/alice/outbox", ""},
		{"POST", "/v1/presence", `{"users":["alice"]}`},
	}
	for _, r := range reads {
		for _, query := range []string{"", "?linearizable=false", "?linearizable=true"} {
			core.sent = nil
			if w := do(a, request(r.method, r.path+query, r.body)); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "unknown") {
				t.Fatalf("%s%s: %d %s", r.path, query, w.Code, w.Body)
			}
			up := core.sent[0]
			if got := up.GetAsk().GetLinearizable() || up.GetQuery().GetLinearizable(); got != strings.Contains(query, "true") {
				t.Errorf("%s%s: %v", r.path, query, up)
			}
		}
	}
	shard := link.ShardOf("default", link.KindUser, "alice")
	for name, broken := range map[string]func(){
		"settling":    func() { core.settle[shard] = true; delete(core.users, presence.Key{App: "default", User: "alice"}) },
		"unreachable": func() { core.down[shard] = errors.New("no link") },
	} {
		broken()
		for _, r := range reads[:3] {
			w := do(a, request(r.method, r.path+"?linearizable=true", r.body))
			wantError(t, w, http.StatusServiceUnavailable, wire.CodeNotReady)
		}
		w := do(a, request("POST", "/v1/presence?linearizable=true", `{"users":["alice"]}`))
		if !strings.Contains(w.Body.String(), `"state":"unknown","error":{"code":124`) {
			t.Errorf("%s: %s", name, w.Body)
		}
		if w = do(a, request("GET", "/v1/users/alice", "")); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "unknown") {
			t.Errorf("%s: default: %s", name, w.Body)
		}
	}
	wantError(t, do(a, request("GET", "/v1/users/alice?linearizable=perhaps", "")), http.StatusBadRequest, wire.CodeBadRequest)
}

func TestHealthAndMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var why []string
	a, err := New(Config{Caller: nobody, Log: quiet(), Gatherer: reg, Registerer: reg, Ready: func() []string { return why }})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string, status int, want string) {
		t.Helper()
		w := do(a, httptest.NewRequest("GET", path, nil))
		if w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s; want %d, …%s…", path, w.Code, w.Body, status, want)
		}
	}
	get("/healthz", 200, `"ok"`)
	get("/readyz", 200, `"ready"`)
	why = []string{"shard 3 is settling"}
	get("/readyz", 503, "shard 3 is settling")
	get("/healthz", 200, `"ok"`)
	get("/v1/counts", 401, "UNAUTHORIZED") // no key is configured: nobody gets in
	get("/x/y/z", 404, "METHOD_NOT_FOUND")
	get("/metrics", 200, `muster_api_requests_total{route="GET /v1/counts",status="401"} 1`)
	get("/metrics", 200, `muster_api_requests_total{route="none",status="404"} 1`)
	get("/metrics", 200, `muster_api_requests_total{route="GET /readyz",status="503"} 1`)
}
