package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"muster/clients/js"
)

func serve(r *http.Request, mint func(string) (string, error)) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	Handler(Options{Token: mint}).ServeHTTP(w, r)
	return w
}

func TestAssets(t *testing.T) {
	for path, want := range map[string]string{
		"/":         "text/html; charset=utf-8",
		"/demo.css": "text/css; charset=utf-8",
		"/demo.js":  "text/javascript; charset=utf-8",
		"/inbox.js": "text/javascript; charset=utf-8",
		"/logo.svg": "image/svg+xml",
	} {
		w := serve(httptest.NewRequest("GET", path, nil), nil)
		if w.Code != 200 || w.Header().Get("Content-Type") != want || w.Body.Len() == 0 {
			t.Errorf("GET %s: %d %s, %d bytes", path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy"} {
			if w.Header().Get(h) == "" {
				t.Errorf("GET %s: no %s", path, h)
			}
		}
		again := httptest.NewRequest("GET", path, nil)
		again.Header.Set("If-None-Match", w.Header().Get("ETag"))
		if w := serve(again, nil); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("GET %s with its ETag: %d, %d bytes", path, w.Code, w.Body.Len())
		}
	}
	if w := serve(httptest.NewRequest("GET", "/muster.js", nil), nil); !bytes.Equal(w.Body.Bytes(), js.Source) {
		t.Error("/muster.js is not clients/js/muster.js")
	}
	for _, path := range []string{"/assets/index.html", "/index.html", "/v1/ws", "/x"} {
		if w := serve(httptest.NewRequest("GET", path, nil), nil); w.Code != 404 {
			t.Errorf("GET %s: %d, want 404", path, w.Code)
		}
	}
}

// The page must work under its own policy: no script, style or handler inline, and
// nothing from elsewhere; and text of others must never be parsed as HTML.
func TestPageKeepsToItsPolicy(t *testing.T) {
	html := string(file("index.html"))
	for _, bad := range []string{`\sstyle=`, `\son[a-z]+=`, `<style`, `<script>`, `(src|href)="(https?:)?//`} {
		if found := regexp.MustCompile(bad).FindString(html); found != "" {
			t.Errorf("index.html has %q", found)
		}
	}
	for name, source := range map[string][]byte{"demo.js": file("demo.js"), "inbox.js": file("inbox.js"), "muster.js": js.Source} {
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"} {
			if bytes.Contains(source, []byte(bad)) {
				t.Errorf("%s uses %s", name, bad)
			}
		}
	}
}

// Every id that the script asks for is on the page.
func TestScriptAndPageAgree(t *testing.T) {
	html := string(file("index.html"))
	asked := regexp.MustCompile(`\$\("([a-z-]+)"\)`).FindAllSubmatch(file("demo.js"), -1)
	if len(asked) < 20 {
		t.Fatalf("only %d ids found in demo.js", len(asked))
	}
	for _, m := range asked {
		if !strings.Contains(html, `id="`+string(m[1])+`"`) {
			t.Errorf("demo.js asks for #%s, which index.html has not", m[1])
		}
	}
}

func TestToken(t *testing.T) {
	mint := func(user string) (string, error) {
		if user == "broken" {
			return "", errors.New("no key")
		}
		return "signed-" + user, nil
	}
	for name, c := range map[string]struct {
		body, kind string
		header     [2]string
		status     int
		want       string
	}{
		"a name":            {body: `{"user":"zoe-m."}`, status: 200, want: `"token":"signed-zoe-m."`},
		"with charset":      {body: `{"user":"a"}`, kind: "application/json; charset=utf-8", status: 200, want: "signed-a"},
		"own origin":        {body: `{"user":"a"}`, header: [2]string{"Origin", "http://example.com"}, status: 200, want: "signed-a"},
		"no name":           {body: `{}`, status: 400, want: "BAD_REQUEST"},
		"not an id":         {body: `{"user":"a b"}`, status: 400, want: "BAD_REQUEST"},
		"too long":          {body: `{"user":"` + strings.Repeat("a", 129) + `"}`, status: 400, want: "BAD_REQUEST"},
		"wrong type":        {body: `{"user":7}`, status: 400, want: "BAD_REQUEST"},
		"no JSON":           {body: `user=a`, status: 400, want: "BAD_REQUEST"},
		"huge":              {body: `{"user":"` + strings.Repeat("a", 5000) + `"}`, status: 400, want: "BAD_REQUEST"},
		"a form":            {body: `{"user":"a"}`, kind: "text/plain", status: 415, want: "BAD_REQUEST"},
		"a foreign page":    {body: `{"user":"a"}`, header: [2]string{"Sec-Fetch-Site", "cross-site"}, status: 403, want: "PERMISSION_DENIED"},
		"a foreign origin":  {body: `{"user":"a"}`, header: [2]string{"Origin", "https://evil.example"}, status: 403, want: "PERMISSION_DENIED"},
		"nobody can sign":   {body: `{"user":"broken"}`, status: 500, want: "INTERNAL"},
		"unknown is passed": {body: `{"user":"a","more":1}`, status: 200, want: "signed-a"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/demo/token", strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			if c.kind != "" {
				r.Header.Set("Content-Type", c.kind)
			}
			if c.header[0] != "" {
				r.Header.Set(c.header[0], c.header[1])
			}
			w := serve(r, mint)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || !json.Valid(w.Body.Bytes()) {
				t.Errorf("%d %s, want %d with %s", w.Code, w.Body, c.status, c.want)
			}
		})
	}
	if w := serve(httptest.NewRequest("GET", "/demo/token", nil), mint); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", w.Code)
	}
}
