package stream

import (
	"context"
	"sync"
)

// cost of a waiting envelope in bytes.
func cost(e envelope) int { return 64 + len(e.payload) }

// queue is what waits for one stream of an epoch.
type queue struct {
	limit int // bytes

	mu      sync.Mutex
	waiting []envelope
	taken   int // of waiting
	bytes   int
	closed  bool
	wake    chan struct{} // something waits
	room    chan struct{} // closed when something was taken; nil: nobody asks
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// put adds one; it may pass the limit only when nothing else waits.
func (q *queue) put(e envelope) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrDown
	}
	if q.bytes > 0 && q.bytes+cost(e) > q.limit {
		return ErrFull
	}
	q.waiting = append(q.waiting, e)
	q.bytes += cost(e)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// wait is put that waits for room.
func (q *queue) wait(ctx context.Context, e envelope) error {
	for {
		err := q.put(e)
		if err != ErrFull {
			return err
		}
		q.mu.Lock()
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room, now := q.room, q.closed || q.bytes == 0
		q.mu.Unlock()
		if now {
			continue
		}
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take moves a frame's worth into into; false when the queue is closed.
func (q *queue) take(into []envelope) ([]envelope, bool) {
	for range q.wake {
		q.mu.Lock()
		n, size := q.taken, 0
		for n < len(q.waiting) && (n == q.taken || size+q.waiting[n].size() <= frameBytes) {
			size += q.waiting[n].size()
			q.bytes -= cost(q.waiting[n])
			n++
		}
		some := n > q.taken
		into = append(into, q.waiting[q.taken:n]...)
		clear(q.waiting[q.taken:n])
		q.taken = n
		rest := len(q.waiting) - n
		if rest <= n {
			copy(q.waiting, q.waiting[n:])
			clear(q.waiting[rest:])
			q.waiting, q.taken = q.waiting[:rest], 0
			if rest == 0 && cap(q.waiting) > 256 {
				q.waiting = nil
			}
		}
		q.free()
		if rest > 0 && !q.closed {
			select {
			case q.wake <- struct{}{}:
			default:
			}
		}
		q.mu.Unlock()
		if some {
			return into, true
		}
	}
	return into, false
}

func (q *queue) free() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// close drops what waits.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed, q.waiting, q.taken, q.bytes = true, nil, 0, 0
		q.free()
		close(q.wake)
	}
}
