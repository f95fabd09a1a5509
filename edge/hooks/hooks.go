package hooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/actors/link"
)

// Source is where the events are. It is safe for concurrent use; a shard that is not led here is an error.
type Source interface {
	// ReadEvents returns up to limit events with a seq greater than after, in order, and the seq of the oldest kept (0: none).
	ReadEvents(shard uint32, after uint64, limit int) (events []*link.Event, first uint64, err error)
	// HookCursor is the seq of the last event that is done with, 0: none.
	HookCursor(shard uint32) (uint64, error)
	// SetHookCursor moves the cursor and keeps dead as letters; it is durable when it returns.
	SetHookCursor(shard uint32, seq uint64, dead []*link.Event) error
}

// Config is what a dispatcher is made with. Zero values take the default in brackets.
type Config struct {
	URL       string   // https, or http to this machine
	AllowHTTP bool     // http to any machine: bodies can be read on the way
	Secrets   []string // whsec_ and 24 or more bytes in base64; each signs, so that one can replace another
	Source    Source

	Parallel int // requests at once, over all shards [8]

	Registerer prometheus.Registerer // nil: no metrics
	Log        *slog.Logger          // [discards]
}

// Times and bounds of the protocol.
const (
	maxBatch   = 100
	interval   = 500 * time.Millisecond // between batches that are not full
	timeout    = 10 * time.Second       // of one request
	firstPause = 100 * time.Millisecond
	longPause  = 20 * time.Second
	giveUp     = 24 * time.Hour
	patience   = time.Minute // for what is as old as that when it is first sent
	poll       = 5 * time.Second
)

// ErrNotHere is Replay's answer for a shard that is led elsewhere.
var ErrNotHere = errors.New("hooks: the shard is not led by this node")

// Dispatcher sends the events of the shards that are led here. Safe for concurrent use.
type Dispatcher struct {
	cfg     Config
	sender  *sender
	metrics *metrics

	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	workers map[uint32]*worker
	running sync.WaitGroup
}

// New makes a dispatcher. It sends nothing before a shard is opened.
func New(cfg Config) (*Dispatcher, error) {
	if cfg.Source == nil {
		return nil, errors.New("hooks: no Source")
	}
	if cfg.Parallel == 0 {
		cfg.Parallel = 8
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := newSender(cfg.URL, cfg.AllowHTTP, cfg.Secrets, cfg.Parallel, timeout)
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{cfg: cfg, sender: s, workers: map[uint32]*worker{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	if d.metrics, err = newMetrics(cfg.Registerer, d); err != nil {
		d.stop()
		return nil, fmt.Errorf("hooks: %w", err)
	}
	return d, nil
}

// Opened begins with a shard that this node now leads. It does not block.
func (d *Dispatcher) Opened(shard uint32, term, _ uint64, _ int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	old := d.workers[shard]
	if old != nil {
		if old.term >= term {
			return
		}
		old.cancel()
	}
	w := &worker{d: d, shard: shard, term: term, news: make(chan struct{}, 1), back: make(chan rewind), done: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(d.ctx)
	d.workers[shard] = w
	d.running.Add(1)
	go func() {
		defer d.running.Done()
		defer close(w.done)
		if old != nil {
			<-old.done // two would move one cursor
		}
		w.run()
	}()
}

// Closed ends with a shard. It does not block: a request that is on the way is given up, and what it carried is sent
// again by the next leader.
func (d *Dispatcher) Closed(shard uint32, term uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.workers[shard]; w != nil && w.term <= term && d.ctx.Err() == nil {
		w.cancel()
		// It stays in the map until it has ended, so that the next one waits for it.
		d.running.Add(1)
		go func() {
			defer d.running.Done()
			<-w.done
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.workers[shard] == w {
				delete(d.workers, shard)
			}
		}()
	}
}

// Notify says that there are new events in a shard. It does not block.
func (d *Dispatcher) Notify(shard uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.workers[shard]; w != nil {
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

// Replay sends the events of a shard after seq again; a shard that has not got so far stays where it is. It returns when
// the new cursor is durable.
func (d *Dispatcher) Replay(ctx context.Context, shard uint32, seq uint64) error {
	d.mu.Lock()
	w := d.workers[shard]
	d.mu.Unlock()
	if w == nil {
		return ErrNotHere
	}
	r := rewind{seq, make(chan error, 1)}
	select {
	case w.back <- r:
		return <-r.done
	case <-w.done:
		return ErrNotHere
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends all that is on the way, and returns when it has ended.
func (d *Dispatcher) Close() {
	d.mu.Lock()
	d.stop()
	d.mu.Unlock()
	d.running.Wait()
	d.sender.client.CloseIdleConnections()
	d.metrics.unregister()
}
