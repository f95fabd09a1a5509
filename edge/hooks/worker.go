package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"muster/actors/link"
)

// worker sends the events of one shard, one batch at a time.
type worker struct {
	d     *Dispatcher
	shard uint32
	term  uint64

	ctx    context.Context
	cancel context.CancelFunc
	news   chan struct{} // there are new events
	back   chan rewind
	done   chan struct{}

	cursor uint64
	sent   time.Time    // when the last batch was
	oldest atomic.Int64 // Unix ms of the oldest event that waits; 0: none
}

// rewind is an order to go back.
type rewind struct {
	seq  uint64
	done chan error
}

// errBack ends what a worker does because it was sent back.
var errBack = errors.New("hooks: sent back")

func (w *worker) run() {
	defer w.oldest.Store(0)
	for try := 1; ; try++ {
		var err error
		if w.cursor, err = w.d.cfg.Source.HookCursor(w.shard); err == nil {
			break
		}
		if w.wait(backOff(try), false) != nil && w.ctx.Err() != nil {
			return
		}
	}
	for try := 1; w.ctx.Err() == nil; try++ {
		switch err := w.step(); {
		case err == nil || errors.Is(err, errBack):
			try = 0
		case w.ctx.Err() == nil:
			w.d.cfg.Log.Warn("webhook: the shard's events cannot be read now", "shard", w.shard, "error", err)
			w.wait(backOff(try), false)
		}
	}
}

// step sends the next batch, or waits for one.
func (w *worker) step() error {
	events, missed, err := w.read()
	if err != nil {
		return err
	}
	if len(events) == 0 {
		w.oldest.Store(0)
		return w.wait(poll, true)
	}
	w.oldest.Store(events[0].At)
	if rest := interval - time.Since(w.sent); len(events) < maxBatch && rest > 0 {
		if err := w.wait(rest, false); err != nil {
			return err
		}
		if events, missed, err = w.read(); err != nil || len(events) == 0 {
			return err
		}
	}
	dead, err := w.deliver(events, missed)
	w.sent = time.Now()
	if err != nil {
		return err
	}
	last := events[len(events)-1].Seq
	if err := w.d.cfg.Source.SetHookCursor(w.shard, last, dead); err != nil {
		return err // they are sent again
	}
	w.cursor = last
	return nil
}

// gap is a range of events that were dropped before they could be sent.
type gap struct {
	From uint64 `json:"from_seq"`
	To   uint64 `json:"to_seq"`
}

func (w *worker) read() (events []*link.Event, missed *gap, err error) {
	events, first, err := w.d.cfg.Source.ReadEvents(w.shard, w.cursor, maxBatch)
	if err != nil || len(events) == 0 {
		return nil, nil, err
	}
	if w.cursor > 0 && first > w.cursor+1 {
		missed = &gap{w.cursor + 1, first - 1}
	}
	return events, missed, nil
}

// wait ends after a time, when the shard is closed, when the worker is sent back and, if it is to, when there are new events.
func (w *worker) wait(d time.Duration, news bool) error {
	var events <-chan struct{}
	if news {
		events = w.news
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-events:
	case r := <-w.back:
		err := w.rewind(r.seq)
		r.done <- err
		if err == nil {
			return errBack
		}
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	return nil
}

// rewind moves the cursor back, never on.
func (w *worker) rewind(seq uint64) error {
	if seq >= w.cursor {
		return nil
	}
	if err := w.d.cfg.Source.SetHookCursor(w.shard, seq, nil); err != nil {
		return err
	}
	w.cursor = seq
	return nil
}

// Event is one event as the webhook gets it.
type Event struct {
	EventID string          `json:"event_id"` // shard, generation and seq: the same for ever
	Type    string          `json:"type"`
	App     string          `json:"app"`
	User    string          `json:"user"`
	At      int64           `json:"at"` // Unix ms
	Seq     uint64          `json:"seq"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// batch is the body of a request.
type batch struct {
	Events []Event `json:"events"`
	Shard  uint32  `json:"shard"`
	Missed *gap    `json:"missed,omitempty"`
}

// encode makes the body, and the id under which it is sent: the same at each try.
func (w *worker) encode(events []*link.Event, missed *gap) (id string, body []byte, err error) {
	b := batch{Shard: w.shard, Missed: missed, Events: make([]Event, len(events))}
	for i, e := range events {
		b.Events[i] = Event{
			EventID: fmt.Sprintf("%d-%d-%d", w.shard, e.Generation, e.Seq), Type: e.Type, App: e.App, User: e.User, At: e.At, Seq: e.Seq,
		}
		if e.Json != "" {
			b.Events[i].Data = json.RawMessage(e.Json)
		}
	}
	body, err = json.Marshal(&b)
	return fmt.Sprintf("%s_%d", b.Events[0].EventID, events[len(events)-1].Seq), body, err
}

// deliver sends a batch until it is taken, or has been refused for so long that it becomes dead letters.
func (w *worker) deliver(events []*link.Event, missed *gap) (dead []*link.Event, err error) {
	m, log := w.d.metrics, w.d.cfg.Log
	id, body, err := w.encode(events, missed)
	if err != nil {
		log.Error("webhook: events that are not JSON become dead letters", "shard", w.shard, "id", id, "error", err)
		m.events.WithLabelValues("dead").Add(float64(len(events)))
		return events, nil
	}
	newest := time.UnixMilli(events[len(events)-1].At)
	var failing time.Time // since when
	defer func() {
		if !failing.IsZero() {
			m.failing.Dec()
		}
	}()
	for try := 1; ; try++ {
		began := time.Now()
		retryAfter, err := w.d.sender.post(w.ctx, id, body, nil, 0)
		m.request(err, time.Since(began))
		if err == nil {
			m.events.WithLabelValues("delivered").Add(float64(len(events)))
			if !failing.IsZero() {
				log.Info("webhook: taken again", "shard", w.shard, "tries", try)
			}
			return nil, nil
		}
		if w.ctx.Err() != nil {
			return nil, w.ctx.Err()
		}
		if failing.IsZero() {
			failing = began
			m.failing.Inc()
			log.Warn("webhook: not taken, will be tried again", "shard", w.shard, "events", len(events), "error", err)
		}
		if now := time.Now(); now.Sub(newest) >= giveUp && now.Sub(failing) >= patience {
			log.Error("webhook: given up; see /v1/events/dead", "shard", w.shard, "events", len(events), "tries", try, "error", err)
			m.events.WithLabelValues("dead").Add(float64(len(events)))
			return events, nil
		}
		if err := w.wait(max(backOff(try), min(retryAfter, giveUp)), false); err != nil {
			return nil, err
		}
	}
}

// backOff is how long to wait after the n-th failure, from 1: at random up to 100 ms, then to twice as much each time,
// up to 20 s.
func backOff(n int) time.Duration {
	most := longPause
	if n < 9 {
		most = min(firstPause<<(max(n, 1)-1), longPause)
	}
	return max(rand.N(most), time.Millisecond)
}
