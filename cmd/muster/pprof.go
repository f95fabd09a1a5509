package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/http/pprof"
	"strings"
)

// withPprof adds /debug/pprof behind the API keys that are bound to no app, if it is
// switched on.
func withPprof(h http.Handler, cfg Config) http.Handler {
	if !cfg.Pprof {
		return h
	}
	profiles := http.NewServeMux()
	profiles.HandleFunc("/debug/pprof/", pprof.Index)
	profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
	profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
			h.ServeHTTP(w, r)
			return
		}
		if operator(r, cfg) {
			profiles.ServeHTTP(w, r)
			return
		}
		http.Error(w, "want an API key: Authorization: Bearer KEY", http.StatusUnauthorized)
	})
}

// operator says whether a request has an API key that is bound to no app.
func operator(r *http.Request, cfg Config) bool {
	given := sha256.Sum256([]byte(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
	for _, key := range cfg.APIKey {
		want := sha256.Sum256([]byte(key))
		if !strings.Contains(key, ":") && subtle.ConstantTimeCompare(given[:], want[:]) == 1 {
			return true
		}
	}
	return false
}
