package hooks

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	registry prometheus.Registerer
	all      []prometheus.Collector

	events   *prometheus.CounterVec
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	failing  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, d *Dispatcher) (*metrics, error) {
	m := &metrics{
		registry: r,
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_hooks_events_total", Help: "Events that the webhook took (delivered) or refused for good (dead).",
		}, []string{"outcome"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_hooks_requests_total", Help: "Requests to the webhook by status, 2xx to 5xx, or error.",
		}, []string{"status"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muster_hooks_request_seconds", Help: "Time that the webhook took to answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muster_hooks_failing", Help: "Shards whose batch is being tried again.",
		}),
	}
	lag := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_hooks_lag_seconds", Help: "Age of the oldest event that the webhook has yet to take.",
	}, d.lag)
	for _, outcome := range []string{"delivered", "dead"} {
		m.events.WithLabelValues(outcome)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.events, m.requests, m.seconds, m.failing, lag} {
		if err := r.Register(c); err != nil {
			m.unregister()
			return nil, err
		}
		m.all = append(m.all, c)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.all {
		m.registry.Unregister(c)
	}
}

func (m *metrics) request(err error, took time.Duration) {
	m.seconds.Observe(took.Seconds())
	status := "2xx"
	if answer := (*refused)(nil); errors.As(err, &answer) {
		status = fmt.Sprintf("%dxx", answer.status/100)
	} else if err != nil {
		status = "error"
	}
	m.requests.WithLabelValues(status).Inc()
}

// lag is the age of the oldest event that waits, in seconds.
func (d *Dispatcher) lag() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldest := int64(0)
	for _, w := range d.workers {
		if at := w.oldest.Load(); at != 0 && (oldest == 0 || at < oldest) {
			oldest = at
		}
	}
	if oldest == 0 {
		return 0
	}
	return max(time.Since(time.UnixMilli(oldest)).Seconds(), 0)
}
