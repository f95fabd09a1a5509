package muster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"muster/clients/wire"
)

// Position is how far a device has processed its user's outbox. The zero Position is
// before the oldest entry kept.
type Position struct {
	Epoch  string // of the outbox's history
	Offset uint64 // of the last entry processed
}

// PositionStore keeps the position of one device. What it keeps is the device's memory: with a position that
// is lost, entries come again; with one that runs ahead, entries are lost.
//
// An application that must not process anything twice writes Delivery.Position in the same
// transaction as what it makes of the entry, reads it back in Load, and lets Save do nothing.
type PositionStore interface {
	// Load gives the position to go on from; Dial calls it once.
	Load(ctx context.Context) (Position, error)
	// Save notes that all up to p has been processed. It is called after the loop over
	// Deliveries came back for more, and before the server is told. If it fails it is called again, with back-off.
	Save(ctx context.Context, p Position) error
}

// MemoryPosition is a PositionStore that lasts as long as the program: then the next one
// gets the oldest entries kept, perhaps again. The zero value is ready to use.
type MemoryPosition struct {
	mu sync.Mutex
	p  Position
}

// Load gives what was saved last.
func (m *MemoryPosition) Load(context.Context) (Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.p, nil
}

// Save never fails.
func (m *MemoryPosition) Save(_ context.Context, p Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.p = p
	return nil
}

// Delivery is one step through the outbox. Exactly one of Entry, Gap and Reset is set.
type Delivery struct {
	// Position is where the outbox stands after this step.
	Position Position
	// Entry is a message to this user.
	Entry *Entry
	// Gap says that some entries will not come.
	Gap *Gap
	// Reset says that the history of the outbox was lost or purged, or that this device was away too long:
	// fetch the application's state anew. What is still kept follows.
	Reset bool

	era int // how many resets came before
}

// Entry is one message to a user.
type Entry struct {
	Offset      uint64
	ID          string // that it was published with
	From        string // who published it; "": the application
	Type        string // message, or notify_when: Body is {"user","state"}
	Class       string // critical, normal, presence
	At          time.Time
	Expires     time.Time
	CollapseKey string
	Body        json.RawMessage
}

// Gap is a range of offsets that will not come.
type Gap struct {
	From, To uint64
	Reason   string // acked (elsewhere), collapsed, purged; ttl and overflow: something was missed
}

// Outbox is the user's outbox as this device reads it.
type Outbox struct {
	c     *Client
	store PositionStore
	turn  chan struct{} // held by the loop over Deliveries
	wake  chan struct{} // holds a token when the queue may have grown

	mu    sync.Mutex
	queue []Delivery // the first one may be in the hands of the loop
	given Position   // of the last one queued
	any   bool       // the next entry may have any offset
	era   int
	done  Position // processed and saved, in the present era
	acked uint64   // offset that the server knows to be done
	fresh int      // processed since the last ack
	timer *time.Timer
}

// ackWithin is how long the server may not know what has been processed.
const ackWithin = time.Second

func newOutbox(ctx context.Context, c *Client, store PositionStore) (*Outbox, error) {
	p, err := store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("muster: the outbox position: %w", err)
	}
	if p.Offset > 0 && p.Epoch == "" {
		return nil, errors.New("muster: the outbox position has an offset without an epoch")
	}
	o := &Outbox{
		c: c, store: store, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		given: p, any: p.Offset == 0, done: p, acked: p.Offset,
	}
	o.timer = time.AfterFunc(time.Hour, o.ack)
	o.timer.Stop()
	return o, nil
}

