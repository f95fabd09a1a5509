package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// graph is an application that keeps contacts: those of "u" are "u-a" and "u-b".
type graph struct {
	t      *testing.T
	mu     sync.Mutex
	asked  []string // app and users of each request
	answer func(q *http.Request) (*http.Response, error)
}

func (g *graph) RoundTrip(q *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(q.Body)
	key, _ := standardwebhooks.NewWebhook(newSecret)
	if err := key.VerifyIgnoringTimestamp(body, q.Header); err != nil {
		g.t.Error(err)
	}
	var ask struct {
		App   string
		Users []string
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		g.t.Error(err)
	}
	g.mu.Lock()
	g.asked = append(g.asked, fmt.Sprintf("%s %d", ask.App, len(ask.Users)))
	f := g.answer
	g.mu.Unlock()
	if f != nil {
		return f(q)
	}
	reply := map[string]map[string][]string{"contacts": {}}
	for _, u := range ask.Users {
		if u != "lonely" {
			reply["contacts"][u] = []string{u + "-a", u + "-b"}
		}
	}
	b, _ := json.Marshal(reply)
	return says(200, string(b)), nil
}

func says(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func askIn(t *testing.T, story func(a *Audience, g *graph)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &graph{t: t}
		a, err := NewAudience(AudienceConfig{URL: "https://app.example/contacts", Secrets: []string{newSecret}})
		if err != nil {
			t.Fatal(err)
		}
		a.sender.client.Transport = g
		t.Cleanup(a.Close)
		story(a, g)
	})
}

// Questions that come together are asked together, 100 users at once, each app by itself, and each has its own answer.
func TestAudience(t *testing.T) {
	askIn(t, func(a *Audience, g *graph) {
		var mu sync.Mutex
		got := map[string]map[string][]string{}
		ask := func(name, app string, users ...string) {
			a.Ask(app, users, func(c map[string][]string, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil || got[name] != nil {
					t.Errorf("%s: %v, before %v", name, err, got[name])
				}
				got[name] = c
			})
		}
		many := make([]string, 250)
		for i := range many {
			many[i] = fmt.Sprint("m", i)
		}
		ask("two", "default", "u", "lonely")
		ask("same", "default", "u")
		ask("other app", "shop", "u")
		ask("none", "default")
		ask("many", "default", many...)
		rest(10 * time.Millisecond)
		slices.Sort(g.asked)
		if s := strings.Join(g.asked, ", "); s != "default 100, default 53, default 99, shop 1" { // u is in the first only once
			t.Errorf("asked %s", s)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 5 || len(got["none"]) != 0 || len(got["many"]) != 250 || len(got["same"]) != 1 {
			t.Fatalf("%d answers", len(got))
		}
		if c, known := got["two"]["lonely"]; !slices.Equal(got["two"]["u"], []string{"u-a", "u-b"}) || len(c) != 0 || !known {
			t.Errorf("%v", got["two"])
		}
		for _, u := range many {
			if !slices.Equal(got["many"][u], []string{u + "-a", u + "-b"}) {
				t.Fatalf("%s: %v", u, got["many"][u])
			}
		}
	})
}

// Whatever goes wrong, nobody is a contact, and who asked is told once, within 3 s.
func TestAudienceFails(t *testing.T) {
	for name, answer := range map[string]func(q *http.Request) (*http.Response, error){
		"refused":     func(*http.Request) (*http.Response, error) { return says(500, `{"contacts":{"u":["b"]}}`), nil },
		"redirected":  func(*http.Request) (*http.Response, error) { return says(302, `{"contacts":{"u":["b"]}}`), nil },
		"unreachable": func(*http.Request) (*http.Response, error) { return nil, errors.New("no route") },
		"no JSON":     func(*http.Request) (*http.Response, error) { return says(200, `contacts`), nil },
		"no contacts": func(*http.Request) (*http.Response, error) { return says(200, `{}`), nil },
		"wrong type":  func(*http.Request) (*http.Response, error) { return says(200, `{"contacts":{"u":"b"}}`), nil },
		"too long": func(*http.Request) (*http.Response, error) {
			return says(200, `{"contacts":{"u":["`+strings.Repeat("b", maxAnswer)+`"]}}`), nil
		},
		"silent": func(q *http.Request) (*http.Response, error) { <-q.Context().Done(); return nil, q.Context().Err() },
	} {
		askIn(t, func(a *Audience, g *graph) {
			g.answer = answer
			n := 0
			began := time.Now()
			a.Ask("default", []string{"u", "v"}, func(c map[string][]string, err error) {
				if n++; err == nil || c != nil {
					t.Errorf("%s: %v %v", name, c, err)
				}
			})
			rest(3100 * time.Millisecond)
			if n != 1 || time.Since(began) > 4*time.Second {
				t.Errorf("%s: told %d times", name, n)
			}
		})
	}
}

// Close gives up what is on the way and what waits; later questions fail at once.
func TestAudienceClose(t *testing.T) {
	askIn(t, func(a *Audience, g *graph) {
		g.answer = func(q *http.Request) (*http.Response, error) { <-q.Context().Done(); return nil, q.Context().Err() }
		var mu sync.Mutex
		failed := 0
		count := func(_ map[string][]string, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
			}
		}
		a.Ask("default", []string{"u"}, count)
		rest(time.Second)
		a.Ask("default", []string{"v"}, count)
		a.Close()
		a.Ask("default", []string{"w"}, count)
		if failed != 3 {
			t.Errorf("%d of 3 failed", failed)
		}
	})
	askIn(t, func(a *Audience, g *graph) {
		over := false
		a.Ask("default", make([]string, maxWaiting+1), func(_ map[string][]string, err error) { over = err != nil })
		if !over {
			t.Error("any number may wait")
		}
	})
}
