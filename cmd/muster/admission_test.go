package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"muster/edge/auth"
)

func TestForeignOriginIsRefused(t *testing.T) {
	s := boot(t, "--origin", "https://app.example")
	for origin, want := range map[string]int{
		"https://app.example":                http.StatusSwitchingProtocols,
		"https://evil.example":               http.StatusForbidden,
		"https://app.example.evil.example":   http.StatusForbidden,
		"null":                               http.StatusForbidden,
		"http://" + s.listen.Addr().String(): http.StatusSwitchingProtocols,
	} {
		_, resp, _ := dial(t, s.url(), http.Header{"Origin": {origin}})
		if resp == nil || resp.StatusCode != want {
			t.Errorf("origin %s: %v, want %d", origin, resp, want)
		}
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	s := boot(t, "--audience", "us")
	sign := func(key auth.Key, c auth.Claims) string {
		token, err := auth.Sign(key, c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	now := time.Now()
	good := auth.Claims{User: "ann", Audience: []string{"us"}, Issued: now, Expires: now.Add(time.Hour)}
	expired, foreign := good, good
	expired.Issued, expired.Expires = now.Add(-2*time.Hour), now.Add(-time.Hour)
	foreign.Audience = []string{"them"}
	secret := auth.Secret(devSecret)
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	body := part(map[string]any{"sub": "ann", "aud": "us", "exp": now.Add(time.Hour).Unix()})
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	head := part(map[string]string{"alg": "EdDSA"})
	otherAlgorithm := head + "." + body + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(head+"."+body)))

	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"none":            {"", 4504},
		"nonsense":        {"nonsense", 4504},
		"another key":     {sign(auth.Secret("another"), good), 4504},
		"unsigned":        {part(map[string]string{"alg": "none"}) + "." + body + ".", 4504},
		"other algorithm": {otherAlgorithm, 4504},
		"other audience":  {sign(secret, foreign), 4504},
		"expired":         {sign(secret, expired), 4013},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, err := dial(t, s.url(), nil)
			if err != nil {
				t.Fatal(err)
			}
			d.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q,"device_id":"d"}}`, c.token))
			if code := d.code(); code != c.code {
				t.Errorf("close code %d, want %d; %+v", code, c.code, d.replies)
			}
		})
	}
	d, _, err := dial(t, s.url(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.send(fmt.Sprintf(`{"id":1,"connect":{"token":%q,"device_id":"d"}}`, sign(secret, good)))
	d.await("session", func() bool { return d.session != "" })
}

// Whatever one client sends, the documented code ends it and nobody else notices.
func TestBadFramesHurtNobodyElse(t *testing.T) {
	s := boot(t)
	bystander := connect(t, s, "walt", "w", "web", `"watch":["ann"]`)
	huge := make([]byte, 65<<10)
	for i := range huge {
		huge[i] = 'x'
	}
	for name, c := range map[string]struct {
		frame string
		code  int
	}{
		"not JSON":       {"nonsense", 4002},
		"truncated":      {`{"id":1,"conn`, 4002},
		"too large":      {string(huge), 4002},
		"wrong type":     {`{"id":1,"connect":7}`, 4002},
		"before connect": {`{"id":1,"watch":{"add":["a"]}}`, 4003},
	} {
		t.Run(name, func(t *testing.T) {
			d, _, err := dial(t, s.url(), nil)
			if err != nil {
				t.Fatal(err)
			}
			d.send(c.frame)
			if code := d.code(); code != c.code {
				t.Errorf("close code %d, want %d", code, c.code)
			}
		})
	}
	connect(t, s, "ann", "d", "desktop")
	bystander.expect(`ann online {"desktop":"online"}`)
	if bystander.closed != nil {
		t.Error(bystander.closed)
	}
}
