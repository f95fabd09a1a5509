package edge

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"muster/clients/wire"
)

var errDraining = errors.New("draining")

type counters struct {
	sessions, watches, waiting                           atomic.Int64 // present
	accepted, rejected, opened, resumed, badTokens       atomic.Int64
	commands, refused, limited, pings, announced, panics atomic.Int64
	deliveries, frames, merged, withheld, stale, slow    atomic.Int64
	entries, redelivered, retried, lapsed, unknown       atomic.Int64
	closes                                               closeCount
}

// closeCount counts closes by code.
type closeCount struct {
	mu sync.Mutex
	by map[wire.CloseCode]int64
}

func (c *closeCount) add(code wire.CloseCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = make(map[wire.CloseCode]int64)
	}
	c.by[code]++
}

func (c *closeCount) copy() map[wire.CloseCode]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[wire.CloseCode]int64, len(c.by))
	for k, v := range c.by {
		m[k] = v
	}
	return m
}

// Stats is a snapshot of an edge. Conns, Sessions, Watches and Waiting are present counts, the
// others have grown since the start.
type Stats struct {
	Conns, Sessions, Watches int64
	Waiting                  int64  // connects that have not begun
	Routed                   int64  // shards whose leader is known
	Terms                    uint64 // sum of their terms: equal on all edges that know the same leaders

	Accepted, Rejected int64 // handshakes
	Opened, Resumed    int64 // connects answered; of these, sessions that went on
	BadTokens          int64
	Commands, Refused  int64 // commands; error replies
	RateLimited        int64
	Pings              int64
	Deliveries         int64 // presences sent
	Frames             int64 // frames they were sent in
	Merged             int64 // changes that took the place of one not yet sent
	Withheld           int64 // views that showed what had been sent
	Stale              int64 // messages of an old term or version
	Slow               int64 // sockets closed because they did not read
	Announced          int64 // shards announced
	Entries            int64 // outbox entries sent
	Redelivered        int64 // outbox entries not sent again, as the socket had yet to read them
	Retried            int64 // publishes tried again
	Lapsed             int64 // views marked stale or unknown
	Unknown            int64 // messages of cores that only a newer build knows
	Panics             int64
	Closes             map[wire.CloseCode]int64
}

// Stats counts what the edge holds and has done.
func (e *Edge) Stats() Stats {
	c := &e.count
	routed, terms := e.links.known()
	return Stats{
		Routed: routed, Terms: terms,
		Conns: e.sockets.count.Load(), Sessions: c.sessions.Load(), Watches: c.watches.Load(), Waiting: c.waiting.Load(),
		Accepted: c.accepted.Load(), Rejected: c.rejected.Load(), Opened: c.opened.Load(), Resumed: c.resumed.Load(),
		BadTokens: c.badTokens.Load(), Commands: c.commands.Load(), Refused: c.refused.Load(), RateLimited: c.limited.Load(),
		Pings: c.pings.Load(), Deliveries: c.deliveries.Load(), Frames: c.frames.Load(), Merged: c.merged.Load(), Withheld: c.withheld.Load(),
		Stale: c.stale.Load(), Slow: c.slow.Load(), Announced: c.announced.Load(), Panics: c.panics.Load(),
		Entries: c.entries.Load(), Redelivered: c.redelivered.Load(), Retried: c.retried.Load(), Lapsed: c.lapsed.Load(), Unknown: c.unknown.Load(),
		Closes: c.closes.copy(),
	}
}

var _ prometheus.Collector = (*Edge)(nil)

type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Stats) int64
}

func gauge(name, help string, v func(*Stats) int64) metric {
	return metric{prometheus.NewDesc("muster_edge_"+name, help, nil, nil), prometheus.GaugeValue, v}
}

func counter(name, help string, v func(*Stats) int64) metric {
	return metric{prometheus.NewDesc("muster_edge_"+name+"_total", help, nil, nil), prometheus.CounterValue, v}
}

var metrics = []metric{
	gauge("conns", "open sockets", func(s *Stats) int64 { return s.Conns }),
	gauge("sessions", "attached sessions", func(s *Stats) int64 { return s.Sessions }),
	gauge("connects_waiting", "connects that wait until those before them are answered", func(s *Stats) int64 { return s.Waiting }),
	gauge("routed", "shards whose leader is known", func(s *Stats) int64 { return s.Routed }),
	gauge("watches", "rows (session, watched user)", func(s *Stats) int64 { return s.Watches }),
	counter("accepted", "WebSocket handshakes accepted", func(s *Stats) int64 { return s.Accepted }),
	counter("rejected", "WebSocket handshakes refused", func(s *Stats) int64 { return s.Rejected }),
	counter("connects", "connect commands answered", func(s *Stats) int64 { return s.Opened }),
	counter("resumes", "connects that continued a session", func(s *Stats) int64 { return s.Resumed }),
	counter("bad_tokens", "tokens refused", func(s *Stats) int64 { return s.BadTokens }),
	counter("commands", "commands of clients", func(s *Stats) int64 { return s.Commands }),
	counter("refusals", "error replies", func(s *Stats) int64 { return s.Refused }),
	counter("rate_limited", "commands over a rate limit", func(s *Stats) int64 { return s.RateLimited }),
	counter("pings", "pings sent", func(s *Stats) int64 { return s.Pings }),
	counter("deliveries", "presences sent to sockets", func(s *Stats) int64 { return s.Deliveries }),
	counter("presence_frames", "frames that presences were sent in", func(s *Stats) int64 { return s.Frames }),
	counter("withheld", "views not sent because the client has them: the shard's new leader sees what the last one saw", func(s *Stats) int64 { return s.Withheld }),
	counter("coalesced", "changes replaced by a newer one before they were sent", func(s *Stats) int64 { return s.Merged }),
	counter("stale", "messages dropped for an old term or version", func(s *Stats) int64 { return s.Stale }),
	counter("slow", "sockets closed because they did not read", func(s *Stats) int64 { return s.Slow }),
	counter("announcements", "shards announced to a core", func(s *Stats) int64 { return s.Announced }),
	counter("outbox_entries", "outbox entries sent to sockets", func(s *Stats) int64 { return s.Entries }),
	counter("outbox_withheld", "outbox entries not sent again to sockets that had yet to read them", func(s *Stats) int64 { return s.Redelivered }),
	counter("publish_retries", "publishes sent again to a shard", func(s *Stats) int64 { return s.Retried }),
	counter("views_lapsed", "views marked stale or unknown because their shard could not be reached", func(s *Stats) int64 { return s.Lapsed }),
	counter("unknown", "messages of cores that this build does not know: a newer one sent them", func(s *Stats) int64 { return s.Unknown }),
	counter("panics", "panics in hubs", func(s *Stats) int64 { return s.Panics }),
}

var closesDesc = prometheus.NewDesc("muster_edge_closes_total", "sockets closed by the server, by close code", []string{"code"}, nil)

// Describe sends the metrics' descriptions.
func (e *Edge) Describe(to chan<- *prometheus.Desc) {
	for _, m := range metrics {
		to <- m.desc
	}
	to <- closesDesc
}

// Collect sends the metrics.
func (e *Edge) Collect(to chan<- prometheus.Metric) {
	s := e.Stats()
	for _, m := range metrics {
		to <- prometheus.MustNewConstMetric(m.desc, m.kind, float64(m.value(&s)))
	}
	for code, n := range s.Closes {
		to <- prometheus.MustNewConstMetric(closesDesc, prometheus.CounterValue, float64(n), strconv.Itoa(int(code)))
	}
}
