package hooks

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	newSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	oldSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// What a receiver sees: signed with each secret, so that one can replace another; the events, in order.
func TestRequest(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	var head http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got, _ = io.ReadAll(r.Body)
		head = r.Header.Clone()
		for _, secret := range []string{newSecret, oldSecret} {
			key, err := standardwebhooks.NewWebhook(secret)
			if err == nil {
				err = key.Verify(got, r.Header)
			}
			if err != nil {
				t.Errorf("%s: %v", secret, err)
			}
		}
		other, _ := standardwebhooks.NewWebhook("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		if other.Verify(got, r.Header) == nil {
			t.Error("verified with a foreign secret")
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	s := newStore()
	reg := prometheus.NewRegistry()
	d, err := New(Config{URL: srv.URL, Secrets: []string{newSecret, oldSecret}, Source: s, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	s.happen(12, 2)
	s.events[12][0].At, s.events[12][1].At = 1_800_000_000_000, 1_800_000_000_001
	d.Opened(12, 1, 1, 0)
	eventually(t, "taken", func() bool { return s.at(12) == 2 })
	mu.Lock()
	defer mu.Unlock()
	want := `{"events":[` +
		`{"event_id":"12-1-1","type":"user.state","app":"default","user":"u1","at":1800000000000,"seq":1,"data":{"state":"dnd"}},` +
		`{"event_id":"12-1-2","type":"user.state","app":"default","user":"u2","at":1800000000001,"seq":2,"data":{"state":"dnd"}}],"shard":12}`
	if string(got) != want || head.Get("webhook-id") != "12-1-1_2" || head.Get("Content-Type") != "application/json" {
		t.Errorf("%s %s\nwant\n%s", head, got, want)
	}
	for name, want := range map[string]float64{
		"muster_hooks_events_total delivered": 2, "muster_hooks_events_total dead": 0, "muster_hooks_requests_total 2xx": 1, "muster_hooks_failing": 0,
	} {
		if got, ok := gathered(t, reg)[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if _, err := New(Config{URL: srv.URL, Secrets: []string{newSecret}, Source: s, Registerer: reg}); err == nil {
		t.Error("two dispatchers count into one registry")
	}
}

// gathered are the counters and gauges, by name and label.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not %s in 10 s", what)
		}
		<-tick.C
	}
}

// The first event goes at once; what comes within 500 ms goes together, 100 at most; a full batch does not wait.
func TestBatches(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		open(d, 1)
		began := time.Now()
		step := func(n int) {
			s.happen(1, n)
			d.Notify(1)
			synctest.Wait()
		}
		step(1)
		step(1)
		rest(100 * time.Millisecond)
		step(2)
		rest(time.Second)
		step(250)
		rest(time.Second)
		var sizes []int
		var when []time.Duration
		for i, b := range r.all().taken {
			sizes = append(sizes, len(b.Events))
			when = append(when, r.all().when[i].Sub(began).Round(time.Millisecond))
		}
		if fmt.Sprint(sizes, when) != "[1 3 100 100 50] [0s 500ms 1.1s 1.1s 1.6s]" {
			t.Fatalf("%v at %v", sizes, when)
		}
		if got := r.seqs(1); !slices.Equal(got, upTo(254)) || s.at(1) != 254 {
			t.Fatalf("%v, cursor %d", got, s.at(1))
		}
		// A notice that was lost costs a while, no more.
		s.happen(1, 1)
		rest(6 * time.Second)
		if s.at(1) != 255 {
			t.Fatalf("cursor %d", s.at(1))
		}
	})
}

// A redirect is not followed: the signature is for one address.
func TestRedirect(t *testing.T) {
	hit := make(chan struct{}, 1)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hit <- struct{}{} }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	s, err := newSender(srv.URL, false, []string{newSecret}, 1, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer s.client.CloseIdleConnections()
	_, err = s.post(t.Context(), "id", []byte("{}"), nil, 0)
	if r := (*refused)(nil); !errors.As(err, &r) || r.status != 307 || len(hit) != 0 {
		t.Fatalf("%v, followed %v", err, len(hit) > 0)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		url    string
		insec  bool
		secret string
		ok     bool
	}{
		{"https://app.example/hook", false, newSecret, true},
		{"https://app.example/hook", false, strings.TrimPrefix(newSecret, "whsec_"), true},
		{"http://127.0.0.1:8080/", false, newSecret, true},
		{"http://localhost/x", false, newSecret, true},
		{"http://[::1]:80/x", false, newSecret, true},
		{"http://app.example/hook", true, newSecret, true},
		{"http://app.example/hook", false, newSecret, false},
		{"http://127.0.0.1.example/hook", false, newSecret, false},
		{"ftp://app.example/hook", true, newSecret, false},
		{"app.example/hook", false, newSecret, false},
		{"", false, newSecret, false},
		{"https://app.example/hook", false, "whsec_short", false},
		{"https://app.example/hook", false, "whsec_" + strings.Repeat("A", 28), false},
		{"https://app.example/hook", false, "", false},
	} {
		d, err := New(Config{URL: c.url, AllowHTTP: c.insec, Secrets: []string{c.secret}, Source: newStore()})
		if (err == nil) != c.ok {
			t.Errorf("%s %s: %v", c.url, c.secret, err)
		}
		if err != nil && len(c.secret) > 10 && strings.Contains(err.Error(), c.secret) {
			t.Errorf("%v tells the secret", err)
		}
		if d != nil {
			d.Close()
		}
	}
	if _, err := New(Config{URL: "https://a.example", Source: newStore()}); err == nil {
		t.Error("no secret")
	}
	if _, err := New(Config{URL: "https://a.example", Secrets: []string{newSecret}}); err == nil {
		t.Error("no source")
	}
}

func TestBackOff(t *testing.T) {
	for n, most := range map[int]time.Duration{-1: firstPause, 0: firstPause, 1: firstPause, 2: 2 * firstPause, 8: 128 * firstPause, 9: longPause, 1000: longPause} {
		top := time.Duration(0)
		for range 200 {
			b := backOff(n)
			if b < time.Millisecond || b > most {
				t.Fatalf("%d: %v", n, b)
			}
			top = max(top, b)
		}
		if top < most/2 {
			t.Errorf("%d: at most %v of %v", n, top, most)
		}
	}
}
