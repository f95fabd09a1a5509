package publish

import (
	"strings"
	"testing"
	"time"

	"muster/actors/link"
	"muster/clients/wire"
)

const (
	v7  = "0198f3c2-5a10-7d3e-9c41-6b1f0a2d4e55"
	sit = "01K3STVJGG8ZPX7M4S2QWB6R9T"
)

func TestID(t *testing.T) {
	for s, want := range map[string]bool{
		v7: true, strings.ToUpper(v7): true, sit: true, strings.ToLower(sit): true,
		"": false, "c-1": false,
		"0198f3c2-5a10-4d3e-9c41-6b1f0a2d4e55":  false, // v4
		"0198f3c2-5a10-7d3e-1c41-6b1f0a2d4e55":  false, // another variant
		"0198f3c25a107d3e9c416b1f0a2d4e55":      false, // no dashes
		"{0198f3c2-5a10-7d3e-9c41-6b1f0a2d4e5}": false,
		"0198f3c2x5a10-7d3e-9c41-6b1f0a2d4e55":  false,
		"81K3STVJGG8ZPX7M4S2QWB6R9T":            false, // overflows
		"01K3STVJGG8ZPX7M4S2QWB6R9I":            false, // not of the alphabet
		sit + "0":                               false,
	} {
		id, ok := ID(s)
		if ok != want || ok && id == [16]byte{} {
			t.Errorf("%q: %x %v, want %v", s, id, ok, want)
		}
	}
	a, _ := ID(v7)
	if b, _ := ID(strings.ToUpper(v7)); a != b {
		t.Error("one id in two spellings became two")
	}
}

func TestDraft(t *testing.T) {
	good := Draft{Sender: "u", ClientID: v7, Body: "1"}
	for _, c := range []struct {
		name   string
		change func(*Draft)
		code   wire.Code // 0: good
		field  string
	}{
		{"least", func(*Draft) {}, 0, ""},
		{"all", func(d *Draft) {
			d.Class, d.TTLMs, d.Collapse, d.AckMode = "critical", 10_000, strings.Repeat("k", 64), "any_device"
		}, 0, ""},
		{"longest body", func(d *Draft) { d.Body = `"` + strings.Repeat("x", wire.MaxBody-2) + `"` }, 0, ""},
		{"body", func(d *Draft) { d.Body = `"` + strings.Repeat("x", wire.MaxBody-1) + `"` }, wire.CodeTooLarge, "body"},
		{"no body", func(d *Draft) { d.Body = "" }, wire.CodeBadRequest, "body"},
		{"no JSON", func(d *Draft) { d.Body = "{" }, wire.CodeBadRequest, "body"},
		{"id", func(d *Draft) { d.ClientID = "x" }, wire.CodeBadRequest, "client_id"},
		{"class", func(d *Draft) { d.Class = "Normal" }, wire.CodeBadRequest, "class"},
		{"short ttl", func(d *Draft) { d.TTLMs = 9_999 }, wire.CodeBadRequest, "ttl_ms"},
		{"long ttl", func(d *Draft) { d.TTLMs = 2_592_000_001 }, wire.CodeBadRequest, "ttl_ms"},
		{"collapse", func(d *Draft) { d.Collapse = strings.Repeat("k", 65) }, wire.CodeBadRequest, "collapse_key"},
		{"ack mode", func(d *Draft) { d.AckMode = "all" }, wire.CodeBadRequest, "ack_mode"},
	} {
		d := good
		c.change(&d)
		p, fault := d.Publish()
		switch {
		case c.code == 0 && (fault != nil || p == nil):
			t.Errorf("%s: %v", c.name, fault)
		case c.code != 0 && (p != nil || fault.Code != c.code || fault.Field != c.field):
			t.Errorf("%s: %v, want %v of %s", c.name, fault, c.code, c.field)
		}
	}
	d := good
	d.Class, d.AckMode = "presence", "any_device"
	if p, _ := d.Publish(); p.Class != 2 || !p.AnyDevice || len(p.Id) != 16 || p.ClientId != v7 || p.Sender != "u" {
		t.Errorf("%v", p)
	}
}

func TestPause(t *testing.T) {
	most := time.Duration(0)
	for n := -1; n < 100; n++ {
		p := Pause(n)
		if p < 20*time.Millisecond || p > 1620*time.Millisecond || n <= 1 && p > 120*time.Millisecond {
			t.Fatalf("pause %d: %v", n, p)
		}
		most = max(most, p)
	}
	if most < 300*time.Millisecond {
		t.Errorf("the longest of 100 is %v: it does not grow", most)
	}
}

func TestUnsettled(t *testing.T) {
	n := 0
	for c := range link.Code_name {
		if Unsettled(link.Code(c)) {
			n++
		}
	}
	if n != 4 || Unsettled(link.Code_OK) || Unsettled(link.Code_OUTBOX_FULL) {
		t.Errorf("%d codes leave it open", n)
	}
}

func FuzzID(f *testing.F) {
	f.Add(v7)
	f.Add(sit)
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := ID(s); ok && (id == [16]byte{} && strings.Trim(s, "0") != "" || len(s) != 36 && len(s) != 26) {
			t.Errorf("%q became %x", s, id)
		}
	})
}

// Every number of the core has a word of its own, and what is newer has none.
func TestWords(t *testing.T) {
	for name, c := range map[string]struct {
		word func(uint32) string
		want string
	}{
		"class":  {Class, "normal critical presence"},
		"type":   {Type, "message notify_when"},
		"reason": {Reason, "acked ttl collapsed overflow purged"},
	} {
		var got []string
		for n := uint32(0); c.word(n) != ""; n++ {
			got = append(got, c.word(n))
		}
		if strings.Join(got, " ") != c.want || c.word(1<<31) != "" {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
	for i, w := range []string{"subscribe", "approve", "deny", "unsubscribe", "remove"} {
		if n, ok := Action(w); !ok || n != uint32(i+1) {
			t.Errorf("%s: %d %v", w, n, ok)
		}
	}
	if _, ok := Action(""); ok {
		t.Error("no action is one")
	}
}
