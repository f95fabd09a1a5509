package main

import (
	"strings"
	"testing"
	"time"
)

func TestRenderWritesTimesOut(t *testing.T) {
	now := time.UnixMilli(1_700_000_060_000)
	doc := `{"user":"ann","sessions":[{"id":"s1","since_at":1700000000000,"grace_ms":15000,"devices":[]}],"deadline_at":1700000120000,"last_active":"2023-11-14T22:13:50Z","count":3}`
	var b strings.Builder
	if err := render(&b, []byte(doc), now); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"user: ann\n", "- id: s1\n", "1 min ago", "grace_ms: 15s", "devices: []", "in 1 min", "30 s ago", "count: 3\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Index(text, "user") > strings.Index(text, "count") {
		t.Errorf("the order changed:\n%s", text)
	}
	if err := render(&b, []byte("{"), now); err == nil {
		t.Error("broken JSON is accepted")
	}
}
