package stream

import (
	"encoding/binary"
	"time"
)

// What runs on the stream of pings.
const (
	pingKind  = iota // the sender's clock, which pong repeats: 8 bytes
	pongKind         // that, the wall clock (Unix ns, 8 bytes) and a note
	reachKind        // the nodes that the sender is connected with, 8 bytes each
	goneKind         // relayed: there is no such epoch, or it lost a message
)

const (
	stall   = 200 * time.Millisecond // our own pings may be so late
	maxNote = 1 << 10
)

// alive is when a peer last answered a ping.
type alive struct {
	live   bool // between Up and Down
	known  bool // it ever was
	silent bool
	pong   time.Time
	begin  time.Time // of the epoch
}

// began makes an epoch the current one; false when the peer was let go or dialled meanwhile.
func (p *peer) began(e *epoch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped || p.offered != nil {
		return false
	}
	p.current.Store(e)
	now := time.Now()
	p.alive.live, p.alive.known, p.alive.begin = true, true, now
	if !p.alive.silent {
		p.alive.pong = now
	}
	return true
}

func (p *peer) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive.live = false
}

// pingAll pings all peers and looks who is silent.
func (n *Net) pingAll() {
	tick := time.NewTicker(n.cfg.PingEvery)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		now := time.Now()
		late := now.Sub(last) - n.cfg.PingEvery
		last = now
		n.mu.Lock()
		peers := make([]*peer, 0, len(n.peers))
		for _, p := range n.peers {
			peers = append(peers, p)
		}
		n.mu.Unlock()
		for _, p := range peers {
			p.ping(now, late)
		}
		if n.cfg.Relay {
			n.tellReach(peers)
		}
	}
}

func (p *peer) ping(now time.Time, late time.Duration) {
	n := p.net
	e := p.current.Load()
	p.mu.Lock()
	a := &p.alive
	if late > stall { // we were away, not the peer
		a.pong, a.begin = a.pong.Add(late), a.begin.Add(late)
	}
	silence := now.Sub(a.pong)
	fell := a.known && !a.silent && silence > n.cfg.Silence
	a.silent = a.silent || fell
	lost := silence > n.cfg.Lost && now.Sub(a.begin) > n.cfg.Lost
	info := p.info
	p.mu.Unlock()
	if e != nil {
		info = e.peer
		_ = e.put(pingStream, envelope{kind: pingKind, payload: binary.BigEndian.AppendUint64(nil, uint64(now.Sub(n.start)))})
	}
	if fell {
		n.quiet.warn("a node is silent", info.Name, "node", info.Name, "for", silence.Round(time.Millisecond))
		n.cfg.Silent(info, true)
	}
	switch {
	case e != nil && (fell && n.raft != nil || lost):
		e.fail(errSilent)
	case fell && n.raft != nil:
		n.raft.update(p, nil, false)
	}
}

// received takes what came on the stream of pings.
func (e *epoch) received(v envelope) {
	n := e.net
	switch {
	case v.kind == reachKind && e.via == nil:
		e.reaches(v.payload)
	case v.kind == goneKind && e.via != nil:
		e.fail(ErrLost)
	case v.kind == pingKind && len(v.payload) == 8:
		n.cfg.Ping(e.peer.Node, func() {
			note := n.cfg.Note()
			pong := make([]byte, 0, 16+len(note))
			pong = binary.BigEndian.AppendUint64(append(pong, v.payload...), uint64(time.Now().UnixNano()))
			_ = e.put(pingStream, envelope{kind: pongKind, payload: append(pong, note[:min(len(note), maxNote)]...)})
		})
	case v.kind == pongKind && len(v.payload) >= 16:
		now := time.Now()
		rtt := now.Sub(n.start) - time.Duration(binary.BigEndian.Uint64(v.payload))
		if rtt < 0 {
			return
		}
		e.answered(now.Add(-rtt))
		n.cfg.Noted(e.peer, v.payload[16:], time.Unix(0, int64(binary.BigEndian.Uint64(v.payload[8:]))), rtt)
	default:
		n.skipped.Add(1)
	}
}

// answered says that a ping of that time was answered: an old one, of before a hang, ends no silence.
func (e *epoch) answered(sent time.Time) {
	n := e.net
	n.mu.Lock()
	p := n.peers[e.peer.Node]
	n.mu.Unlock()
	if p == nil || p.current.Load() != e {
		return
	}
	p.mu.Lock()
	if sent.After(p.alive.pong) {
		p.alive.pong = sent
	}
	again := p.alive.silent && time.Since(sent) < n.cfg.Silence
	if again {
		p.alive.silent = false
	}
	p.mu.Unlock()
	if again {
		n.cfg.Silent(e.peer, false)
		if n.raft != nil {
			n.raft.update(p, nil, false)
		}
	}
}
