package edge

import (
	"sync"
	"sync/atomic"
	"time"

	"muster/clients/wire"
)

// gcra is a token bucket in eight bytes: the clock time, in microseconds, at which it is full again.
// The zero gcra is a full bucket.
type gcra int64

// take takes one of burst tokens that come back at rate a second. If there is none it
// takes nothing and says how long to wait.
func (g *gcra) take(now time.Duration, rate, burst float64) (wait time.Duration, ok bool) {
	each := 1e6 / rate
	t := now.Microseconds()
	full := max(int64(*g), t)
	if early := full - t - int64(each*(burst-1)); early > 0 {
		return time.Duration(early) * time.Microsecond, false
	}
	*g = gcra(full + int64(each))
	return 0, true
}

// sharedGCRA is a gcra that several goroutines take from.
type sharedGCRA struct{ v atomic.Int64 }

func (g *sharedGCRA) take(now time.Duration, rate, burst float64) (wait time.Duration, ok bool) {
	for {
		old := g.v.Load()
		next := gcra(old)
		if wait, ok = next.take(now, rate, burst); !ok {
			return wait, false
		}
		if g.v.CompareAndSwap(old, int64(next)) {
			return 0, true
		}
	}
}

// Rate is a token bucket: so many a second, and so many at once.
type Rate struct {
	PerSecond float64
	Burst     float64
}

// gate decides who may come in.
type gate struct {
	mu    sync.Mutex
	fresh gcra
	again gcra
}

// admit takes from the bucket of new connections or from the larger one of resumes.
func (e *Edge) admit(resume bool) (wait time.Duration, ok bool) {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	now := time.Since(e.start)
	if resume {
		return e.gate.again.take(now, e.cfg.ResumeRate.PerSecond, e.cfg.ResumeRate.Burst)
	}
	return e.gate.fresh.take(now, e.cfg.ConnectRate.PerSecond, e.cfg.ConnectRate.Burst)
}

// abuse is how many times its limit a conn may ask before it is closed.
const abuse = 3

// ackShare is how many acks a conn may send for one command: it may ack each entry that it is given.
const ackShare = 10

// limit is a conn's own bucket, the wider one behind which it is closed, and that of its acks.
type limit struct{ soft, hard, acks gcra }

// spend charges one command to its conn and its user. close: the client does not heed
// error 111, or acks far more often than it need.
func (s *socket) spend(c *wire.Command) (wait time.Duration, ok, close bool) {
	cfg, now := &s.edge.cfg, time.Since(s.edge.start)
	r := cfg.CommandRate
	if c.GetAck() != nil {
		_, ok := s.limit.acks.take(now, ackShare*r.PerSecond, ackShare*r.Burst)
		return 0, ok, !ok
	}
	if _, ok := s.limit.hard.take(now, abuse*r.PerSecond, abuse*r.Burst); !ok {
		return 0, false, true
	}
	if wait, ok = s.limit.soft.take(now, r.PerSecond, r.Burst); !ok {
		return wait, false, false
	}
	if s.who != nil {
		wait, ok = s.who.limit.take(now, cfg.UserRate.PerSecond, cfg.UserRate.Burst)
	}
	return wait, ok, false
}
