package api

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/clients/wire"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_api_requests_total", Help: "Requests to the HTTP API by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_api_request_seconds", Help: "Time to answer a request to the HTTP API.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 2.5, 10},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_api_in_flight", Help: "Requests to the HTTP API that are being answered.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_api_panics_total", Help: "Panics in handlers of the HTTP API.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.inFlight, m.panics} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ServeHTTP answers one request, counts it and logs it.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	a.metrics.inFlight.Inc()
	defer a.metrics.inFlight.Dec()
	rec := &recorder{ResponseWriter: w}
	_, route := a.mux.Handler(r)
	app, bound := "", false
	var refused *Error
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			a.metrics.panics.Inc()
			a.cfg.Log.Error("api: panic", "route", route, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if rec.status == 0 {
				writeError(rec, fail(wire.CodeInternal, 0, ""))
			}
		}
		a.finish(r, route, app, rec.status, time.Since(start))
	}()
	rec.Header().Set("Cache-Control", "no-store")
	rec.Header().Set("X-Content-Type-Options", "nosniff")
	app, bound, refused = a.admit(rec, r, route)
	if refused != nil {
		writeError(rec, refused)
		return
	}
	ctx := context.WithValue(context.WithValue(r.Context(), appKey{}, app), boundKey{}, bound)
	if route == "GET /v1/events" && wantsStream(r) {
		a.stream(rec, r.WithContext(ctx))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	a.mux.ServeHTTP(rec, r.WithContext(ctx))
}

// needsKey goes by the route, not by the path, which a client may write in many ways.
func needsKey(r *http.Request, route string) bool {
	if route == "" {
		return strings.HasPrefix(r.URL.Path, "/v1/")
	}
	_, path, _ := strings.Cut(route, " ")
	return strings.HasPrefix(path, "/v1/") && !strings.HasPrefix(path, "/v1/openapi.")
}

// admit checks the key of what needs one, then whether the route exists.
func (a *API) admit(w http.ResponseWriter, r *http.Request, route string) (app string, bound bool, refused *Error) {
	if needsKey(r, route) {
		if app, bound, refused = a.app(r); refused != nil {
			if refused.status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="muster"`)
			}
			return "", false, refused
		}
	}
	if route != "" {
		return app, bound, nil
	}
	// The router says by itself whether the path or only the method is unknown.
	said := &recorder{ResponseWriter: discard{http.Header{}}}
	a.mux.ServeHTTP(said, r)
	if allow := said.Header().Get("Allow"); said.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		return "", false, httpError(said.status, fmt.Sprintf("%s is not allowed here, only %s", r.Method, allow))
	}
	return "", false, httpError(http.StatusNotFound, "no such path: /v1/openapi.json lists what there is")
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// finish counts and logs. Acts are logged as they change something; reads only
// when they fail.
func (a *API) finish(r *http.Request, route, app string, status int, took time.Duration) {
	if status == 0 {
		status = http.StatusOK
	}
	if route == "" {
		route = "none" // not the path: it is the caller's choice and would make labels without end
	}
	a.metrics.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	a.metrics.seconds.WithLabelValues(route).Observe(took.Seconds())
	log := a.cfg.Log.Debug
	switch {
	case status >= 500 && route != "GET /readyz":
		log = a.cfg.Log.Error
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		log = a.cfg.Log.Warn
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		log = a.cfg.Log.Info
	}
	log("api", "method", r.Method, "path", r.URL.Path, "route", route, "app", app, "status", status,
		"ms", float64(took.Microseconds())/1000, "client", r.RemoteAddr)
}
