package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"muster/clients/wire"
)

const minKey = 16 // bytes of an API key

// Key is a bearer key of the API. One bound to an app acts in that app only.
type Key struct {
	App string // empty: any app, chosen by each request
	sum [sha256.Size]byte
}

// ParseKey reads "key" or "app:key"; a key without an app holds no colon. short
// allows less than 16 bytes, for development. The key itself is not kept.
func ParseKey(setting string, short bool) (Key, error) {
	var k Key
	secret := setting
	if app, rest, ok := strings.Cut(setting, ":"); ok {
		if !wire.ValidID(app) {
			return Key{}, errors.New(`API key: want "key" or "app:key" with an app of 1 to 128 of A-Z a-z 0-9 . _ @ + = -`)
		}
		k.App, secret = app, rest
	}
	if secret == "" || len(secret) < minKey && !short {
		return Key{}, fmt.Errorf("API key: want at least %d bytes, for example from: openssl rand -hex 24", minKey)
	}
	k.sum = sha256.Sum256([]byte(secret))
	return k, nil
}

// app checks the request's key and says for which app it asks, and whether the key is bound to it.
func (a *API) app(r *http.Request) (app string, bound bool, refused *Error) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return "", false, fail(wire.CodeUnauthorized, 0, "want an API key: Authorization: Bearer KEY")
	}
	sum := sha256.Sum256([]byte(strings.TrimSpace(secret)))
	found := -1
	for i := range a.cfg.Keys { // all of them, so that the time tells nothing
		if subtle.ConstantTimeCompare(sum[:], a.cfg.Keys[i].sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return "", false, fail(wire.CodeUnauthorized, 0, "the API key is not valid here")
	}
	asked, err := askedApp(r)
	if err != nil {
		return "", false, err
	}
	switch to := a.cfg.Keys[found].App; {
	case to == "" && asked == "":
		return defaultApp, false, nil
	case to == "":
		return asked, false, nil
	case asked != "" && asked != to:
		return "", false, fail(wire.CodePermissionDenied, 0, "the API key is bound to another app")
	default:
		return to, true, nil
	}
}

const defaultApp = "default"

func askedApp(r *http.Request) (string, *Error) {
	app := r.Header.Get("X-Muster-App")
	if q := r.URL.Query().Get("app"); q != "" {
		if app != "" && app != q {
			return "", badRequest("X-Muster-App and ?app= name different apps")
		}
		app = q
	}
	if app != "" && !wire.ValidID(app) {
		return "", badRequest("app: want 1 to 128 of A-Z a-z 0-9 . _ @ + = -")
	}
	return app, nil
}
