package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"muster/actors/link"
	"muster/clients/wire"
)

// read asks for events, or letters, and returns what was answered.
func read(t *testing.T, a *API, path string) eventsReply {
	t.Helper()
	w := do(a, request("GET", path, ""))
	var r eventsReply
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != 200 {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return r
}

func users(list []Event) (s string) {
	for _, e := range list {
		s += e.User + " "
	}
	return strings.TrimSpace(s)
}

// A reader that goes on from cursor to cursor gets every event of its app once, those of a user in order,
// whatever the size of a page.
func TestEventsByPages(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	want := map[string][]string{}
	for i := range 100 {
		user := fmt.Sprint("u", i*7%23)
		core.happen("default", user, []string{"user.online", "user.offline"}[i%2], int64(i/3), fmt.Sprintf(`{"n":%d}`, i))
		core.happen("shop", user, "user.online", int64(i), `{}`)
		want[user] = append(want[user], fmt.Sprintf(`{"n":%d}`, i))
	}
	for _, limit := range []int{3, 40, 1000} {
		got := map[string][]string{}
		seen := map[string]bool{}
		cursor, n := "", 0
		for more := true; more; {
			r := read(t, a, fmt.Sprintf("/v1/events?limit=%d&cursor=%s", limit, cursor))
			if len(r.Events) > limit || !r.Complete || r.Missed || r.More && len(r.Events) == 0 {
				t.Fatalf("limit %d: %d events, complete %v, missed %v", limit, len(r.Events), r.Complete, r.Missed)
			}
			for _, e := range r.Events {
				if seen[e.EventID] {
					t.Fatalf("limit %d: %s twice", limit, e.EventID)
				}
				seen[e.EventID] = true
				got[e.User] = append(got[e.User], string(e.Data))
				n++
			}
			cursor, more = r.Cursor, r.More
		}
		if n != 100 {
			t.Fatalf("limit %d: %d events", limit, n)
		}
		for user, list := range want {
			if !slices.Equal(got[user], list) {
				t.Fatalf("limit %d, %s: %v, want %v", limit, user, got[user], list)
			}
		}
		if r := read(t, a, "/v1/events?cursor="+cursor); len(r.Events) != 0 || r.Cursor != cursor {
			t.Fatalf("after all: %v", r)
		}
	}
}

func TestEventsNowAndTypes(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	for i := range 400 { // more than a page may skip at once
		core.happen("default", "alice", "user.state", int64(i), `{}`)
	}
	now := read(t, a, "/v1/events?cursor=now").Cursor
	core.happen("default", "alice", "user.online", 500, `{"a":1}`)
	core.happen("default", "bob", "outbox.expired", 400, ``)
	core.happen("default", "alice", "user.offline", 501, ``)
	r := read(t, a, "/v1/events?cursor="+now)
	if users(r.Events) != "bob alice alice" {
		t.Fatalf("now: %v", r)
	}
	e := r.Events[1]
	shard := link.ShardOf("default", link.KindUser, "alice")
	if e.EventID != fmt.Sprintf("%d-0-401", shard) || e.Type != "user.online" || e.At != 500 || e.Seq != 401 || string(e.Data) != `{"a":1}` {
		t.Fatalf("%+v", e)
	}
	for _, q := range []string{"types=user.offline,outbox.expired", "types=user.offline,x&limit=2"} {
		cursor, got := "", ""
		for more := true; more; {
			r := read(t, a, "/v1/events?"+q+"&cursor="+cursor)
			got += users(r.Events) + " "
			cursor, more = r.Cursor, r.More
		}
		if got = strings.Join(strings.Fields(got), " "); got != "bob alice" && got != "alice" {
			t.Fatalf("%s: %s", q, got)
		}
	}
}

// What was dropped before it was read, and history that was lost, is said once; shards that cannot answer are
// said, and lose nothing.
func TestEventsMissed(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	s := core.stream("alice")
	for i := range 5 {
		core.happen("default", "alice", "user.state", int64(i), `{}`)
	}
	s.trim(2)
	r := read(t, a, "/v1/events?limit=1")
	if r.Missed || r.Events[0].Seq != 3 {
		t.Fatalf("from the oldest kept: %+v", r)
	}
	cursor := r.Cursor
	s.trim(4)
	r = read(t, a, "/v1/events?cursor="+cursor)
	if !r.Missed || len(r.Events) != 1 || r.Events[0].Seq != 5 {
		t.Fatalf("dropped before it was read: %+v", r)
	}
	if r = read(t, a, "/v1/events?cursor="+r.Cursor); r.Missed || len(r.Events) != 0 {
		t.Fatalf("said twice: %+v", r)
	}
	cursor = r.Cursor
	s.trim(5)
	if r = read(t, a, "/v1/events?cursor="+cursor); r.Missed {
		t.Fatalf("what was read may go: %+v", r)
	}
	core.happen("default", "alice", "user.state", 9, `{}`)
	s.trim(6)
	if r = read(t, a, "/v1/events?cursor="+cursor); !r.Missed || len(r.Events) != 0 {
		t.Fatalf("all dropped: %+v", r)
	}
	if r = read(t, a, "/v1/events?cursor="+r.Cursor); r.Missed {
		t.Fatalf("said twice: %+v", r)
	}
	cursor = r.Cursor

	*s = stream{generation: 1} // restored from a backup, say
	core.happen("default", "alice", "user.state", 10, `{}`)
	r = read(t, a, "/v1/events?cursor="+cursor)
	if !r.Missed || len(r.Events) != 1 || !strings.HasSuffix(r.Events[0].EventID, "-1-1") {
		t.Fatalf("lost history: %+v", r)
	}
	if r = read(t, a, "/v1/events?cursor="+r.Cursor); r.Missed || len(r.Events) != 0 {
		t.Fatalf("said twice: %+v", r)
	}

	*s = stream{generation: 2} // again, and by now it is further than the reader was
	for range 3 {
		core.happen("default", "alice", "user.state", 10, `{}`)
	}
	r = read(t, a, "/v1/events?cursor="+r.Cursor)
	if !r.Missed || len(r.Events) != 3 || !strings.HasSuffix(r.Events[0].EventID, "-2-1") {
		t.Fatalf("lost history, but more of it since: %+v", r)
	}

	core.happen("default", "alice", "user.state", 11, `{}`)
	core.down[link.ShardOf("default", link.KindUser, "alice")] = errors.New("no link")
	r = read(t, a, "/v1/events?cursor="+r.Cursor)
	if r.Complete || len(r.Events) != 0 {
		t.Fatalf("unreachable: %+v", r)
	}
	clear(core.down)
	if r = read(t, a, "/v1/events?cursor="+r.Cursor); !r.Complete || len(r.Events) != 1 || r.Missed {
		t.Fatalf("reachable again: %+v", r)
	}
	core.down[3] = errors.New("no link")
	wantError(t, do(a, request("GET", "/v1/events?cursor=now", "")), 503, wire.CodeNotReady)
}

type hooked struct {
	mu   sync.Mutex
	back map[uint32]uint64
	fail uint32
}

func (h *hooked) Replay(_ context.Context, shard uint32, seq uint64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if shard == h.fail {
		return errors.New("led elsewhere")
	}
	h.back[shard] = seq
	return nil
}

// Who reads events that nobody keeps is told so, instead of waiting for ever.
func TestEventsOff(t *testing.T) {
	a := newAPI(t, newFake(t))
	a.cfg.EventsOff = true
	for _, path := range []string{"/v1/events", "/v1/events?cursor=$", "/v1/events/dead"} {
		wantError(t, do(a, request("GET", path, "")), 501, wire.CodeNotAvailable)
	}
	stream := request("GET", "/v1/events", "")
	stream.Header.Set("Accept", "text/event-stream")
	wantError(t, do(a, stream), 501, wire.CodeNotAvailable)
}

func TestDeadAndReplay(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	wantError(t, do(a, request("POST", "/v1/events/replay", `{"cursor":"x"}`)), 501, wire.CodeNotAvailable)
	hooks := &hooked{back: map[uint32]uint64{}, fail: link.Shards}
	a.cfg.Hooks = hooks
	for i := range 9 {
		core.happen("default", fmt.Sprint("u", i%3), "user.state", int64(i), `{}`)
	}
	s := core.stream("u1")
	s.letters = s.events[1:]
	r := read(t, a, "/v1/events/dead?limit=1")
	if len(r.Events) != 1 || r.Events[0].Seq != 2 || !r.More {
		t.Fatalf("%+v", r)
	}
	if r = read(t, a, "/v1/events/dead?cursor="+r.Cursor); len(r.Events) != 1 || r.Events[0].Seq != 3 || r.More {
		t.Fatalf("%+v", r)
	}
	var dead deadReply
	if err := json.Unmarshal(do(a, request("GET", "/v1/events/dead", "")).Body.Bytes(), &dead); err != nil {
		t.Fatal(err)
	}
	shard := link.ShardOf("default", link.KindUser, "u1")
	w := do(a, request("POST", "/v1/events/replay", `{"cursor":"`+dead.Replay+`"}`))
	if w.Code != 200 || len(hooks.back) != 1 || hooks.back[shard] != 1 || !strings.Contains(w.Body.String(), `"shards":1,"complete":true`) {
		t.Fatalf("%d %s %v", w.Code, w.Body, hooks.back)
	}
	// From the beginning of what is kept, but for a shard that is led elsewhere.
	hooks.fail = shard
	clear(hooks.back)
	w = do(a, request("POST", "/v1/events/replay", `{"cursor":"`+read(t, a, "/v1/events").Cursor+`"}`))
	if w.Code != 200 || len(hooks.back) != link.Shards-1 || !strings.Contains(w.Body.String(), `"complete":false`) {
		t.Fatalf("%d %s %v", w.Code, w.Body, hooks.back)
	}
	bound := request("POST", "/v1/events/replay", `{"cursor":"`+dead.Replay+`"}`)
	bound.Header.Set("Authorization", "Bearer "+shopKey)
	wantError(t, do(a, bound), 403, wire.CodePermissionDenied)
	wantError(t, do(a, request("POST", "/v1/events/replay", `{"cursor":"x"}`)), 400, wire.CodeBadRequest)
}

func TestBadCursors(t *testing.T) {
	a := newAPI(t, newFake(t))
	good := (&places{}).String()
	for _, c := range []string{"x", "%20", "AA", "Ag", good + "AA", good[:len(good)-2], "MTpib2I", strings.Repeat("A", 1801)} {
		for _, path := range []string{"/v1/events", "/v1/events/dead"} {
			wantError(t, do(a, request("GET", path+"?cursor="+c, "")), 400, wire.CodeBadRequest)
		}
	}
	var far places
	for i := range far {
		far[i] = place{math.MaxUint64, math.MaxUint64}
	}
	if n := len(far.String()); n > 1800 || n > maxCursor {
		t.Fatalf("a cursor of %d characters", n)
	}
}

func FuzzPlaces(f *testing.F) {
	f.Add((&places{3: {1, 2}, 9: {1, math.MaxUint64}}).String())
	f.Add("Ag")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePlaces(s)
		if err != nil {
			return
		}
		if again, err := parsePlaces(p.String()); err != nil || again != p {
			t.Fatalf("%q: %v %v", s, again, err)
		}
	})
}

