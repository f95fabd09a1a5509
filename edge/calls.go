package edge

import (
	"context"
	"errors"

	"muster/actors/link"
)

// call is a question to a shard that is not answered yet. answer gets nil when the
// time is over, or the shard's core has gone and the question may not be put twice.
type call struct {
	answer func(*link.Down)
	shard  uint32
	again  *link.Up // what may be sent again; nil: nothing
	waits  bool     // for the shard to open
}

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
func (h *hub) expect(shard uint32, class int, answer func(*link.Down)) uint64 {
	n := h.edge.calls.Add(1)
	after := h.edge.cfg.SnapshotWait
	if class == long {
		after = h.edge.cfg.AttachTimeout
	}
	at := h.edge.clock() + after.Milliseconds()
	h.calls[n] = &call{answer: answer, shard: shard}
	q := &h.queues[class]
	q.list = append(q.list, deadline{at, n})
	if h.armed > at {
		h.armed = 0
	}
	return n
}

// answered gives an answer to whom it is for; one that comes too late is nobody's. A question that may be put twice
// waits for the shard's next core when this one has lost it.
func (h *hub) answered(n uint64, m *link.Down) bool {
	c := h.calls[n]
	if c == nil {
		return false
	}
	if m != nil && c.again != nil && !c.waits && moved(m) {
		h.wait(c.shard, n, c.again)
		return true
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

// ask sends the question of an API call. A process that has just begun, and has not heard of a leader of the shard yet, does not keep
// its caller waiting: another one can answer.
func (h *hub) ask(m *asked) {
	if h.shards[m.up.Shard].term == 0 {
		m.reply <- nil
		return
	}
	n := h.expect(m.up.Shard, long, func(d *link.Down) { m.reply <- d })
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

// moved reports an answer that says that the shard is not there.
func moved(m *link.Down) bool {
	return m.GetAttached().GetCode() == link.Code_MOVING || m.GetAnswer().GetCode() == link.Code_MOVING
}

// upSoon sends a question now, or when the shard can be reached while the call lives. Reads and attaches are sent
// again when the shard's core has gone before it has answered.
func (h *hub) upSoon(n uint32, call uint64, m *link.Up) {
	switch m.Body.(type) {
	case *link.Up_Attach, *link.Up_Ask, *link.Up_Query:
		h.calls[call].again = &link.Up{Body: m.Body} // the link keeps m
	}
	h.calls[call].waits = false
	if !h.up(n, m) {
		h.wait(n, call, m)
	}
}

// wait keeps a question until the shard opens.
func (h *hub) wait(n uint32, call uint64, m *link.Up) {
	sh := h.shards[n]
	for len(sh.waiting) > 0 && h.calls[sh.waiting[0].call] == nil {
		sh.waiting = sh.waiting[1:]
	}
	sh.waiting = append(sh.waiting, waiting{call, m})
	h.calls[call].waits = true
}
