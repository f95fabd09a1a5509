package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"muster/actors/link"
	"muster/clients/wire"
)

// pages reads the whole list and returns the ids in the order they came.
func pages(t *testing.T, a *API, prefix string, limit int) (ids []string, complete bool) {
	t.Helper()
	complete = true
	for cursor, n := "", 0; ; n++ {
		if n > 10_000 {
			t.Fatal("the list has no end")
		}
		q := url.Values{"prefix": {prefix}, "cursor": {cursor}, "limit": {fmt.Sprint(limit)}}
		w := do(a, request("GET", "/v1/online?"+q.Encode(), ""))
		var reply onlineReply
		if err := json.Unmarshal(w.Body.Bytes(), &reply); w.Code != 200 || err != nil {
			t.Fatalf("%d %s %v", w.Code, w.Body, err)
		}
		if len(reply.Presences) > limit || reply.Cursor != "" && len(reply.Presences) < limit {
			t.Fatalf("a page of %d with limit %d, cursor %q", len(reply.Presences), limit, reply.Cursor)
		}
		for _, p := range reply.Presences {
			ids = append(ids, p.User)
		}
		complete = complete && reply.Complete
		if cursor = reply.Cursor; cursor == "" {
			return ids, complete
		}
	}
}

const idAlphabet = "ABz09._@+=-"

func randomID(r *rand.Rand) string {
	b := make([]byte, 1+r.IntN(6))
	for i := range b {
		b[i] = idAlphabet[r.IntN(len(idAlphabet))]
	}
	return string(b)
}

// Whatever the users, the limit and the prefix: every user once, in order.
func TestOnlinePagesProperty(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		core := newFake(t)
		a := newAPI(t, core)
		prefix := ""
		if r.IntN(2) == 0 {
			prefix = randomID(r)[:1]
		}
		var want []string
		hot := uint32(r.IntN(link.Shards)) // one shard may hold nearly all
		skewed := r.IntN(3) == 0
		tries := r.IntN(400)
		if skewed {
			tries *= link.Shards / 4
		}
		for range tries {
			id := randomID(r)
			if skewed && link.ShardOf("default", link.KindUser, id) != hot {
				continue
			}
			core.online("default", id)
			if strings.HasPrefix(id, prefix) {
				want = append(want, id)
			}
		}
		core.online("shop", "mallory")
		slices.Sort(want)
		want = slices.Compact(want)
		limit := 1 + r.IntN(40)
		if r.IntN(4) == 0 {
			limit = 1000
		}
		got, complete := pages(t, a, prefix, limit)
		if !slices.Equal(got, want) || !complete {
			t.Fatalf("seed %d, prefix %q, limit %d: %d users, want %d: %v", seed, prefix, limit, len(got), len(want), got)
		}
	}
}

// A page costs about what it holds, not 64 times that.
func TestOnlinePageCost(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	for i := range 20_000 {
		core.online("default", fmt.Sprint("user-", i))
	}
	do(a, request("GET", "/v1/online?limit=1000", ""))
	if core.asked > 4*1000 {
		t.Fatalf("a page of 1,000 asked the shards for %d users", core.asked)
	}
}

// Users of a shard that is away are missing and the reply says so; all others are there.
func TestOnlineIncomplete(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	var want []string
	for i := range 500 {
		id := fmt.Sprint("u", i)
		core.online("default", id)
		switch shard := link.ShardOf("default", link.KindUser, id); shard {
		case 3:
			core.down[shard] = errors.New("no link")
		case 9:
			core.settle[shard] = true
		default:
			want = append(want, id)
		}
	}
	slices.Sort(want)
	got, complete := pages(t, a, "", 37)
	if !slices.Equal(got, want) || complete || len(want) == 500 {
		t.Fatalf("%d users, complete %v, want %d and incomplete", len(got), complete, len(want))
	}
}

// A shard that breaks its promise of order cannot hold a page for ever.
func TestOnlineAgainstAnEndlessShard(t *testing.T) {
	m := merge{ask: func(_ uint32, _ string, limit int) ([]Presence, bool) {
		return slices.Repeat([]Presence{{User: "same"}}, limit), true
	}}
	users, more := m.page("", 1000)
	if len(users) > 1000 || more && len(users) < 1000 {
		t.Fatalf("%d users, more %v", len(users), more)
	}
}

// A panic while many shards are asked stays in its request.
func TestPanicInBatch(t *testing.T) {
	core := newFake(t)
	a := newAPI(t, core)
	core.answer = &link.Down{Body: &link.Down_Views{Views: &link.Views{Rows: []*link.Row{nil}}}}
	wantError(t, do(a, request("POST", "/v1/presence", `{"users":["alice","bob","carol"]}`)), 500, wire.CodeInternal)
}

// No body may crash a handler, and every refusal is a whole error.
func FuzzBodies(f *testing.F) {
	paths := []string{
		"/v1/presence", "/v1/users/alice/status", "/v1/users/alice/claims", "/v1/users/alice/disconnect",
		"/v1/users/alice/revoke", "/v1/users/alice/audience", "/v1/users/alice/contacts", "/v1/users/alice/blocks",
		"/v1/publish", "/v1/contacts/import", "/v1/events/replay",
	}
	for i, body := range []string{
		`{"users":["alice","\u0000"]}`, `{"state":"dnd","text":"x","ttl_ms":10000}`, `{"id":"c","activity":{"a":[1]},"priority":1}`,
		`{"device_id":"d"}`, `{"jti":"x","until":1900000000}`, `{"state":{"rule":"only","users":["bob"]},"grant":[{"to":"b","fields":["state"],"ttl_ms":1}]}`,
		`{"contacts":[{"user":"bob","subscription":"to"}]}`, `{"remove":["bob"]}`,
		`{"users":["bob"],"client_id":"01K3STVJGG8ZPX7M4S2QWB6R9T","body":[{}]}`, `{"rows":[{"user":"a","contact":"b","subscription":"both"}]}`, `{"cursor":"Ag"}`,
	} {
		f.Add(uint8(i), body)
	}
	core := newFake(f)
	a := newAPI(f, core)
	f.Fuzz(func(t *testing.T, path uint8, body string) {
		core.sent = nil
		w := do(a, request("POST", paths[int(path)%len(paths)], body))
		if w.Code == 200 {
			if !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%q", w.Body)
			}
			return
		}
		if len(core.sent) > 0 {
			t.Fatalf("refused with %d after %v was sent", w.Code, core.sent)
		}
		var e Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		wantError(t, w, w.Code, wire.Code(e.Code))
		if w.Code >= 500 && w.Code != 501 {
			t.Fatalf("%d for %q", w.Code, body)
		}
	})
}
