package presence

import (
	"sync"
	"testing"
	"time"
)

// A user who was announced is pending until its activation has said what it shows, though all edges have announced: a watch
// that comes before that must not find it offline.
func TestAnnouncedUserIsNotOfflineBeforeItIsHeard(t *testing.T) {
	cfg := DefaultConfig()
	now := time.Unix(1000, 0)
	e, k := Edge{"e", 1}, Key{testApp, "ann"}
	g := NewGateway(&cfg, NewNames(&sync.Mutex{}), Open{At: now, Term: 7, Barrier: []Edge{e}})
	g.Step(now, EdgeUp{Edge: e})
	out := g.Step(now, Announce{Edge: e, ID: 1, Term: 7, SessionsDone: true, Sessions: []UserAttach{{Key: k, Attach: Attach{Session: "s", Device: "d"}}}})
	if len(out.Users) != 1 || !g.Settling() {
		t.Fatalf("%d inputs for users, settling %v", len(out.Users), g.Settling())
	}
	out = g.Step(now, Announce{Edge: e, ID: 1, Term: 7, Done: true, Watches: []Interest{{App: testApp, Watcher: Watcher{User: "bob"}, Add: []string{k.User, "cid"}}}})
	for _, row := range out.Edges[0].Message.(*Views).Rows {
		if !row.Pending {
			t.Fatalf("%s is not pending", row.User)
		}
	}
	out = g.Step(now, Stepped{Key: k, Seen: 1, Publish: &Shown{View: &View{State: Online}, Live: 1}})
	states := map[string]State{}
	for _, m := range out.Edges {
		if c, ok := m.Message.(*Change); ok {
			states[c.User] = c.Views[0].View.State
		}
	}
	if g.Settling() || len(states) != 2 || states["ann"] != Online || states["cid"] != Offline {
		t.Fatalf("settling %v, %v", g.Settling(), states)
	}
}

// An activation that says nothing holds nobody up for longer than edges do.
func TestSettlingEndsWithoutAnAnswer(t *testing.T) {
	cfg := DefaultConfig()
	now := time.Unix(1000, 0)
	e := Edge{"e", 1}
	g := NewGateway(&cfg, NewNames(&sync.Mutex{}), Open{At: now, Term: 7, Barrier: []Edge{e}})
	g.Step(now, EdgeUp{Edge: e})
	g.Step(now, Announce{Edge: e, ID: 1, Term: 7, SessionsDone: true, Sessions: []UserAttach{{Key: Key{testApp, "ann"}, Attach: Attach{Session: "s", Device: "d"}}}})
	at, ok := g.Deadline()
	if !ok || !at.Equal(now.Add(cfg.Settle)) {
		t.Fatalf("deadline %v, %v", at, ok)
	}
	if g.Step(at, Tick{}); g.Settling() {
		t.Fatal("still settling")
	}
}
