package api

import (
	"encoding/json"
	"net/http"
)

// Health adds /healthz (the process answers) and /readyz (it may get traffic; if
// not, 503 and why) to a mux: the API's, and the one of the clients' listener.
func Health(mux *http.ServeMux, ready func() []string) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := ready(); len(why) > 0 {
			writeHealth(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready", "reasons": why})
			return
		}
		writeHealth(w, http.StatusOK, map[string]any{"status": "ready"})
	})
}

func writeHealth(w http.ResponseWriter, status int, doc map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(doc)
}
