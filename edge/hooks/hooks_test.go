package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"muster/actors/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	newSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	oldSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
)

// store is a Source in memory.
type store struct {
	mu      sync.Mutex
	events  map[uint32][]*link.Event
	first   map[uint32]uint64
	cursor  map[uint32]uint64
	letters []*link.Event
	fail    error // of all methods
	moves   int   // of cursors
}

func newStore() *store {
	return &store{events: map[uint32][]*link.Event{}, first: map[uint32]uint64{}, cursor: map[uint32]uint64{}}
}

// happen adds n events of a shard.
func (s *store) happen(shard uint32, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		seq := uint64(len(s.events[shard]) + 1)
		s.events[shard] = append(s.events[shard], &link.Event{
			Seq: seq, Generation: 1, App: "default", User: fmt.Sprint("u", seq%3), Type: "user.state", At: time.Now().UnixMilli(), Json: `{"state":"dnd"}`,
		})
	}
}

func (s *store) ReadEvents(shard uint32, after uint64, limit int) (list []*link.Event, first uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, 0, s.fail
	}
	first = max(s.first[shard], 1)
	for _, e := range s.events[shard] {
		if e.Seq > after && e.Seq >= first && len(list) < limit {
			list = append(list, e)
		}
	}
	return list, first, nil
}

func (s *store) HookCursor(shard uint32) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor[shard], s.fail
}

func (s *store) SetHookCursor(shard uint32, seq uint64, dead []*link.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.cursor[shard] = seq
	s.letters = append(s.letters, dead...)
	s.moves++
	return nil
}

func (s *store) at(shard uint32) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursor[shard]
}

func (s *store) dead() []*link.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.letters)
}

func (s *store) broken(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// receiver is the application. It notes what it takes.
type receiver struct {
	mu     sync.Mutex
	answer func(r *http.Request, b *batch) int // nil: 200
	header http.Header
	taken  []batch
	when   []time.Time
	ids    []string // of all requests
	bodies [][]byte
}

func (r *receiver) RoundTrip(q *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return nil, err
	}
	var b batch
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, err
	}
	r.mu.Lock()
	f := r.answer
	r.ids = append(r.ids, q.Header.Get("webhook-id"))
	r.bodies = append(r.bodies, body)
	r.mu.Unlock()
	status := 200
	if f != nil {
		status = f(q, &b)
	}
	if err := q.Context().Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if status == 200 {
		r.taken = append(r.taken, b)
		r.when = append(r.when, time.Now())
	}
	return &http.Response{StatusCode: status, Header: r.header, Body: io.NopCloser(strings.NewReader("{}"))}, nil
}

func (r *receiver) set(answer func(*http.Request, *batch) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// all is a copy of what it has noted.
func (r *receiver) all() (c struct {
	taken  []batch
	when   []time.Time
	ids    []string
	bodies [][]byte
}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.taken, c.when, c.ids, c.bodies = slices.Clone(r.taken), slices.Clone(r.when), slices.Clone(r.ids), slices.Clone(r.bodies)
	return c
}

// seqs are those of a shard that were taken, in the order in which they were.
func (r *receiver) seqs(shard uint32) (list []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.taken {
		for _, e := range b.Events {
			if b.Shard == shard {
				list = append(list, e.Seq)
			}
		}
	}
	return list
}

func upTo(n uint64) (list []uint64) {
	for i := uint64(1); i <= n; i++ {
		list = append(list, i)
	}
	return list
}

// inBubble runs a story with a dispatcher whose requests go to r, in virtual time.
func inBubble(t *testing.T, story func(d *Dispatcher, s *store, r *receiver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, r := newStore(), &receiver{}
		d, err := New(Config{URL: "https://app.example/hook", Secrets: []string{newSecret}, Source: s})
		if err != nil {
			t.Fatal(err)
		}
		d.sender.client.Transport = r
		t.Cleanup(d.Close)
		story(d, s, r)
	})
}

// open begins a shard and lets it come to rest.
func open(d *Dispatcher, shard uint32) {
	d.Opened(shard, 1, 1, 0)
	synctest.Wait()
}

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

