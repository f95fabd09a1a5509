package edge

import (
	"sync"
	"time"
)

const (
	tick       = 250 * time.Millisecond
	wheelSlots = 1024 // 256 s; what is further away is looked at again on the way
)

// wheel calls fire for each socket at its next deadline. A deadline that moves later is not moved
// in the wheel: fire is called early, finds nothing due and says when to call next.
type wheel struct {
	mu    sync.Mutex
	slots [wheelSlots][]uint32
	now   int64 // the last tick that was handled
}

func tickOf(ms int64) int64 { return (ms + tick.Milliseconds() - 1) / tick.Milliseconds() }

// arm makes sure that s is looked at no later than at (clock ms), and up to one tick after.
func (w *wheel) arm(s *socket, at int64) {
	t := tickOf(at)
	w.mu.Lock()
	defer w.mu.Unlock()
	t = min(max(t, w.now+1), w.now+wheelSlots-1)
	if s.slot != 0 && s.slot <= t {
		return
	}
	s.slot = t
	w.slots[t%wheelSlots] = append(w.slots[t%wheelSlots], s.idx)
}

// due takes the sockets out of the next slot; false when now has been reached.
func (w *wheel) due(now int64, sockets *table, into []*socket) (list []*socket, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.now >= now/tick.Milliseconds() {
		return into[:0], false
	}
	w.now++
	slot := &w.slots[w.now%wheelSlots]
	into = into[:0]
	for _, i := range *slot {
		// Numbers of sockets that are gone, or that were armed for earlier since, are left over here.
		if s := sockets.get(i); s != nil && s.slot == w.now {
			s.slot = 0
			into = append(into, s)
		}
	}
	*slot = nil
	return into, true
}

// turn runs the wheel, and once a second the edge's beat, until done is closed.
func (e *Edge) turn() {
	defer e.running.Done()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var list []*socket
	beat := int64(0)
	for {
		select {
		case <-e.done:
			return
		case <-ticker.C:
		}
		now := e.clock()
		for more := true; more; {
			list, more = e.wheel.due(now, &e.sockets, list)
			for _, s := range list {
				if next := s.fire(now); next > 0 {
					e.wheel.arm(s, next)
				}
			}
		}
		clear(list)
		if now/1000 != beat {
			beat = now / 1000
			e.second(beat)
		}
	}
}

// fire does what is due for a socket and returns when to look again, 0 for never.
func (s *socket) fire(now int64) int64 {
	cfg := &s.edge.cfg
	switch s.phase() {
	case closed:
		return 0
	case closing:
		if now >= s.deadline.Load() {
			s.shut()
			return 0
		}
		return s.deadline.Load()
	case fresh:
		if by := s.born + cfg.ConnectTimeout.Milliseconds(); now < by {
			return by
		}
		s.close(closeNoConnect)
		return s.deadline.Load()
	}
	if at := s.expires.Load(); at != 0 && now >= at {
		s.close(closeTokenExpired)
		return s.deadline.Load()
	}
	if s.out.fullSince() != 0 && now >= s.out.fullSince()+slowAfter || s.out.over() {
		s.edge.count.slow.Add(1)
		s.close(closeSlow)
		return s.deadline.Load()
	}
	if d := s.deadline.Load(); d != 0 && now >= d {
		s.close(closeDrained)
		return s.deadline.Load()
	}
	next, alive := s.heartbeat(now)
	if !alive {
		s.close(closeNoPong)
		return s.deadline.Load()
	}
	for _, at := range [...]int64{s.idle(now), s.expires.Load(), s.deadline.Load()} {
		if at != 0 {
			next = min(next, at)
		}
	}
	if f := s.out.fullSince(); f != 0 {
		next = min(next, f+slowAfter)
	}
	return next
}

// heartbeat pings when it is time, and reports whether the last ping was answered in time.
func (s *socket) heartbeat(now int64) (next int64, alive bool) {
	cfg := &s.edge.cfg
	if s.pinged != 0 {
		due := s.pinged + cfg.PongTimeout.Milliseconds()
		switch {
		case s.heard.Load() >= s.pinged:
			s.pinged, s.nextPing = 0, s.nextPing+s.interval()
		case now >= due:
			return 0, false
		default:
			return due, true
		}
	}
	if now < s.nextPing {
		return s.nextPing, true
	}
	s.pinged, s.nextPing = now, now
	s.out.write(pingFrame, true, now)
	s.edge.count.pings.Add(1)
	return now + cfg.PongTimeout.Milliseconds(), true
}

// interval is 80 to 100 % of the ping interval, another for each ping of each socket.
func (s *socket) interval() int64 {
	full := s.edge.cfg.PingInterval.Milliseconds()
	mix := (s.conn + uint64(s.nextPing)) * 0x9e3779b97f4a7c15 >> 40
	return full - int64(mix%uint64(full/5+1))
}

// idle tells the hub when the user has given no input for long enough. It returns when to
// look again, 0 for never.
func (s *socket) idle(now int64) int64 {
	if s.has(isAway) || s.phase() != live {
		return 0
	}
	at := s.active.Load() + s.edge.cfg.IdleAfter.Milliseconds()
	if now < at {
		return at
	}
	s.home().tell(&idleDue{s})
	return now + tick.Milliseconds()
}
