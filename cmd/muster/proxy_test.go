package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestOnlyTrustedProxiesAreBelieved(t *testing.T) {
	networks := []string{"10.0.0.0/8", "fd00::/8"}
	for name, c := range map[string]struct{ peer, forwarded, want string }{
		"a client of its own":     {"1.2.3.4:5", "9.9.9.9", "1.2.3.4:5"},
		"through a proxy":         {"10.0.0.1:5", "9.9.9.9", "9.9.9.9:5"},
		"through two":             {"10.0.0.1:5", "9.9.9.9, 10.0.0.2", "9.9.9.9:5"},
		"the client lies":         {"10.0.0.1:5", "6.6.6.6, 9.9.9.9, 10.0.0.2", "9.9.9.9:5"},
		"nonsense":                {"10.0.0.1:5", "nonsense", "10.0.0.1:5"},
		"nonsense behind a proxy": {"10.0.0.1:5", "nonsense, 10.0.0.3", "10.0.0.3:5"},
		"nothing":                 {"10.0.0.1:5", "", "10.0.0.1:5"},
		"IPv6":                    {"[fd00::1]:5", "2001:db8::1", "[2001:db8::1]:5"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			h := behindProxies(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.RemoteAddr }), networks)
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			if c.forwarded != "" {
				r.Header.Set("X-Forwarded-For", c.forwarded)
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			if got != c.want {
				t.Errorf("address %q, want %q", got, c.want)
			}
		})
	}
}
