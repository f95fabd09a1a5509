package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// peer is what is known of another node over all epochs. One goroutine, its keeper, tells Up and Down.
type peer struct {
	net     *Net
	node    uint64
	current atomic.Pointer[epoch]
	poke    chan struct{} // something changed

	mu      sync.Mutex
	info    Peer
	wanted  bool   // SetPeers names it
	dropped bool   // SetPeers named it, and no longer does
	changed bool   // by SetPeers: redial at once
	offered *epoch // accepted, not yet current
	alive   alive
	fell    bool // the last epoch ended in silence: dialling will take long
}

func (p *peer) nudge() {
	select {
	case p.poke <- struct{}{}:
	default:
	}
}

func (p *peer) want(info Peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wanted || p.info != info {
		p.wanted, p.dropped, p.info, p.changed = true, false, info, true
		p.nudge()
	}
}

// drop ends what want began. Who came uninvited stays.
func (p *peer) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.wanted {
		return
	}
	p.wanted, p.dropped = false, true
	if e := p.current.Load(); e != nil {
		e.fail(errDropped)
	}
	p.nudge()
}

// offer is an epoch that the peer dialled: it replaces whatever there is.
func (p *peer) offer(e *epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.discard(p.offered, errReplaced)
	p.offered, p.dropped = e, false
	if old := p.current.Load(); old != nil {
		old.fail(errReplaced)
	}
	p.nudge()
}

// discard ends an epoch that was never told.
func (p *peer) discard(e *epoch, why error) {
	if e != nil {
		e.fail(why)
		p.net.running.Go(e.end)
	}
}

func (p *peer) run() {
	for {
		e := p.next()
		if e == nil {
			p.mu.Lock()
			p.discard(p.offered, errStopped)
			p.mu.Unlock()
			return
		}
		p.serve(e)
	}
}

// next waits for an epoch: one that the peer dialled, or that this node did; nil: nobody wants it any more.
func (p *peer) next() *epoch {
	n := p.net
	for attempt := 0; ; {
		p.mu.Lock()
		e, info, dials, fell := p.offered, p.info, p.dials(), p.fell
		p.offered = nil
		if p.changed {
			attempt, p.changed = 0, false
		}
		p.mu.Unlock()
		if e != nil && e.ctx.Err() == nil {
			return e
		}
		p.discard(e, errReplaced)
		if n.ctx.Err() != nil || n.forget(p) {
			return nil
		}
		var due <-chan time.Time
		if dials {
			due = time.After(pause(attempt))
		}
		select {
		case <-p.poke:
			continue
		case <-n.ctx.Done():
			return nil
		case <-due:
		}
		if fell && attempt == 0 {
			if e := n.relay(info); e != nil {
				return e
			}
		}
		attempt++
		e, err := n.dial(info)
		if err == nil {
			return e
		}
		if e := n.relay(info); e != nil {
			return e
		}
		p.discard(e, errReplaced)
		if n.ctx.Err() == nil {
			n.quiet.warn("no connection", info.Name, "to", info.Name, "addr", info.Addr, "why", plainText(err))
		}
	}
}

// dials says whether this node is the one that dials. The caller holds mu.
func (p *peer) dials() bool {
	if !p.wanted || p.info.Dial == There || p.net.cluster() == "" {
		return false
	}
	return p.info.Dial == Here || p.net.cfg.Self.Node < p.node
}

// forget ends a peer that nobody wants.
func (n *Net) forget(p *peer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted || p.offered != nil {
		return false
	}
	delete(n.peers, p.node)
	return true
}

// serve tells an epoch from its beginning to its end.
func (p *peer) serve(e *epoch) {
	n := p.net
	if !p.began(e) {
		p.discard(e, errDropped)
		return
	}
	n.cfg.Logger.Debug("stream: connected", "to", e.peer.Name, "wire", e.version)
	n.cfg.Up(e.peer)
	if n.raft != nil {
		n.raft.update(p, e, false)
	}
	close(e.began)
	n.reachChanged()
	if e.via != nil {
		p.relaying(e)
	}
	<-e.ctx.Done()
	p.current.Store(nil)
	n.reachChanged()
	why := context.Cause(e.ctx)
	p.mu.Lock()
	p.fell = errors.Is(why, errSilent)
	p.mu.Unlock()
	e.fail(why)
	gone := make(chan bool, 1)
	n.running.Go(func() { gone <- p.gone(e, why) })
	e.end()
	refused := <-gone
	p.ended()
	n.cfg.Logger.Debug("stream: disconnected", "from", e.peer.Name, "why", plainText(why), "refused", refused)
	n.cfg.Down(e.peer, refused)
	if n.raft != nil {
		n.raft.update(p, nil, refused)
	}
}

// gone says whether the process behind a broken connection is gone: its port refuses.
func (p *peer) gone(e *epoch, why error) bool {
	for _, own := range []error{errStopped, errReplaced, errDropped, errSilent} {
		if errors.Is(why, own) {
			return false
		}
	}
	p.mu.Lock()
	addr, back := p.info.Addr, p.offered != nil
	p.mu.Unlock()
	if addr == "" {
		addr = e.peer.Addr
	}
	return !back && e.via == nil && addr != "" && p.net.probe(addr)
}
