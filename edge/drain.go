package edge

import (
	"context"
	"math/rand/v2"
	"time"

	"muster/clients/wire"
)

const (
	drainStep  = 100 * time.Millisecond
	drainRetry = 1000            // ms, at most, that a client is told to wait
	drainStay  = 10_000          // ms that an old socket stays after that, for the new one to take over
	drainRest  = 8 * time.Second // from the end of the window to the close of all that is left
)

// Ready reports why the edge takes no new connections; nil if it does.
func (e *Edge) Ready() error {
	switch {
	case e.draining.Load():
		return errDraining
	case !e.Linked():
		return ErrUnreachable
	}
	return nil
}

// Drain sends every client away, spread over the drain window, and returns when all have gone, 28 s after the call by
// default, or when ctx ends: then the rest is closed at once, and the error is ctx's. Sessions keep 60 s to resume elsewhere.
func (e *Edge) Drain(ctx context.Context) error {
	e.draining.Store(true)
	var list []*socket
	e.sockets.each(func(s *socket) { list = append(list, s) })
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	began := time.Now()
	sent := 0
	for e.sockets.count.Load() > 0 {
		age := time.Since(began)
		due := len(list)
		if age < e.cfg.DrainWindow {
			due = int(int64(len(list)) * int64(age) / int64(e.cfg.DrainWindow))
		}
		for ; sent < due; sent++ {
			list[sent].sendAway()
		}
		if age >= e.cfg.DrainWindow+drainRest || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	e.sockets.each(func(s *socket) { s.close(closeDrained) })
	for end := time.Now().Add(closeAfter*time.Millisecond + 2*tick); e.sockets.count.Load() > 0 && time.Now().Before(end); {
		<-ticker.C
	}
	return ctx.Err()
}

// sendAway asks a client to open a new socket before this one closes.
func (s *socket) sendAway() {
	if s.phase() != live {
		s.close(closeDrained)
		return
	}
	retry := rand.Int64N(drainRetry)
	s.push(&wire.Push{Reconnect: &wire.ReconnectPush{
		Code: uint32(wire.CloseDrain), Reason: wire.CloseDrain.Reason(), RetryAfterMs: uint64(retry),
	}})
	at := s.edge.clock() + retry + drainStay
	s.deadline.Store(at)
	s.edge.wheel.arm(s, at)
}
