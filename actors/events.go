package actors

import (
	"bytes"
	"cmp"
	"errors"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

var errStopped = errors.New("actors: the node stops")

// request is asked of an open shard from outside: do answers by done, once.
type request struct {
	do   func(g *gateway, now time.Time)
	done func(error)
}

func (r *request) run(g *gateway, now time.Time) { r.do(g, now) }

const maxEvents = 1000 // in one page

// ReadEvents returns up to limit [1–1000] events of a shard that is open here, those with a seq
// greater than after, and the seq of the oldest event kept (0: there is none). It
// returns ErrNotLeader if the shard is not open.
func (n *Node) ReadEvents(shard uint32, after uint64, limit int) (events []*link.Event, first uint64, err error) {
	if shard >= link.Shards || n.terms[shard].Load() == 0 {
		return nil, 0, ErrNotLeader
	}
	visit := func(key []byte) (uint64, bool) {
		seq, fault := row.ParseSeq(key)
		err = cmp.Or(err, fault)
		return seq, fault == nil
	}
	span := row.EventsFrom(0)
	fault := n.store.Scan(shard, span.From, span.To, func(key, _ []byte) bool {
		first, _ = visit(key)
		return false
	})
	if err = cmp.Or(err, fault); err != nil || after+1 == 0 {
		return nil, 0, err
	}
	limit = min(max(limit, 1), maxEvents)
	events, fault = n.readEvents(shard, row.EventsFrom(after+1), limit)
	return events, first, fault
}

// readEvents reads events or letters.
func (n *Node) readEvents(shard uint32, span row.Range, limit int) (events []*link.Event, err error) {
	fault := n.store.Scan(shard, span.From, span.To, func(key, v []byte) bool {
		seq, wrong := row.ParseSeq(key)
		e, bad := row.DecodeEvent(v)
		if err = cmp.Or(wrong, bad); err != nil {
			return false
		}
		events = append(events, &link.Event{Seq: seq, App: e.Key.App, User: e.Key.User, Type: e.Event.Type, At: toMs(e.Event.At),
			Json: e.Event.JSON, Generation: e.Generation})
		return len(events) < limit
	})
	return events, cmp.Or(err, fault)
}

// HookCursor returns the seq of the last event of a shard that the webhook is done with;
// 0: of none.
func (n *Node) HookCursor(shard uint32) (uint64, error) {
	if shard >= link.Shards || n.terms[shard].Load() == 0 {
		return 0, ErrNotLeader
	}
	v, ok, err := n.store.Get(shard, row.CursorKey())
	if err != nil || !ok {
		return 0, err
	}
	return row.DecodeCursor(v)
}

// SetHookCursor moves the cursor to seq and keeps the events that were refused for good
// as letters. It is durable when it returns; it waits for that.
func (n *Node) SetHookCursor(shard uint32, seq uint64, dead []*link.Event) error {
	if shard >= link.Shards || n.stop == nil {
		return ErrNotLeader
	}
	writes := []Write{{Key: row.CursorKey(), Value: row.EncodeCursor(seq)}}
	for _, e := range dead {
		writes = append(writes, Write{Key: row.LetterKey(e.GetSeq()), Value: row.EncodeEvent(&row.StoredEvent{
			Key: presence.Key{App: e.GetApp(), User: e.GetUser()}, Generation: e.GetGeneration(),
			Event: presence.Event{Type: e.GetType(), At: unixMs(e.GetAt()), JSON: e.GetJson()}})})
	}
	result := make(chan error, 1)
	done := func(err error) { result <- err }
	n.post(shard, &request{done: done, do: func(g *gateway, now time.Time) {
		if err := g.propose(&flight{writes: writes, done: done}, now); err != nil {
			done(err)
		}
	}})
	select {
	case err := <-result:
		return err
	case <-n.stop:
		return errStopped
	}
}

const lettersKept = 30 * 24 * time.Hour

// dropEvents removes events and letters that are too old.
func (g *gateway) dropEvents(now time.Time) {
	g.dropUntil(row.EventsFrom(0), now.Add(-g.node.cfg.EventsKept))
	g.dropUntil(row.LettersFrom(0), now.Add(-lettersKept))
}

func (g *gateway) dropUntil(span row.Range, until time.Time) {
	var last []byte
	seen := 0
	g.must(g.node.store.Scan(g.shard, span.From, span.To, func(key, v []byte) bool {
		e, err := row.DecodeEvent(v)
		g.must(err)
		if e.Event.At.After(until) {
			return false
		}
		last = append(bytes.Clone(key), 0)
		seen++
		return seen < 10*maxEvents
	}))
	if last != nil {
		g.debris = append(g.debris, Write{Key: span.From, End: last})
	}
}

// waiting is a question for events that have not come yet.
type waiting struct {
	edge  presence.Edge
	call  uint64
	page  *link.EventsPage
	until time.Time
}

const (
	longPoll   = 25 * time.Second
	maxWaiting = 1000 // questions of a shard
)

// askEvents answers with events, or when there are some.
func (g *gateway) askEvents(e presence.Edge, call uint64, p *link.EventsPage, now time.Time) {
	if p.GetWait() && p.GetAfter() >= g.events && len(g.waiting) < maxWaiting {
		g.waiting = append(g.waiting, waiting{e, call, p, now.Add(longPoll)})
		return
	}
	g.answerEvents(e, call, p)
}

func (g *gateway) answerEvents(e presence.Edge, call uint64, p *link.EventsPage) {
	limit := min(max(int(p.GetLimit()), 1), maxEvents)
	answer := &link.Answer{Call: call, Last: g.events, Generation: g.generation}
	events, first, err := g.node.ReadEvents(g.shard, p.GetAfter(), limit)
	if err != nil {
		answer.Code, answer.Message = link.Code_UNAVAILABLE, err.Error()
	}
	answer.Events, answer.First, answer.More = events, first, len(events) == limit
	g.answer(e, answer)
}

// answerWaiting answers those who have waited long enough, or all.
func (g *gateway) answerWaiting(now time.Time, all bool) {
	kept := g.waiting[:0]
	for _, w := range g.waiting {
		if all || !now.Before(w.until) {
			g.answerEvents(w.edge, w.call, w.page)
		} else {
			kept = append(kept, w)
		}
	}
	if g.waiting = kept; len(kept) == 0 {
		g.waiting = nil
	}
}

func (g *gateway) askLetters(e presence.Edge, call uint64, p *link.LettersPage) {
	limit := min(max(int(p.GetLimit()), 1), maxEvents)
	answer := &link.Answer{Call: call, Generation: g.generation}
	letters, err := g.node.readEvents(g.shard, row.LettersFrom(p.GetAfter()+1), limit)
	if err != nil {
		answer.Code, answer.Message = link.Code_UNAVAILABLE, err.Error()
	}
	answer.Events, answer.More = letters, len(letters) == limit
	g.answer(e, answer)
}
