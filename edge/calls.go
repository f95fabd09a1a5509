package edge

import (
	"context"
	"errors"

	"muster/actors/link"
)

// call is a question to the core that is not answered yet. answer gets nil when the
// time is over.
type call struct{ answer func(*link.Down) }

// queue holds calls of one time-out, so that it is in order of time.
type queue struct{ list []deadline }

type deadline struct {
	at   int64
	call uint64
}

const (
	short = iota // SnapshotWait
	long         // AttachTimeout
)

// expect registers a call and returns its number.
func (h *hub) expect(class int, answer func(*link.Down)) uint64 {
	n := h.edge.calls.Add(1)
	after := h.edge.cfg.SnapshotWait
	if class == long {
		after = h.edge.cfg.AttachTimeout
	}
	at := h.edge.clock() + after.Milliseconds()
	h.calls[n] = &call{answer}
	q := &h.queues[class]
	q.list = append(q.list, deadline{at, n})
	if h.armed > at {
		h.armed = 0
	}
	return n
}

// answered gives an answer to whom it is for; one that comes too late is nobody's.
func (h *hub) answered(n uint64, m *link.Down) bool {
	c := h.calls[n]
	if c == nil {
		return false
	}
	delete(h.calls, n)
	c.answer(m)
	return true
}

func (h *hub) expire(now int64) {
	for i := range h.queues {
		q := &h.queues[i]
		for len(q.list) > 0 && q.list[0].at <= now {
			n := q.list[0].call
			q.list = q.list[1:]
			h.answered(n, nil)
		}
	}
}

// nextExpiry is when the first open call runs out, 0 if there is none.
func (h *hub) nextExpiry() (at int64) {
	for i := range h.queues {
		q := &h.queues[i]
		for len(q.list) > 0 && h.calls[q.list[0].call] == nil {
			q.list = q.list[1:]
		}
		if len(q.list) == 0 {
			q.list = nil
		} else if at == 0 || q.list[0].at < at {
			at = q.list[0].at
		}
	}
	return at
}

// Errors of Call.
var (
	ErrUnreachable = errors.New("edge: the shard cannot be reached now")
	ErrTimeout     = errors.New("edge: the core did not answer in time")
)

// Call asks the core something for the HTTP API and waits for the answer, 2 s at most. up needs
// its shard and a body that carries a call number, which Call fills in.
func (e *Edge) Call(ctx context.Context, up *link.Up) (*link.Down, error) {
	if up.Shard >= shards {
		return nil, errors.New("edge: no such shard")
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.AttachTimeout)
	defer cancel()
	m := &asked{up: up, reply: make(chan *link.Down, 1)}
	e.hubOf(up.Shard).tell(m)
	select {
	case d := <-m.reply:
		if d == nil {
			return nil, ErrUnreachable
		}
		return d, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, ErrTimeout
		}
		return nil, ctx.Err()
	case <-e.done:
		return nil, ErrUnreachable
	}
}

// ask sends the question of an API call.
func (h *hub) ask(m *asked) {
	n := h.expect(long, func(d *link.Down) { m.reply <- d })
	switch b := m.up.Body.(type) {
	case *link.Up_Act:
		b.Act.Call = n
	case *link.Up_Ask:
		b.Ask.Call = n
	case *link.Up_Query:
		b.Query.Call = n
	case *link.Up_Room:
		b.Room.Call = n
	default:
		h.answered(n, nil)
		return
	}
	h.upSoon(m.up.Shard, n, m.up)
}

// upSoon sends a question now, or when the shard can be reached while the call lives.
func (h *hub) upSoon(n uint32, call uint64, m *link.Up) {
	if h.up(n, m) {
		return
	}
	sh := h.shards[n]
	for len(sh.waiting) > 0 && h.calls[sh.waiting[0].call] == nil {
		sh.waiting = sh.waiting[1:]
	}
	sh.waiting = append(sh.waiting, waiting{call, m})
}
