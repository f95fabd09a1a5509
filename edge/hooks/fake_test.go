package hooks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
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

// rest lets virtual time pass, and all that happens in it.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
