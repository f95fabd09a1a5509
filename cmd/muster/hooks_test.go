package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const hookSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"

// listener is an application's webhook.
type listener struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	forged int
}

func listenForEvents(t *testing.T) *listener {
	t.Helper()
	check, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{}
	l.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		defer l.mu.Unlock()
		if err := check.Verify(body, r.Header); err != nil {
			l.forged++
		}
		l.bodies = append(l.bodies, string(body))
	}))
	t.Cleanup(l.Close)
	return l
}

// told counts the bodies that hold all texts.
func (l *listener) told(texts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
bodies:
	for _, b := range l.bodies {
		for _, text := range texts {
			if !strings.Contains(b, text) {
				continue bodies
			}
		}
		n++
	}
	return n
}

// The webhook hears who comes and goes, signed, and after a restart only what is new.
func TestWebhook(t *testing.T) {
	app := listenForEvents(t)
	dir := t.TempDir()
	args := []string{"--data", dir, "--webhook", app.URL, "--webhook-secret", hookSecret, "--grace-gone", "0s"}
	s := boot(t, args...)
	ann := connect(t, s, "ann", "d1", "desktop")
	within(t, "user.online", func() bool { return app.told("user.online", `"ann"`) == 1 })
	ann.send(`{"id":3,"bye":{}}`)
	within(t, "user.offline", func() bool { return app.told("user.offline", `"ann"`) == 1 })
	s.close()

	s = boot(t, args...)
	connect(t, s, "bob", "d1", "desktop")
	within(t, "user.online after a restart", func() bool { return app.told("user.online", `"bob"`) == 1 })
	if n := app.told("user.online", `"ann"`); n != 1 {
		t.Errorf("ann's coming was told %d times", n)
	}
	if app.forged > 0 {
		t.Errorf("%d bodies with a wrong signature", app.forged)
	}
	if status, text := ask(t, s, devSecret, "/v1/events", ""); status != http.StatusOK || !strings.Contains(text, "user.online") {
		t.Errorf("/v1/events: %d %s", status, text)
	}
}
