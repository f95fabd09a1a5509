package durable

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"muster/actors/link"
)

// ErrNoLink is returned by Call when the link ended before the answer came.
var ErrNoLink = errors.New("durable: the link is down")

// Port is an edge without sockets: it sends what it is told to and hands answers to
// those who asked. It announces nothing, so its sessions end with the link. Safe for
// concurrent use.
type Port struct {
	pipe *link.Pipe
	push func(*link.Down)
	stop chan struct{}
	loop sync.WaitGroup
	call atomic.Uint64

	mu    sync.Mutex
	up    link.Uplink
	terms [link.Shards]uint64 // of the shards that the core leads, as announced
	wait  map[uint64]chan *link.Down

	changed chan struct{} // closed when terms have changed
}

// NewPort links a port with a core. push gets all that answers no call; it must not block.
func NewPort(name string, incarnation uint64, core link.Core, push func(*link.Down)) *Port {
	if push == nil {
		push = func(*link.Down) {}
	}
	p := &Port{push: push, stop: make(chan struct{}), changed: make(chan struct{}), wait: map[uint64]chan *link.Down{}}
	p.pipe = link.NewPipe(name, incarnation, p, core)
	p.pipe.Dial()
	p.loop.Go(p.beats)
	return p
}

// Close ends the link as if the edge's process had died.
func (p *Port) Close() {
	close(p.stop)
	p.loop.Wait()
	p.pipe.Close(true)
}

// Term is the term in which the core leads a shard, 0 if it has not said so.
func (p *Port) Term(shard uint32) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.terms[shard]
}

// Send sends a message that has no answer.
func (p *Port) Send(m *link.Up) error {
	p.mu.Lock()
	up := p.up
	p.mu.Unlock()
	if up == nil {
		return ErrNoLink
	}
	return up.Up(m)
}

// NextCall is a number for a call.
func (p *Port) NextCall() uint64 { return p.call.Add(1) }

// Call sends a message whose body carries the call number given, as soon as the core leads
// the message's shard, and waits for its answer.
func (p *Port) Call(ctx context.Context, call uint64, m *link.Up) (*link.Down, error) {
	answer := make(chan *link.Down, 1)
	p.mu.Lock()
	p.wait[call] = answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.wait, call)
		p.mu.Unlock()
	}()
	if err := p.announced(ctx, m.GetShard()); err != nil {
		return nil, err
	}
	if err := p.Send(m); err != nil {
		return nil, err
	}
	select {
	case d, ok := <-answer:
		if !ok {
			return nil, ErrNoLink
		}
		return d, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// announced waits until the port has announced the shard: what it sent before would be
// taken back by the announcement.
func (p *Port) announced(ctx context.Context, shard uint32) error {
	for shard < link.Shards {
		p.mu.Lock()
		known, changed := p.terms[shard] != 0, p.changed
		p.mu.Unlock()
		if known {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.stop:
			return ErrNoLink
		}
	}
	return nil
}

// LinkUp implements link.Edge.
func (p *Port) LinkUp(up link.Uplink, _ uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up, p.terms = up, [link.Shards]uint64{}
}

// LinkDown implements link.Edge.
func (p *Port) LinkDown(uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up = nil
	for call, answer := range p.wait {
		close(answer)
		delete(p.wait, call)
	}
}

// Beat implements link.Edge.
func (p *Port) Beat(b *link.Beat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, shard := range b.Shards {
		if shard < link.Shards && i < len(b.Terms) && p.terms[shard] != b.Terms[i] {
			announce(p.up, shard, b.Terms[i])
			p.terms[shard] = b.Terms[i]
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// announce says that the port holds nothing.
func announce(up link.Uplink, shard uint32, term uint64) {
	if up != nil {
		_ = up.Up(&link.Up{Shard: shard, Body: &link.Up_Announce{Announce: &link.Announce{Id: term, Term: term, SessionsDone: true, Done: true}}})
	}
}

// Down implements link.Edge.
func (p *Port) Down(d *link.Down) {
	var call uint64
	switch b := d.Body.(type) {
	case *link.Down_Acted:
		call = b.Acted.Call
	case *link.Down_Attached:
		call = b.Attached.Call
	case *link.Down_Answer:
		call = b.Answer.Call
	case *link.Down_Again:
		p.mu.Lock()
		up := p.up
		p.mu.Unlock()
		if b.Again.User == "" {
			announce(up, d.Shard, d.Term)
		}
		return
	}
	p.mu.Lock()
	answer := p.wait[call]
	delete(p.wait, call)
	p.mu.Unlock()
	if answer != nil {
		answer <- d
		return
	}
	p.push(d)
}

// beats keeps the edge's lease.
func (p *Port) beats() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.mu.Lock()
			up := p.up
			p.mu.Unlock()
			if up != nil {
				up.Beat(&link.Beat{})
			}
		}
	}
}