// A batch that is refused goes again, with the same id and body, with pauses up to 20 s; nothing overtakes it; and what is
// not known to be taken is sent again.
func TestTriedAgain(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		r.set(func(*http.Request, *batch) int { return 500 })
		s.happen(1, 3)
		s.happen(2, 3)
		open(d, 1)
		began := time.Now()
		rest(10 * time.Minute)
		r.set(nil)
		open(d, 2)
		if !slices.Equal(r.seqs(2), upTo(3)) {
			t.Fatal("one shard's refusal stops another")
		}
		if n := len(r.all().ids); n < 45 || n > 120 || s.at(1) != 0 {
			t.Fatalf("%d tries in 10 min, cursor %d", n, s.at(1))
		}
		all := r.all()
		for i, id := range all.ids[:len(all.ids)-1] {
			if id != all.ids[0] || !bytes.Equal(all.bodies[i], all.bodies[0]) {
				t.Fatalf("%s became %s", all.ids[0], id)
			}
		}
		s.happen(1, 2)
		rest(21 * time.Second)
		if got := r.seqs(1); !slices.Equal(got, upTo(5)) {
			t.Fatalf("%v after %v", got, time.Since(began))
		}
		// Taken, but the cursor cannot be moved: once more.
		s.happen(1, 1)
		r.set(func(*http.Request, *batch) int { s.broken(errors.New("disk")); return 200 })
		d.Notify(1)
		synctest.Wait()
		r.set(nil)
		s.broken(nil)
		rest(time.Minute)
		if got := r.seqs(1); !slices.Equal(got, append(upTo(5), 6, 6)) {
			t.Fatalf("%v", got)
		}
	})
}

// Retry-After is obeyed, as seconds and as a date.
func TestRetryAfter(t *testing.T) {
	for _, h := range []func() string{
		func() string { return "300" },
		func() string { return time.Now().Add(300 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
			r.mu.Lock()
			r.header = http.Header{"Retry-After": {h()}}
			r.mu.Unlock()
			r.set(func(*http.Request, *batch) int { return 429 })
			s.happen(1, 1)
			open(d, 1)
			r.set(nil)
			rest(299 * time.Second)
			if len(r.all().ids) != 1 {
				t.Fatalf("%d requests", len(r.all().ids))
			}
			rest(2 * time.Second)
			if s.at(1) != 1 {
				t.Fatal("not sent again")
			}
		})
	}
	for h, want := range map[string]time.Duration{"": 0, "x": 0, "-1": 0, "0": 0, "7": 7 * time.Second, "99999999999": 0, "Mon, 01 Jan 2001 00:00:00 GMT": 0} {
		if got := wanted(h, time.Now()); got != want {
			t.Errorf("%q: %v, want %v", h, got, want)
		}
	}
}

// What is refused for a day becomes dead letters, in the write that goes on.
func TestDeadLetters(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		poison := func(_ *http.Request, b *batch) int {
			if b.Events[0].Seq <= 3 {
				return 400
			}
			return 200
		}
		r.set(poison)
		s.happen(1, 3)
		open(d, 1)
		rest(23 * time.Hour)
		s.happen(1, 3)
		rest(59 * time.Minute)
		if len(s.dead()) != 0 || s.at(1) != 0 {
			t.Fatalf("given up early: %d letters", len(s.dead()))
		}
		rest(2 * time.Minute)
		if len(s.dead()) != 3 || s.dead()[0].Seq != 1 || s.at(1) != 6 || !slices.Equal(r.seqs(1), []uint64{4, 5, 6}) {
			t.Fatalf("letters %v, cursor %d, taken %v", s.dead(), s.at(1), r.seqs(1))
		}
	})
	// What is old when it is first sent, as after a long stop, has its minute.
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		r.set(func(*http.Request, *batch) int { return 503 })
		s.happen(1, 1)
		s.happen(2, 1)
		rest(48 * time.Hour)
		open(d, 1)
		open(d, 2)
		rest(50 * time.Second)
		if len(s.dead()) != 0 {
			t.Fatal("given up at once")
		}
		rest(40 * time.Second)
		if len(s.dead()) != 2 {
			t.Fatalf("%d letters", len(s.dead()))
		}
	})
}

