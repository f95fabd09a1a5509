package muster

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"muster/clients/wire"
)

// The wire vectors of what a server sends, given to a client: clients/testdata/wire/README.md.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("../testdata/wire/*.json")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var vectors []struct {
			Name, Dir, Error string
			In               json.RawMessage
			InHex            string `json:"in_hex"`
		}
		if err := json.Unmarshal(text, &vectors); err != nil {
			t.Fatal(file, err)
		}
		for _, v := range vectors {
			if v.Dir != "s2c" {
				continue
			}
			n++
			t.Run(v.Name, func(t *testing.T) { runVector(t, vectorLine(t, v.In, v.InHex), v.Error) })
		}
	}
	if n < 100 {
		t.Errorf("only %d vectors", n)
	}
}

func vectorLine(t *testing.T, in json.RawMessage, inHex string) []byte {
	if inHex != "" {
		line, err := hex.DecodeString(inHex)
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	if in[0] == '"' {
		var s string
		if err := json.Unmarshal(in, &s); err != nil {
			t.Fatal(err)
		}
		return []byte(s)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, in); err != nil {
		t.Fatal(err)
	}
	return line.Bytes()
}

func runVector(t *testing.T, line []byte, failure string) {
	c, s := loopback(t)
	s.line([]byte(`{"id":1,"connect":{"done":true}}`))
	if goesOn := s.line(line); goesOn == (failure == "syntax") {
		t.Errorf("%s: the socket goes on: %v", line, goesOn)
	}
	var reply wire.Reply
	if failure != "" || wire.Decode(line, &reply) != nil {
		return
	}
	for _, p := range reply.GetPush().GetPresence() {
		got := c.View().Get(p.GetUser())
		want := p.GetState().Name()
		if want == "" {
			want = string(Unknown)
		}
		if string(got.State) != want || got.Version != version(p.GetVer()) || got.Text != p.GetText() ||
			len(got.Devices) != len(p.GetDevices()) || got.Reason != p.GetReason().Name() || string(got.Activity) != p.GetActivity() {
			t.Errorf("%s: the view has %+v", line, got)
		}
	}
	if m := reply.GetPush().GetReconnect(); m != nil && (<-s.moving).GetRetryAfterMs() != m.GetRetryAfterMs() {
		t.Errorf("%s: not asked to move", line)
	}
	if d := reply.GetPush().GetDisconnect(); d != nil {
		closed, ok := s.why(os.ErrClosed).(*CloseError)
		if !ok || uint32(closed.Code) != d.GetCode() || closed.Reconnect() != d.GetReconnect() || closed.RetryAfter != millis(d.GetRetryAfterMs()) {
			t.Errorf("%s: closes with %v", line, closed)
		}
	}
	if e := reply.GetError(); e != nil {
		if got := refusal(e); got.Name != e.GetName() || got.Retryable != e.GetRetryable() {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
