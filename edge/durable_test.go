package edge_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"muster/actors"
	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge"
	"muster/edge/api"
	"muster/edge/hooks"
)

// reader connects a device that reads the outbox.
func reader(w *world, user, device string, at *wire.OutboxPosition) (*client, *wire.ConnectReply) {
	w.t.Helper()
	c := w.dial()
	return c, c.connectAs(&wire.Connect{Token: user, DeviceId: device, Outbox: at})
}

// entries skips to the next push of the outbox.
func (c *client) outbox() *wire.OutboxPush {
	c.t.Helper()
	return c.push(func(p *wire.Push) bool { return p.Outbox != nil }).Outbox
}

// clientID is not uuid.NewV7's, which never goes back: the next bubble begins before this one's end.
func clientID(t *testing.T) string {
	t.Helper()
	id, err := uuid.NewRandom()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		id[i] = byte(time.Now().UnixMilli() >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	return id.String()
}

func (c *client) publish(to, id, body string) *wire.Reply {
	c.t.Helper()
	return c.reply(c.send(&wire.Command{Method: &wire.Command_Publish{Publish: &wire.Publish{User: to, ClientId: id, Body: body}}}))
}

func bodies(list ...[]*wire.OutboxEntry) (s string) {
	for _, l := range list {
		for _, e := range l {
			s += fmt.Sprintf("%d:%s ", e.Offset, e.Body)
		}
	}
	return strings.TrimSpace(s)
}

// An entry is stored once, comes to every device of the user in order, waits for one that is away, and is gone
// for one that has acked it; a lost link loses nothing.
func TestOutboxEndToEnd(t *testing.T) {
	for _, hubs := range []int{1, 4} {
		w := newWorld(t, func(c *edge.Config) { c.Hubs = hubs })
		sender := user(w, "s|caps=publish")
		phone, r := reader(w, "a", "phone", &wire.OutboxPosition{})
		if r.Outbox == nil || len(r.Outbox.Entries) != 0 {
			t.Fatalf("an outbox that has never had anything: %v", r.Outbox)
		}
		id := clientID(t)
		first := sender.publish("a", id, `"one"`)
		if first.GetPublish().GetAt() == 0 {
			t.Fatalf("%s", asJSON(first))
		}
		got := phone.outbox()
		if bodies(got.Entries) != `1:"one"` || got.Entries[0].From != "s" || got.Entries[0].ClientId != id || len(got.Epoch) != 16 {
			t.Fatalf("%v", got)
		}
		if again := sender.publish("a", id, `"one"`); again.GetPublish().GetAt() != first.GetPublish().GetAt() {
			t.Fatalf("the same id again: %s", asJSON(again))
		}
		if other := sender.publish("a", id, `"two"`); other.GetError().GetCode() != uint32(wire.CodeIDReused) {
			t.Fatalf("the same id, another body: %s", asJSON(other))
		}
		phone.reply(phone.send(&wire.Command{Method: &wire.Command_Ack{Ack: &wire.Ack{Outbox: 1, Epoch: got.Epoch}}}))
		phone.ws.CloseNow()
		sender.publish("a", clientID(t), `"two"`)
		sender.publish("a", clientID(t), `"three"`)
		phone, r = reader(w, "a", "phone", &wire.OutboxPosition{Epoch: got.Epoch, Offset: 1})
		all := r.Outbox.GetEntries()
		for len(all) < 2 {
			all = append(all, phone.outbox().Entries...)
		}
		if bodies(all) != `2:"two" 3:"three"` || r.Outbox.Reset_ || r.Outbox.Gap != nil {
			t.Fatalf("resumed: %s, %v", bodies(all), r.Outbox)
		}
		w.pipe.Cut()
		w.pipe.Dial()
		for sender.publish("a", clientID(t), `"four"`).GetPublish() == nil {
		}
		for last := uint64(3); last < 4; {
			for _, e := range phone.outbox().Entries {
				if e.Offset > last+1 {
					t.Fatalf("offset %d after %d", e.Offset, last)
				}
				last = max(last, e.Offset)
			}
		}
		_, r = reader(w, "a", "tablet", &wire.OutboxPosition{Epoch: "00000000000000aa", Offset: 9})
		if !r.Outbox.GetReset_() || r.Outbox.Epoch != got.Epoch {
			t.Fatalf("of another epoch: %v", r.Outbox)
		}
	}
}

func (c *client) contact(user, action string) *wire.ContactRow {
	c.t.Helper()
	r := c.reply(c.send(&wire.Command{Method: &wire.Command_Contact{Contact: &wire.Contact{User: user, Action: action}}}))
	if r.GetContact() == nil {
		c.t.Fatalf("%s %s: %s", action, user, asJSON(r))
	}
	return r.GetContact().Contact
}

// row waits until a relation is pushed.
func (c *client) row(user string, ok func(*wire.ContactRow) bool) {
	c.t.Helper()
	c.push(func(p *wire.Push) bool {
		for _, r := range p.Contact {
			if r.User == user && ok(r) {
				return true
			}
		}
		return false
	})
}

// The handshake between users of two shards, and what each of them is told.
func TestContactsEndToEnd(t *testing.T) {
	w := newWorld(t)
	b := user(w, "b", "a")
	a := user(w, "a")
	b.sees("a", online)
	if r := a.contact("b", "subscribe"); !r.PendingOut || r.Subscription != "none" {
		t.Fatalf("%v", r)
	}
	b.row("a", func(r *wire.ContactRow) bool { return r.PendingIn })
	if r := b.contact("a", "approve"); r.Subscription != "from" || r.PendingIn {
		t.Fatalf("%v", r)
	}
	a.row("b", func(r *wire.ContactRow) bool { return r.Subscription == "to" && !r.PendingOut })
	list := a.reply(a.send(&wire.Command{Method: &wire.Command_Contacts{Contacts: &wire.Contacts{}}})).GetContacts()
	if len(list.GetContacts()) != 1 || list.Contacts[0].User != "b" || list.More {
		t.Fatalf("%v", list)
	}
	if r := a.reply(a.send(&wire.Command{Method: &wire.Command_Block{Block: &wire.Block{Add: []string{"b"}}}})); r.GetBlock() == nil {
		t.Fatalf("%s", asJSON(r))
	}
	b.sees("a", offline)
	id := b.send(&wire.Command{Method: &wire.Command_Contacts{Contacts: &wire.Contacts{}}})
	r := b.next()
	for ; r.Id != id; r = b.next() {
		if len(r.GetPush().GetContact()) > 0 {
			t.Fatalf("told of a block: %v", r)
		}
	}
	list = r.GetContacts()
	for _, r := range list.GetContacts() {
		if r.Blocked || r.User != "a" {
			t.Fatalf("who has blocked whom: %v", r)
		}
	}
}

// One entry when a user comes online.
func TestNotifyWhenEndToEnd(t *testing.T) {
	w := newWorld(t)
	a, _ := reader(w, "a", "d1", &wire.OutboxPosition{})
	if r := a.reply(a.send(&wire.Command{Method: &wire.Command_NotifyWhen{NotifyWhen: &wire.NotifyWhen{User: "b"}}})); r.GetNotifyWhen() == nil {
		t.Fatalf("%s", asJSON(r))
	}
	user(w, "b")
	if e := a.outbox().Entries[0]; e.Type != "notify_when" || e.Body != `{"user":"b","state":"online"}` {
		t.Fatalf("%v", e)
	}
	if r := a.reply(a.send(&wire.Command{Method: &wire.Command_Device{Device: &wire.Device{Provider: "fcm", Token: "t"}}})); r.GetDevice() == nil {
		t.Fatalf("%s", asJSON(r))
	}
}

// The HTTP API over the edge's link: each call of what is kept does what it says.
func TestAPIEndToEnd(t *testing.T) {
	w := newWorld(t)
	key, err := api.ParseKey("k", true)
	if err != nil {
		t.Fatal(err)
	}
	a, err := api.New(api.Config{Caller: w.edge, Keys: []api.Key{key}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, path, body string) string {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer k")
		r.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		a.ServeHTTP(rec, r)
		if rec.Code != http.StatusOK || strings.Contains(rec.Body.String(), `"error"`) {
			t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
		return rec.Body.String()
	}
	publish := `{"users":["a","b","c"],"client_id":"` + clientID(t) + `","body":{"n":1}}`
	first := call("POST", "/v1/publish", publish)
	if n := strings.Count(first, `"offset":1`); n != 3 {
		t.Fatalf("%s", first)
	}
	if again := call("POST", "/v1/publish", publish); strings.Count(again, `"duplicate":true`) != 3 {
		t.Fatalf("%s", again)
	}
	dev, r := reader(w, "a", "d1", &wire.OutboxPosition{})
	all := r.Outbox.GetEntries()
	if len(all) == 0 {
		all = dev.outbox().Entries
	}
	if bodies(all) != `1:{"n":1}` || all[0].From != "" {
		t.Fatalf("%v", all)
	}
	if doc := call("GET", "/v1/users/a/outbox", ""); !json.Valid([]byte(doc)) || !strings.Contains(doc, "d1") {
		t.Fatalf("%s", doc)
	}
	var purged struct{ Epoch string }
	if err := json.Unmarshal([]byte(call("POST", "/v1/users/a/outbox/purge", "")), &purged); err != nil {
		t.Fatal(err)
	}
	if p := dev.outbox(); !p.Reset_ || p.Epoch != purged.Epoch {
		t.Fatalf("purged to %v: %v", purged, p)
	}
	call("POST", "/v1/contacts/import", `{"rows":[{"user":"a","contact":"b","subscription":"both"},{"user":"c","contact":"a","subscription":"to"}]}`)
	if got := call("GET", "/v1/users/a/contacts", ""); got != `{"contacts":[{"user":"b","subscription":"both"},{"user":"c","subscription":"from"}]}`+"\n" {
		t.Fatalf("%s", got)
	}
	dev.row("c", func(r *wire.ContactRow) bool { return r.Subscription == "from" })
	call("DELETE", "/v1/users/a/contacts/b", "")
	if got := call("GET", "/v1/users/b/contacts", ""); got != `{"contacts":[]}`+"\n" {
		t.Fatalf("%s", got)
	}
	call("POST", "/v1/users/a/graph/invalidate", "")
	call("POST", "/v1/users/a/blocks", `{"add":["mallory"]}`)
	if got := call("GET", "/v1/events", ""); !strings.Contains(got, `"complete":true`) {
		t.Fatalf("%s", got)
	}
	call("GET", "/v1/events?cursor=now", "")
	call("GET", "/v1/events/dead", "")
	call("DELETE", "/v1/users/a", "")
	if got := call("GET", "/v1/users/a/contacts", ""); got != `{"contacts":[]}`+"\n" {
		t.Fatalf("erased: %s", got)
	}
	if code := dev.closed(); wire.CloseCode(code).Reconnect() {
		t.Fatalf("closed with %v", code)
	}
}

// What happens to users reaches the application's webhook and the readers of events, in order, once each here.
func TestEventsEndToEnd(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]string{}
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var b struct{ Events []hooks.Event }
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range b.Events {
			got[e.User] = append(got[e.User], e.Type)
		}
	}))
	defer srv.Close()
	cfg := presence.DefaultConfig()
	cfg.Events = true
	var dispatcher atomic.Pointer[hooks.Dispatcher]
	w := newWorldOn(t, actors.Config{Presence: &cfg, OnEvents: func(shard uint32) {
		if d := dispatcher.Load(); d != nil {
			d.Notify(shard)
		}
	}})
	d, err := hooks.New(hooks.Config{URL: srv.URL, Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, Source: w.node})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dispatcher.Store(d)
	for shard := range uint32(link.Shards) {
		d.Opened(shard, 1, 0, 0)
	}
	for _, u := range []string{"a", "b", "c"} {
		c := user(w, u)
		c.status("dnd")
		c.raw(`{"bye":{}}`)
		c.closed()
	}
	want := "user.online user.state user.offline"
	deadline := time.Now().Add(10 * time.Second)
	for done := 0; done < 3; {
		if done = 0; time.Now().After(deadline) {
			t.Fatalf("%v", got)
		}
		mu.Lock()
		for _, types := range got {
			if strings.Join(types, " ") == want {
				done++
			}
		}
		mu.Unlock()
	}
}