// Leadership moves: the old worker's request is given up, and the new one begins when it has ended, from the cursor.
func TestLeadership(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		var here, most atomic.Int32
		r.set(func(q *http.Request, _ *batch) int {
			if n := here.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer here.Add(-1)
			select {
			case <-time.After(3 * time.Second):
			case <-q.Context().Done():
			}
			return 200
		})
		s.happen(1, 1)
		d.Opened(1, 1, 1, 0)
		rest(time.Second)
		d.Closed(1, 1)
		d.Opened(1, 2, 1, 0)
		d.Opened(1, 2, 1, 0) // once
		d.Opened(1, 1, 1, 0) // late
		d.Closed(1, 1)       // late
		rest(2 * time.Second)
		if s.at(1) != 0 || len(r.all().taken) != 0 {
			t.Fatal("a closed shard's request counted")
		}
		rest(2 * time.Second)
		if s.at(1) != 1 || len(r.all().taken) != 1 || len(r.all().ids) != 2 || most.Load() != 1 {
			t.Fatalf("cursor %d, taken %d of %d, %d at once", s.at(1), len(r.all().taken), len(r.all().ids), most.Load())
		}
		d.Closed(1, 2)
		synctest.Wait()
		s.happen(1, 1)
		d.Notify(1)
		rest(time.Minute)
		if len(r.all().ids) != 2 || d.Replay(context.Background(), 1, 0) != ErrNotHere {
			t.Fatal("a closed shard goes on")
		}
		s.broken(errors.New("not led")) // not yet, the core says
		d.Opened(1, 3, 1, 0)
		rest(time.Minute)
		s.broken(nil)
		rest(time.Minute)
		if s.at(1) != 2 {
			t.Fatal("never began")
		}
	})
}

// A worker goes back when it is told to, at rest or while it is refused, and never on.
func TestReplay(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		s.happen(1, 5)
		open(d, 1)
		rest(time.Second)
		back := func(seq uint64) {
			t.Helper()
			if err := d.Replay(context.Background(), 1, seq); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			rest(time.Second)
		}
		back(3)
		back(9)
		if got := r.seqs(1); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 4, 5}) || s.at(1) != 5 {
			t.Fatalf("%v, cursor %d", got, s.at(1))
		}
		r.set(func(*http.Request, *batch) int { return 500 })
		s.happen(1, 1)
		d.Notify(1)
		rest(time.Minute)
		if err := d.Replay(context.Background(), 1, 4); err != nil || s.at(1) != 4 {
			t.Fatalf("%v, cursor %d", err, s.at(1))
		}
		r.set(nil)
		rest(time.Minute)
		if got := r.seqs(1); !slices.Equal(got[7:], []uint64{5, 6}) {
			t.Fatalf("%v", got)
		}
		if err := d.Replay(context.Background(), 9, 0); err != ErrNotHere {
			t.Fatal(err)
		}
		r.set(func(q *http.Request, _ *batch) int { <-q.Context().Done(); return 200 })
		s.happen(1, 1)
		d.Notify(1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := d.Replay(ctx, 1, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// A receiver that does not answer has 10 s; not more than so many requests are on the way; what was dropped
// before it was sent is said.
func TestBoundsAndGaps(t *testing.T) {
	inBubble(t, func(d *Dispatcher, s *store, r *receiver) {
		var here, most atomic.Int32
		r.set(func(q *http.Request, _ *batch) int {
			if n := here.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer here.Add(-1)
			<-q.Context().Done()
			return 200
		})
		for shard := range uint32(link.Shards) {
			s.happen(shard, 1)
			d.Opened(shard, 1, 1, 0)
		}
		rest(9 * time.Second)
		if n := len(r.all().ids); n != 8 || most.Load() != 8 {
			t.Fatalf("%d requests, %d at once", n, most.Load())
		}
		rest(2 * time.Second)
		if n := len(r.all().ids); n != 16 {
			t.Fatalf("%d requests after a time-out", n)
		}
		if lag := d.lag(); lag < 10 || lag > 12 {
			t.Fatalf("lag %v", lag)
		}
		r.set(nil)
		rest(2 * time.Minute)
		if d.lag() != 0 || len(r.all().taken) != link.Shards {
			t.Fatalf("lag %v, %d taken", d.lag(), len(r.all().taken))
		}
		s.mu.Lock()
		s.first[1] = 4
		s.mu.Unlock()
		s.happen(1, 4)
		d.Notify(1)
		rest(time.Second)
		b := r.all().taken[len(r.all().taken)-1]
		if b.Missed == nil || *b.Missed != (gap{2, 3}) || len(b.Events) != 2 || b.Events[0].Seq != 4 {
			t.Fatalf("%+v", b)
		}
		s.happen(1, 1)
		d.Notify(1)
		rest(time.Second)
		if b := r.all().taken[len(r.all().taken)-1]; b.Missed != nil {
			t.Fatal("said twice")
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

// rest lets virtual time pass, and all that happens in it.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
