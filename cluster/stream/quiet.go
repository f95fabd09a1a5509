package stream

import (
	"log/slog"
	"sync"
	"time"
)

const (
	repeatEvery = 10 * time.Second
	maxSubjects = 1024
)

// quiet logs what happens again and again once per subject and 10 s.
type quiet struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]time.Time
}

func (q *quiet) warn(what, subject string, attrs ...any) {
	q.mu.Lock()
	now, key := time.Now(), what+" "+subject
	again := now.Sub(q.seen[key]) < repeatEvery
	if !again {
		if len(q.seen) >= maxSubjects {
			clear(q.seen)
		}
		q.seen[key] = now
	}
	q.mu.Unlock()
	if !again {
		q.log.Warn("stream: "+what, attrs...)
	}
}
