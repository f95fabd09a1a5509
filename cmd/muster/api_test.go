package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ask calls the HTTP API; body "" is a GET.
func ask(t *testing.T, s *server, key, path, body string) (status int, answer string) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.apiListen.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// must calls the API, wants 200 and reads the answer.
func must[T any](t *testing.T, s *server, path, body string) (answer T) {
	t.Helper()
	status, text := ask(t, s, devSecret, path, body)
	if status != http.StatusOK {
		t.Fatalf("%s: %d %s", path, status, text)
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%s: %v in %s", path, err, text)
	}
	return answer
}

func TestAPIActsForUsers(t *testing.T) {
	s := boot(t)
	w := connect(t, s, "walt", "w", "web", `"watch":["ann"]`)
	ann := connect(t, s, "ann", "d1", "desktop")
	w.expect(`ann online {"desktop":"online"}`)

	type list struct{ Presences []seen }
	got := must[list](t, s, "/v1/presence", `{"users":["ann","nobody"]}`)
	if len(got.Presences) != 2 || got.Presences[0].State != "online" || got.Presences[1].State != "offline" {
		t.Errorf("presence: %+v", got)
	}
	online := must[list](t, s, "/v1/online", "")
	if len(online.Presences) != 2 || online.Presences[0].User != "ann" || online.Presences[1].User != "walt" {
		t.Errorf("online: %+v", online)
	}
	counts := must[struct{ Totals map[string]uint64 }](t, s, "/v1/counts", "")
	if counts.Totals["online"] != 2 {
		t.Errorf("counts: %+v", counts)
	}

	must[any](t, s, "/v1/users/ann/status", `{"state":"dnd","text":"in a call"}`)
	if v := w.next(); v.State != "dnd" || v.Text != "in a call" {
		t.Errorf("after status: %+v", v)
	}
	must[any](t, s, "/v1/users/ann/status", `{"state":"online"}`)
	if v := w.next(); v.State != "online" || v.Text != "" {
		t.Errorf("after the end of the status: %+v", v)
	}

	doc := must[map[string]any](t, s, "/v1/explain/ann?watcher=walt", "")
	if text := fmt.Sprint(doc); !strings.Contains(text, "d1") {
		t.Errorf("explain does not name the device: %s", text)
	}

	must[any](t, s, "/v1/users/ann/disconnect", `{"reason":"go home"}`)
	if code := ann.code(); code != 4505 {
		t.Errorf("close code %d after disconnect", code)
	}
	w.expect("ann offline kicked")

	must[any](t, s, "/v1/users/ann/revoke", fmt.Sprintf(`{"before":%d}`, time.Now().Unix()))
	d, _, err := dial(t, s.url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q,"device_id":"d1"}}`, tokenFor(t, "ann")))
	if code := d.code(); code != 4505 {
		t.Errorf("close code %d with a revoked token", code)
	}
}

func TestAPIWantsAKey(t *testing.T) {
	s := boot(t, "--pprof")
	for path, open := range map[string]bool{
		"/v1/counts": false, "/v1/users/ann": false, "/debug/pprof/heap": false,
		"/healthz": true, "/readyz": true, "/metrics": true, "/v1/openapi.json": true,
	} {
		for key, want := range map[string]bool{"": open, "wrong": open, devSecret: true} {
			status, _ := ask(t, s, key, path, "")
			if got := status == http.StatusOK; got != want {
				t.Errorf("%s with key %q: %d", path, key, status)
			}
		}
	}
}

func TestFrontListener(t *testing.T) {
	get := func(s *server, method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.listen.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(data)
	}
	dev := boot(t)
	if status, page := get(dev, "GET", "/", ""); status != 200 || !strings.Contains(page, "<html") {
		t.Errorf("demo page: %d %.100s", status, page)
	}
	status, body := get(dev, "POST", "/demo/token", `{"user":"ann"}`)
	var answer struct{ Token string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || answer.Token == "" {
		t.Errorf("demo token: %d %s", status, body)
	}
	strict := boot(t, "--dev=false", "--jwt-key", strings.Repeat("k", 32), "--api-key", strings.Repeat("a", 16))
	for _, path := range []string{"/", "/demo/token", "/v1/counts", "/metrics", "/debug/pprof/"} {
		if status, _ := get(strict, "GET", path, ""); status != http.StatusNotFound {
			t.Errorf("%s without --dev: %d", path, status)
		}
	}
	if status, _ := get(strict, "GET", "/readyz", ""); status != 200 {
		t.Errorf("readyz %d", status)
	}
	strict.draining.Store(true)
	if status, body := get(strict, "GET", "/readyz", ""); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readyz while draining: %d %s", status, body)
	}
}
