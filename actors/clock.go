package actors

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	turn     = time.Second            // of the node's loop: beats, leases, storm counts
	lateness = 500 * time.Millisecond // that is ordinary
	slew     = 100                    // the clock is corrected by at most 1/slew
)

// clock is wall time at start plus monotonic time, corrected by at most 1 %. When the
// process stood still the clock did too: what exceeds an ordinary delay of the node's
// loop is added to every deadline by not letting that time pass. It never goes back.
type clock struct {
	base   time.Time    // with its monotonic reading
	turned atomic.Int64 // monotonic ns of the loop's last turn
	offset atomic.Int64 // ns, added to base + monotonic

	mu    sync.Mutex
	stood time.Duration // in all
}

func newClock() *clock { return &clock{base: time.Now()} }

// Now is the shell's time.
func (c *clock) Now() time.Time {
	mono := time.Since(c.base)
	if mono-time.Duration(c.turned.Load()) > turn+lateness {
		c.stand(mono)
	}
	return c.base.Round(0).Add(mono + time.Duration(c.offset.Load()))
}

// stand leaves out the time that passed since the loop should have turned.
func (c *clock) stand(mono time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := mono - time.Duration(c.turned.Load()) - turn - lateness; d > 0 {
		c.offset.Add(int64(-d))
		c.turned.Store(int64(mono) - int64(turn+lateness))
		c.stood += d
	}
}

// turn is called by the node's loop each second.
func (c *clock) turn() {
	c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	mono := time.Since(c.base)
	most := (mono - time.Duration(c.turned.Load())) / slew
	c.turned.Store(int64(mono))
	wall := time.Now().Round(0).Sub(c.base.Round(0)) - mono
	c.offset.Add(int64(min(max(wall-time.Duration(c.offset.Load()), -most), most)))
}
