//go:build linux

package chaos

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
)

// measure samples what each server uses.
func (c *campaign) measure(ctx context.Context) {
	for name := range c.joined {
		n := c.nodes[name]
		if !n.running() {
			continue
		}
		m, err := c.metrics(ctx, n.place)
		if err != nil {
			continue // it may be gone by now; other checks say so
		}
		s := sample{
			Node: name, PID: n.pid(), At: c.now(), RSS: m["process_resident_memory_bytes"], Files: m["process_open_fds"] - m["muster_edge_conns"],
			Goroutines: m["go_goroutines"], Ahead: m["muster_core_resume_ahead_total"], Panics: m["muster_core_panics_total"],
		}
		c.note(func() { c.samples = append(c.samples, s) })
	}
}

// metrics reads /metrics; labelled series are summed under their name.
func (c *campaign) metrics(ctx context.Context, p place) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*callPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.api()+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.load.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	sums := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		series, value, ok := strings.Cut(lines.Text(), "} ")
		if !ok {
			series, value, _ = strings.Cut(lines.Text(), " ")
		}
		name, _, _ := strings.Cut(series, "{")
		if x, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(name, "#") {
			sums[name] += x
		}
	}
	return sums, lines.Err()
}
