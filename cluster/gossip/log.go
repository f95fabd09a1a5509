package gossip

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	quiet    = 30 * time.Second // one line per key in this time
	maxKeys  = 256
	maxLine  = 300
	keyBytes = 24
)

// limited writes one line per key each 30 s and says how many it left out.
type limited struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]said
}

type said struct {
	at      time.Time
	omitted int
}

func newLimited(log *slog.Logger) *limited {
	return &limited{log: log, said: map[string]said{}}
}

func (l *limited) say(level slog.Level, key, text string, args ...any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	now := time.Now()
	l.mu.Lock()
	before, ok := l.said[key]
	if ok && now.Sub(before.at) < quiet {
		before.omitted++
		l.said[key] = before
		l.mu.Unlock()
		return
	}
	if len(l.said) >= maxKeys {
		clear(l.said)
	}
	l.said[key] = said{at: now}
	l.mu.Unlock()
	if before.omitted > 0 {
		args = append(args, "omitted", before.omitted)
	}
	l.log.Log(context.Background(), level, "gossip: "+text, args...)
}

// memberlistLog takes memberlist's lines: "[LEVEL] memberlist: text". Its errors say that one exchange failed, which
// gossip is made to survive: they are warnings here. The start of the text is the key, as names and addresses come later.
type memberlistLog struct{ l *limited }

func (w memberlistLog) Write(line []byte) (int, error) {
	level, text := slog.LevelWarn, strings.TrimSpace(string(line))
	if tag, rest, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(tag, "[") {
		text = rest
		switch tag {
		case "[DEBUG":
			level = slog.LevelDebug
		case "[INFO":
			level = slog.LevelInfo
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	if strings.HasPrefix(text, "ignoring alive message") || strings.HasPrefix(text, "Failed push/pull merge") {
		level = slog.LevelDebug // the delegate has said why
	}
	text = text[:min(len(text), maxLine)]
	w.l.say(level, text[:min(len(text), keyBytes)], text)
	return len(line), nil
}
