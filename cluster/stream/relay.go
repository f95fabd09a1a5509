package stream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/metadata"
)

// A relayed epoch is one over a third node that is connected with both ends: its envelopes travel on the streams of the
// connections there. Nodes tell each other with whom they are connected. The relay keeps nothing: what it cannot pass on it answers with
// goneKind, and so does an end that does not know the epoch; either ends it.

const welcomeTimeout = time.Second

func (n *Net) reachChanged() {
	n.mu.Lock()
	n.reach++
	n.mu.Unlock()
}

// tellReach tells those who do not know it yet with whom this node is connected.
func (n *Net) tellReach(peers []*peer) {
	n.mu.Lock()
	now := n.reach
	n.mu.Unlock()
	var list []byte
	var to []*epoch
	for _, p := range peers {
		if e := p.current.Load(); e != nil && e.via == nil {
			list = binary.BigEndian.AppendUint64(list, p.node)
			to = append(to, e)
		}
	}
	for _, e := range to {
		e.mu.Lock()
		old := e.told != now
		e.told = now
		e.mu.Unlock()
		if old && e.put(pingStream, envelope{kind: reachKind, payload: list}) != nil {
			e.mu.Lock()
			e.told = 0
			e.mu.Unlock()
		}
	}
}

// reaches notes with whom the peer is connected; epochs that it relayed to others end.
func (e *epoch) reaches(list []byte) {
	reach := map[uint64]bool{}
	for ; len(list) >= 8; list = list[8:] {
		reach[binary.BigEndian.Uint64(list)] = true
	}
	e.mu.Lock()
	e.reach = reach
	e.mu.Unlock()
	n := e.net
	var over []*epoch
	n.mu.Lock()
	for _, v := range n.virtual {
		if v.via == e && !reach[v.far] {
			over = append(over, v)
		}
	}
	n.mu.Unlock()
	for _, v := range over {
		v.fail(ErrLost)
	}
}

// relayed takes an envelope that is for another node, or from one.
func (e *epoch) relayed(index int, v envelope) {
	n := e.net
	if !n.cfg.Relay {
		n.skipped.Add(1)
		return
	}
	if v.form == relayTo {
		on := n.epoch(v.far)
		pass := v
		pass.form, pass.far = relayFrom, e.peer.Node
		if on != nil && on.via == nil && index < len(on.queues) && on.queues[index].put(pass) == nil {
			return
		}
		if index != pingStream || v.kind != goneKind {
			_ = e.queues[pingStream].put(envelope{form: relayFrom, kind: goneKind, far: v.far, epoch: v.epoch})
		}
		return
	}
	n.mu.Lock()
	to := n.virtual[v.epoch]
	n.mu.Unlock()
	switch {
	case to != nil && to.via == e && to.far == v.far:
		to.deliver(index, v)
	case index == callStream && v.kind == helloKind:
		n.invited(e, v)
	case index != pingStream || v.kind != goneKind:
		_ = e.queues[pingStream].put(envelope{form: relayTo, kind: goneKind, far: v.far, epoch: v.epoch})
	}
}

// deliver hands a relayed envelope over, once Up was told; the welcome comes before.
func (e *epoch) deliver(index int, v envelope) {
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		return
	}
	e.running.Add(1)
	e.mu.Unlock()
	defer e.running.Done()
	early := index == callStream && v.kind == welcomeKind || index == pingStream && v.kind == goneKind
	if !early {
		select {
		case <-e.began:
		case <-e.ctx.Done():
			return
		}
	}
	e.receive(index, v)
}

// through makes a relayed epoch; it ends with the connection to the relay.
func (n *Net) through(via *epoch, h hello) *epoch {
	e := n.newEpoch(via.ctx, h, 0)
	e.via, e.far, e.queues, e.peer.Via = via, h.self.Node, nil, via.peer.Node
	n.mu.Lock()
	n.virtual[e.id] = e
	n.mu.Unlock()
	context.AfterFunc(e.ctx, func() {
		n.mu.Lock()
		delete(n.virtual, e.id)
		n.mu.Unlock()
	})
	return e
}

// relay begins an epoch with a peer over one of those that are connected with it; nil: nobody is.
func (n *Net) relay(p Peer) *epoch {
	if !n.cfg.Relay {
		return nil
	}
	n.mu.Lock()
	var ways []*epoch
	for _, q := range n.peers {
		if e := q.current.Load(); e != nil && e.via == nil && e.reached(p.Node) {
			ways = append(ways, e)
		}
	}
	n.mu.Unlock()
	rand.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
	for _, via := range ways {
		if e := n.relayOver(via, p); e != nil {
			return e
		}
	}
	return nil
}

func (e *epoch) reached(node uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reach[node]
}

func (n *Net) relayOver(via *epoch, p Peer) *epoch {
	own := n.hello(rand.Uint64(), n.cfg.Wire, n.cfg.Classes)
	e := n.through(via, hello{self: p, epoch: own.epoch})
	e.welcome = make(chan hello, 1)
	text, err := json.Marshal(own.metadata())
	if err == nil {
		err = e.put(callStream, envelope{kind: helloKind, payload: text})
	}
	if err != nil {
		e.fail(err)
		return nil
	}
	late := time.NewTimer(welcomeTimeout)
	defer late.Stop()
	select {
	case h := <-e.welcome:
		e.peer, e.version = h.self, h.wire[1]
		e.peer.Wire, e.peer.Via = e.version, via.peer.Node
		return e
	case <-e.ctx.Done():
	case <-late.C:
		e.fail(context.DeadlineExceeded)
	}
	return nil
}

func relayedHello(b []byte, far uint64) (hello, error) {
	var md metadata.MD
	if err := json.Unmarshal(b, &md); err != nil {
		return hello{}, err
	}
	h, err := parseHello(md)
	if err == nil && h.self.Node != far {
		err = errors.New("a relayed handshake of another node")
	}
	return h, err
}

// invited takes a relayed epoch that its other end began.
func (n *Net) invited(via *epoch, v envelope) {
	h, err := relayedHello(v.payload, v.far)
	if err == nil && (h.cluster != n.cluster() || h.epoch != v.epoch) {
		err = n.foreign(h)
	}
	var version uint8
	if err == nil {
		version, err = n.agree(h)
	}
	if err != nil {
		_ = n.refuse(h, err)
		return
	}
	h.wire = [2]uint8{version, version}
	if e := n.through(via, h); !n.offer(e) {
		e.fail(errStopped)
	}
}

func (e *epoch) welcomed(b []byte) {
	h, err := relayedHello(b, e.far)
	if err == nil && e.welcome != nil {
		select {
		case e.welcome <- h:
		default:
		}
	}
}

// relaying answers the one who began a relayed epoch, or goes on dialling until there is a better one.
func (p *peer) relaying(e *epoch) {
	n := p.net
	if e.welcome == nil {
		text, err := json.Marshal(n.hello(e.id, [2]uint8{e.version, e.version}, n.cfg.Classes).metadata())
		if err == nil {
			err = e.put(callStream, envelope{kind: welcomeKind, payload: text})
		}
		if err != nil {
			e.fail(err)
		}
		return
	}
	n.running.Go(func() {
		for {
			select {
			case <-e.ctx.Done():
				return
			case <-time.After(backoffMost + rand.N(backoffMost)):
			}
			p.mu.Lock()
			info, dials := p.info, p.dials()
			p.mu.Unlock()
			if !dials {
				return
			}
			if better, err := n.dial(info); err == nil && !n.offer(better) {
				better.fail(errStopped)
				better.end()
				return
			}
		}
	})
}
