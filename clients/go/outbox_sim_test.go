package muster

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"muster/clients/wire"
)

// outboxWorld is a server's outbox with one reader, and an application that writes its position with what it made of
// an entry. Pushes get lost, come again and late, sockets and programs end, and history is purged.
type outboxWorld struct {
	t    *testing.T
	r    *rand.Rand
	seed uint64

	epoch int
	head  uint64
	gone  map[uint64]bool // of this epoch
	acked uint64
	next  uint64
	cut   bool               // pushes are lost, until what is not acked is sent again
	old   []*wire.OutboxPush // pushes of this socket, for repeating

	store MemoryPosition
	o     *Outbox

	seen   map[string]int // entries by epoch and offset
	told   map[string]bool
	last   Position
	resets int
}

func TestOutboxSim(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	total := map[string]int{}
	for seed := range seeds {
		w := &outboxWorld{t: t, r: rand.New(rand.NewPCG(seed, 3)), seed: seed, seen: map[string]int{}, told: map[string]bool{}}
		w.purge()
		w.start()
		steps := []struct {
			name   string
			weight int
			do     func()
		}{
			{"publish", 30, func() { w.head++ }},
			{"expire", 4, w.expire},
			{"deliver", 30, func() { w.deliver(true) }},
			{"lose", 4, func() { w.deliver(false) }},
			{"again", 4, func() { w.next, w.cut = w.acked, false }},
			{"repeat", 4, w.repeat},
			{"process", 30, func() { w.process(w.r.IntN(6)) }},
			{"ack", 8, w.ack},
			{"reconnect", 3, w.connect},
			{"restart", 2, w.start},
			{"purge", 1, w.purge},
		}
		for range 400 {
			n := w.r.IntN(120)
			for _, s := range steps {
				if n -= s.weight; n < 0 {
					total[s.name]++
					s.do()
					break
				}
			}
			if t.Failed() {
				return
			}
		}
		w.settle()
	}
	for _, name := range []string{"publish", "expire", "deliver", "lose", "again", "repeat", "process", "ack", "reconnect", "restart", "purge"} {
		if total[name] == 0 {
			t.Errorf("never happened: %s", name)
		}
	}
}

func (w *outboxWorld) name() string { return fmt.Sprintf("e%d", w.epoch) }

// start is a program that begins, after the one before was killed.
func (w *outboxWorld) start() {
	c := &Client{o: Options{Logger: slog.New(slog.DiscardHandler)}, closed: make(chan struct{})}
	o, err := newOutbox(w.t.Context(), c, &w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	w.o = o
	w.connect()
}

func (w *outboxWorld) connect() {
	w.old, w.cut = nil, false
	p := w.o.declare()
	m := &wire.OutboxPush{Epoch: w.name(), Head: w.head}
	switch {
	case p.Epoch == "":
		w.next = 0
		for w.gone[w.next+1] {
			w.next++
		}
	case p.Epoch != w.name():
		m.Reset_, w.next = true, 0
	default:
		w.next = p.Offset
		if p.Offset > w.head || p.Offset != w.done() && p.Offset != 0 {
			w.t.Errorf("seed %d: resumes from %v, %d is processed and %d the head", w.seed, p, w.done(), w.head)
		}
	}
	w.acked = w.next
	w.o.take(m)
}

func (w *outboxWorld) done() uint64 {
	if w.store.p.Epoch != w.name() {
		return 0
	}
	return w.store.p.Offset
}

func (w *outboxWorld) purge() {
	w.epoch++
	w.head, w.gone, w.acked, w.next = 0, map[uint64]bool{}, 0, 0
	if w.o != nil {
		w.push(&wire.OutboxPush{Epoch: w.name(), Reset_: true}, w.r.IntN(3) > 0)
	}
}

func (w *outboxWorld) expire() {
	if w.head > 0 {
		w.gone[1+w.r.Uint64N(w.head)] = true
	}
}

// deliver pushes what comes next: a gap, and a few entries after it.
func (w *outboxWorld) deliver(arrives bool) {
	m := &wire.OutboxPush{Epoch: w.name(), Head: w.head}
	for w.next < w.head && w.gone[w.next+1] {
		if m.Gap == nil {
			m.Gap = &wire.OutboxGap{From: w.next + 1, Reason: "ttl"}
		}
		w.next++
		m.Gap.To = w.next
	}
	for n := w.r.IntN(5); n > 0 && w.next < w.head && !w.gone[w.next+1]; n-- {
		w.next++
		m.Entries = append(m.Entries, &wire.OutboxEntry{Offset: w.next, Body: fmt.Sprintf("%q", w.name())})
	}
	w.push(m, arrives)
}

func (w *outboxWorld) push(m *wire.OutboxPush, arrives bool) {
	// What comes first in an epoch is known only by being first, so that it is not lost alone.
	if w.cut = w.cut || !arrives && (m.Reset_ || w.o.any || w.o.given.Epoch != m.Epoch); !w.cut && arrives {
		w.old = append(w.old, m)
		w.o.take(m)
	}
}

// repeat gives a push of the present epoch again.
func (w *outboxWorld) repeat() {
	if len(w.old) > 0 {
		if m := w.old[w.r.IntN(len(w.old))]; m.Epoch == w.name() && !m.Reset_ {
			w.o.take(m)
		}
	}
}

func (w *outboxWorld) process(n int) {
	for ; n > 0 && len(w.o.queue) > 0; n-- {
		d, _ := w.o.next(w.t.Context())
		switch key := fmt.Sprint(d.Position); {
		case d.Reset:
			w.resets++
			w.last = d.Position
		case d.Position.Epoch != w.last.Epoch && w.last.Epoch != "" || d.Position.Epoch == w.last.Epoch && d.Position.Offset <= w.last.Offset:
			w.t.Errorf("seed %d: %+v after %v", w.seed, d, w.last)
		case d.Gap != nil:
			for at := d.Gap.From; at <= d.Gap.To; at++ {
				w.told[fmt.Sprint(Position{d.Position.Epoch, at})] = true
			}
		default:
			if w.seen[key]++; w.seen[key] > 1 || string(d.Entry.Body) != fmt.Sprintf("%q", d.Position.Epoch) {
				w.t.Errorf("seed %d: %+v %s, %d times", w.seed, d, d.Entry.Body, w.seen[key])
			}
		}
		w.last = d.Position
		w.o.finish(w.t.Context(), d)
	}
}

func (w *outboxWorld) ack() {
	frame := w.o.owed()
	if frame == nil {
		return
	}
	var cmd wire.Command
	if err := wire.Decode(frame, &cmd); err != nil {
		w.t.Fatal(err)
	}
	a := cmd.GetAck()
	if a.GetEpoch() != w.name() {
		return // of the history before a reset that was lost
	}
	if a.GetOutbox() != w.done() || a.GetOutbox() > w.head {
		w.t.Errorf("seed %d: acks %d, %d is processed", w.seed, a.GetOutbox(), w.done())
	}
	w.acked = max(w.acked, a.GetOutbox())
	w.next = max(w.next, w.acked)
}

// settle lets all arrive, and looks for what did not.
func (w *outboxWorld) settle() {
	w.connect()
	for range 2000 {
		w.deliver(true)
		w.process(10)
	}
	for at := uint64(1); at <= w.head; at++ {
		key := fmt.Sprint(Position{w.name(), at})
		if w.seen[key] == 0 && !w.told[key] && !w.gone[at] {
			w.t.Fatalf("seed %d: %s was neither given nor told to be missing", w.seed, key)
		}
	}
}
