package demo

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"

	"muster/clients/js"
	"muster/clients/wire"
)

//go:embed assets
var assets embed.FS

// Everything comes from the page's own origin, and nothing is inline.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

const maxTokenRequest = 4 << 10

// Caps are the capabilities that the page needs in its tokens: all that a client may ask for, and publish.
var Caps = []string{
	"watch", "query", "status", "claim", "claim.*", "activity", "client_state", "audience", "typing", "room.*",
	"contact", "contacts", "block", "publish", "notify_when", "device",
}

// Options is what the page needs of the server it is part of.
type Options struct {
	// Token makes a client token for a user, with Caps. It must be set.
	Token func(user string) (token string, err error)
}

// Handler serves the page at /, its assets, the JavaScript client at /muster.js, and
// POST /demo/token {"user": …} → {"token": …}, which answers only pages of its own
// origin. Everything else is 404. Errors have the body of the HTTP API:
// {"code", "name", "message"}.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", static("text/html; charset=utf-8", file("index.html")))
	mux.Handle("GET /demo.css", static("text/css; charset=utf-8", file("demo.css")))
	mux.Handle("GET /demo.js", static("text/javascript; charset=utf-8", file("demo.js")))
	mux.Handle("GET /inbox.js", static("text/javascript; charset=utf-8", file("inbox.js")))
	mux.Handle("GET /logo.svg", static("image/svg+xml", file("logo.svg")))
	mux.Handle("GET /muster.js", static("text/javascript; charset=utf-8", js.Source))

	refused := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, wire.CodePermissionDenied, "this page's own origin only")
	})
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(refused)
	mux.Handle("POST /demo/token", sameOrigin.Handler(token(o.Token)))
	return secure(mux)
}

func file(name string) []byte {
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic("demo: asset missing from the build: " + err.Error())
	}
	return text
}

// secure sets the headers that keep the page to itself.
func secure(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", contentSecurityPolicy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.ServeHTTP(w, r)
	})
}

// static serves one asset; a browser asks each time and gets 304 while it is the same.
func static(mediaType string, text []byte) http.Handler {
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Type", mediaType)
		head.Set("Cache-Control", "no-cache")
		head.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		head.Set("Content-Length", strconv.Itoa(len(text)))
		_, _ = w.Write(text)
	})
}

// token answers POST /demo/token. It wants application/json, which a foreign page
// cannot send without asking first.
func token(mint func(user string) (string, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			refuse(w, http.StatusUnsupportedMediaType, wire.CodeBadRequest, "send application/json")
			return
		}
		var in struct {
			User string `json:"user"`
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxTokenRequest))
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, wire.CodeBadRequest, `send {"user": "name"}`)
			return
		}
		if !wire.ValidID(in.User) {
			refuse(w, http.StatusBadRequest, wire.CodeBadRequest, "a name has 1 to 128 letters, digits or . _ @ + = -")
			return
		}
		signed, err := mint(in.User)
		if err != nil {
			refuse(w, http.StatusInternalServerError, wire.CodeInternal, "no token could be made: "+err.Error())
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		answer(w, http.StatusOK, map[string]string{"token": signed})
	})
}

func refuse(w http.ResponseWriter, status int, code wire.Code, message string) {
	answer(w, status, map[string]any{"code": code, "name": code.String(), "message": message})
}

func answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic("demo: answer does not encode: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}