// A stream brings each event as it happens, goes on where the reader was, and ends with the API.
func TestStream(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	srv := httptest.NewServer(a)
	defer srv.Close()
	defer a.Close() // or the server waits for the streams
	open := func(query, last string) *bufio.Scanner {
		r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v1/events"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+freeKey)
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Last-Event-ID", last)
		resp, err := srv.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		return bufio.NewScanner(resp.Body)
	}
	next := func(s *bufio.Scanner) (id, typ, data string) {
		for s.Scan() {
			switch name, value, _ := strings.Cut(s.Text(), ": "); {
			case name == "id":
				id = value
			case name == "event":
				typ = value
			case name == "data":
				data = value
			case s.Text() == "" && typ != "":
				return id, typ, data
			}
		}
		t.Fatalf("ended: %v", s.Err())
		return
	}
	core.happen("default", "alice", "user.online", 1, `{}`)
	s := open("?cursor=now", "")
	s.Scan() // the stream stands
	core.happen("shop", "alice", "user.online", 2, `{}`)
	core.happen("default", "alice", "user.offline", 3, `{"reason":"explicit"}`)
	id, typ, data := next(s)
	if typ != "user.offline" || !strings.Contains(data, `"data":{"reason":"explicit"}`) || id == "" {
		t.Fatalf("%s %s %s", id, typ, data)
	}
	core.happen("default", "bob", "user.online", 4, `{}`)
	if _, _, data := next(s); !strings.Contains(data, `"user":"bob"`) {
		t.Fatalf("the next one: %s", data)
	}
	if _, _, data := next(open("", id)); !strings.Contains(data, `"user":"bob"`) {
		t.Fatalf("from Last-Event-ID: %s", data)
	}
	if _, typ, _ := next(open("?types=user.offline", "")); typ != "user.offline" {
		t.Fatalf("types: %s", typ)
	}
	alice := core.stream("alice")
	core.mu.Lock()
	if alice.last++; link.ShardOf("default", link.KindUser, "bob") != link.ShardOf("default", link.KindUser, "alice") {
		alice.trim(alice.last)
	}
	core.mu.Unlock()
	if _, typ, data := next(open("", id)); typ != "missed" || data != "{}" {
		t.Fatalf("missed: %s %s", typ, data)
	}
	r, _ := http.NewRequest("GET", srv.URL+"/v1/events?cursor=x", nil)
	r.Header.Set("Authorization", "Bearer "+freeKey)
	r.Header.Set("Accept", "text/event-stream")
	if resp, err := srv.Client().Do(r); err != nil || resp.StatusCode != 400 {
		t.Fatalf("%v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	a.Close()
	a.Close()
	for s.Scan() {
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	srv.Client().CloseIdleConnections()
}

// A stream without news says that it lives; one that is not read is cut off; and there are not too many.
func TestStreamLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t, newFake(t))
		ctx, cancel := context.WithCancel(t.Context())
		r := request("GET", "/v1/events?cursor=now", "").WithContext(ctx)
		r.Header.Set("Accept", "text/event-stream")
		w := httptest.NewRecorder()
		ended := make(chan struct{})
		go func() { defer close(ended); a.ServeHTTP(w, r) }()
		time.Sleep(time.Minute)
		cancel()
		<-ended
		if n := strings.Count(w.Body.String(), ": \n\n"); n < 3 || n > 4 {
			t.Fatalf("%d signs of life in a minute", n)
		}
		a.streaming.Store(maxStreams)
		r = r.WithContext(t.Context())
		wantError(t, do(a, r), 503, wire.CodeBusy)
	})
}