// Position is how far this device has processed the outbox.
func (o *Outbox) Position() Position {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

// Deliveries goes over the outbox, across reconnects, until ctx or the client ends. Each entry comes once.
// It counts as processed, and is acked, when the loop comes back for the next one; one that the loop was left with,
// by break or return, is the first of the next loop. Only one loop runs at a time, another one waits for its end.
func (o *Outbox) Deliveries(ctx context.Context) iter.Seq[Delivery] {
	return func(yield func(Delivery) bool) {
		select {
		case o.turn <- struct{}{}:
			defer func() { <-o.turn }()
		case <-ctx.Done():
			return
		case <-o.c.closed:
			return
		}
		for {
			d, ok := o.next(ctx)
			if !ok || !yield(d) || !o.finish(ctx, d) {
				return
			}
		}
	}
}

// next waits for the first of the queue and leaves it there.
func (o *Outbox) next(ctx context.Context) (Delivery, bool) {
	for {
		if ctx.Err() != nil || isDone(o.c.closed) {
			return Delivery{}, false
		}
		o.mu.Lock()
		if len(o.queue) > 0 {
			defer o.mu.Unlock()
			return o.queue[0], true
		}
		o.mu.Unlock()
		select {
		case <-o.wake:
		case <-ctx.Done():
		case <-o.c.closed:
		}
	}
}

// finish saves that d, the first of the queue, was processed, and sees to its ack.
func (o *Outbox) finish(ctx context.Context, d Delivery) bool {
	for n := 0; ; n++ {
		err := o.store.Save(context.WithoutCancel(ctx), d.Position)
		if err == nil {
			break
		}
		o.c.o.Logger.Warn("muster: could not save the outbox position", "error", err)
		if !sleep(ctx, o.c.o.Backoff.random(n, 0), o.c.closed) {
			return false
		}
	}
	o.mu.Lock()
	if o.queue = o.queue[1:]; len(o.queue) == 0 {
		o.queue = nil
	}
	if d.era == o.era {
		o.done = d.Position
		o.fresh++
	}
	due := o.fresh >= wire.AckEvery
	if o.fresh == 1 {
		o.timer.Reset(ackWithin)
	}
	o.mu.Unlock()
	if due {
		o.ack()
	}
	return true
}

// ack tells the server what has been processed, if the connection is up; else connect will.
func (o *Outbox) ack() {
	if frame := o.owed(); frame != nil && !o.c.offer(frame) && o.c.Connected() {
		o.mu.Lock()
		o.acked, o.fresh = 0, 1 // the socket is full
		o.timer.Reset(ackWithin)
		o.mu.Unlock()
	}
}

// owed is the ack that is due, if any, for its caller to send.
func (o *Outbox) owed() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.timer.Stop()
	o.fresh = 0
	if o.done.Offset <= o.acked {
		return nil
	}
	o.acked = o.done.Offset
	ack := &wire.Ack{Outbox: o.done.Offset, Epoch: o.done.Epoch}
	return (&wire.Command{Method: &wire.Command_Ack{Ack: ack}}).AppendJSON(nil)
}

// declare is the position for connect.
func (o *Outbox) declare() *wire.OutboxPosition {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acked = o.done.Offset
	return &wire.OutboxPosition{Epoch: o.given.Epoch, Offset: o.done.Offset}
}

// take queues what is new in what the server says.
func (o *Outbox) take(m *wire.OutboxPush) {
	if m == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch := m.GetEpoch(); m.GetReset_() || o.given.Epoch != "" && epoch != o.given.Epoch {
		o.given, o.any = Position{Epoch: epoch}, true
		o.done, o.acked, o.fresh = o.given, 0, 0
		o.era++
		o.add(Delivery{Reset: true})
	} else if o.given.Epoch == "" {
		o.given.Epoch, o.done.Epoch = epoch, epoch
	}
	if g := m.GetGap(); g != nil && !o.skip(g) {
		return
	}
	for _, e := range m.GetEntries() {
		at := e.GetOffset()
		switch {
		case at > o.given.Offset && (o.any || at == o.given.Offset+1):
		case at <= o.given.Offset:
			continue
		default:
			o.c.o.Logger.Warn("muster: outbox entries are missing and will be sent again", "after", o.given.Offset, "got", at)
			return
		}
		if len(o.queue) >= 2*wire.OutboxWindow {
			return // a server that does not wait for acks; it sends them again
		}
		o.given.Offset = at
		o.add(Delivery{Entry: outboxEntry(e)})
	}
}

// skip goes on after a gap; false if it does not follow on what was given.
func (o *Outbox) skip(g *wire.OutboxGap) bool {
	from, to := max(g.GetFrom(), o.given.Offset+1), g.GetTo()
	switch {
	case to < from: // known
		return true
	case from > o.given.Offset+1 && !o.any:
		return false
	}
	first := o.given.Offset == 0
	o.given.Offset, o.any = to, false
	if first && g.GetReason() == "acked" { // before this device's time
		return true
	}
	o.add(Delivery{Gap: &Gap{From: from, To: to, Reason: g.GetReason()}})
	return true
}

func (o *Outbox) add(d Delivery) {
	d.Position, d.era = o.given, o.era
	o.any = d.Reset
	o.queue = append(o.queue, d)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func outboxEntry(e *wire.OutboxEntry) *Entry {
	d := &Entry{
		Offset: e.GetOffset(), ID: e.GetClientId(), From: e.GetFrom(), Type: e.GetType(), Class: e.GetClass(),
		At: instant(e.GetAt()), Expires: instant(e.GetExpiresAt()), CollapseKey: e.GetCollapseKey(),
	}
	if e.GetBody() != "" {
		d.Body = json.RawMessage(e.GetBody())
	}
	return d
}
