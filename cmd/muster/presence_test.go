package main

import (
	"fmt"
	"testing"
	"time"
)

// Two devices of one user: one goes away, one drops its connection, one says bye.
func TestWatchersSeeExactlyTheSequence(t *testing.T) {
	const grace = 400 * time.Millisecond
	s := boot(t, "--grace-gone", grace.String())
	w := connect(t, s, "walt", "w", "web", `"watch":["ann"]`)

	desktop := connect(t, s, "ann", "d1", "desktop")
	w.expect(`ann online {"desktop":"online"}`)
	mobile := connect(t, s, "ann", "d2", "mobile")
	w.expect(`ann online {"desktop":"online","mobile":"online"}`) // active in the same minute: by class

	desktop.send(`{"id":2,"activity":{"away":true}}`)
	w.expect(`ann online {"desktop":"away","mobile":"online"}`)

	dropped := time.Now()
	mobile.drop()
	w.expect(`ann away {"desktop":"away"}`)
	if took := time.Since(dropped); took < grace-2*time.Millisecond { // the server counts in ms
		t.Errorf("the grace is %v, the change was seen after %v", grace, took)
	}

	said := time.Now()
	desktop.send(`{"id":3,"bye":{}}`)
	w.expect("ann offline explicit")
	if took := time.Since(said); took > grace {
		t.Errorf("a goodbye took %v", took)
	}
	if code := desktop.code(); code != 1000 {
		t.Errorf("close code %d after bye", code)
	}
}

// Sessions that come back inside their grace are seen by nobody. One that does not
// come back marks the end: when it is seen offline, the others would have been too.
func TestReconnectInsideTheGraceIsNotSeen(t *testing.T) {
	const n = 50
	s := boot(t, "--grace-gone", "2s")
	users := `"zed"`
	for i := range n {
		users += fmt.Sprintf(`,"u%d"`, i)
	}
	sessions := make([]*device, n)
	for i := range sessions {
		sessions[i] = connect(t, s, fmt.Sprintf("u%d", i), "d", "desktop")
	}
	zed := connect(t, s, "zed", "d", "desktop")
	w := connect(t, s, "walt", "w", "web", `"watch":[`+users+`]`)
	w.await("snapshot", func() bool { return len(w.views) == n+1 })
	w.mu.Lock()
	w.views, w.frames, w.raw = nil, 0, nil
	w.mu.Unlock()

	for _, d := range sessions {
		d.drop()
	}
	for i, d := range sessions {
		again := connect(t, s, fmt.Sprintf("u%d", i), "d", "desktop", fmt.Sprintf(`"session_id":%q`, d.session))
		if !again.resumed || again.session != d.session {
			t.Fatalf("u%d: resumed %v, session %s, was %s", i, again.resumed, again.session, d.session)
		}
	}
	zed.drop()
	w.expect("zed offline timeout")
	if w.frames != 1 {
		t.Errorf("%d frames, 1 was due: %q", w.frames, w.raw)
	}
}

// A later resume continues the session, and is seen.
func TestResumeAfterTheGrace(t *testing.T) {
	s := boot(t, "--grace-gone", "100ms")
	w := connect(t, s, "walt", "w", "web", `"watch":["ann"]`)
	d := connect(t, s, "ann", "d", "desktop")
	w.expect(`ann online {"desktop":"online"}`)
	d.drop()
	w.expect("ann offline timeout")
	again := connect(t, s, "ann", "d", "desktop", fmt.Sprintf(`"session_id":%q`, d.session))
	w.expect(`ann online {"desktop":"online"}`)
	if !again.resumed {
		t.Error("not resumed")
	}
}

// Invisible looks like a goodbye.
func TestInvisibleLooksLikeBye(t *testing.T) {
	s := boot(t)
	w := connect(t, s, "walt", "w", "web", `"watch":["ann","bob"]`)
	ann := connect(t, s, "ann", "d", "desktop")
	w.expect(`ann online {"desktop":"online"}`)
	bob := connect(t, s, "bob", "d", "desktop")
	w.expect(`bob online {"desktop":"online"}`)
	ann.send(`{"id":2,"status":{"state":"invisible"}}`)
	w.expect("ann offline explicit")
	bob.send(`{"id":2,"bye":{}}`)
	w.expect("bob offline explicit")
	ann.send(`{"id":3,"bye":{}}`)
	ann.code()
	connect(t, s, "bob", "d", "desktop")
	w.expect(`bob online {"desktop":"online"}`) // and nothing of ann before it
}