// While a shard moves, a publish goes again, with the same id; a shard that stays away costs its users only.
func TestPublishAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core := newFake(t)
		tries := 0
		a := newAPI(t, callerFunc(func(ctx context.Context, up *link.Up) (*link.Down, error) {
			switch user := up.GetAct().GetUser(); {
			case user == "bob":
				if tries++; tries < 4 {
					return []*link.Down{1: nil, 2: {Body: &link.Down_Acted{Acted: &link.Acted{Code: link.Code_UNKNOWN_OUTCOME}}}, 3: {
						Body: &link.Down_Acted{Acted: &link.Acted{Code: link.Code_MOVING}}}}[tries], nil
				}
			case user == "carol":
				return nil, errors.New("no link")
			}
			return core.Call(ctx, up)
		}))
		began := time.Now()
		w := do(a, request("POST", "/v1/publish", `{"users":["alice","bob","carol"],"client_id":"0198f3c2-5a10-7d3e-9c41-6b1f0a2d4e55","body":1}`))
		var r publishReply
		if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Results[0].Offset != 44 || r.Results[1].Offset != 44 {
			t.Fatalf("%s", w.Body)
		}
		if e := r.Results[2].Error; e == nil || !e.Retryable || e.RetryAfterMs == 0 || !strings.Contains(e.Message, "same client_id") {
			t.Fatalf("%s", w.Body)
		}
		if took := time.Since(began); took < 4*time.Second || took > 10*time.Second {
			t.Fatalf("took %v", took)
		}
	})
}
