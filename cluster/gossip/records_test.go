package gossip

import (
	"context"
	"log/slog"
	"strings"
)

// records is a slog handler that keeps what it gets.
type records struct{ p *peer }

func (r records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r records) WithGroup(string) slog.Handler            { return r }

func (r records) Handle(_ context.Context, rec slog.Record) error {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.lines = append(r.p.lines, rec)
	return nil
}

// said counts the lines of a level that hold text in message or attributes.
func (p *peer) said(level slog.Level, text string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rec := range p.lines {
		line := rec.Message
		rec.Attrs(func(a slog.Attr) bool {
			line += " " + a.String()
			return true
		})
		if rec.Level == level && strings.Contains(line, text) {
			n++
		}
	}
	return n
}
