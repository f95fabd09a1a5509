package link

import (
	"errors"
	"sync"
	"sync/atomic"
)

// ErrDown is returned by Up on a handle whose epoch is over. What was to be sent
// is covered by the announcement of the next epoch.
var ErrDown = errors.New("link: down")

// Core is what a link needs of a core node.
//
// No method may block, nor call Down or Beat of a Downlink before it returns,
// except EdgeUp.
type Core interface {
	// EdgeUp begins an epoch. The core answers with a Beat that lists what it leads.
	EdgeUp(edge string, incarnation, epoch uint64, down Downlink)
	// Up takes one message, in order per link.
	Up(m *Up)
	// Beat takes an edge's beat, one a second.
	Beat(edge string, incarnation uint64, b *Beat)
	// EdgeDown ends an epoch. dead: the edge's process is known to be gone;
	// false: only the link is lost.
	EdgeDown(edge string, incarnation, epoch uint64, dead bool)
}

// Downlink is a core's handle on a link for one epoch. After the epoch it drops.
type Downlink interface {
	// Down sends m, which must not be changed nor sent again: the link numbers it.
	// The body may be shared.
	Down(m *Down)
	Beat(b *Beat)
}

// Edge is what a link needs of an edge. No method may block. Down and Beat may
// send Up before they return.
type Edge interface {
	// LinkUp begins an epoch. Nothing may be sent before the core's first Beat of it.
	LinkUp(up Uplink, epoch uint64)
	// Down takes one message, in order per link.
	Down(m *Down)
	Beat(b *Beat)
	// LinkDown ends an epoch.
	LinkDown(epoch uint64)
}

// Uplink is an edge's handle on a link for one epoch.
type Uplink interface {
	// Up sends m, which must not be changed nor sent again: the link fills in edge,
	// incarnation, epoch and seq. It returns ErrDown when the epoch is over.
	Up(m *Up) error
	Beat(b *Beat)
}

// Pipe links one edge and one core in one process. It has no goroutine of its own
// but the one that resets it after a gap, and no timer: edge and core send their
// beats through it. Safe for concurrent use.
type Pipe struct {
	edgeName    string
	incarnation uint64
	edge        Edge
	core        Core

	life   sync.Mutex // one change of epoch at a time; taken before up and down
	closed bool
	resets sync.WaitGroup

	// Lock order: life, down, up.
	down, up direction
}

// direction is one way of a pipe. Sending and receiving are one step in process, so
// both counts live here.
type direction struct {
	sync.Mutex
	epoch    uint64 // 0: down
	last     uint64 // the last epoch that was used
	sent     uint64
	received atomic.Uint64
	lose     int  // messages still to lose
	mute     bool // everything is lost, beats too
	gap      bool // the receiver asked for a reset
}

// NewPipe makes a pipe that is down. Dial brings it up.
func NewPipe(edgeName string, incarnation uint64, edge Edge, core Core) *Pipe {
	return &Pipe{edgeName: edgeName, incarnation: incarnation, edge: edge, core: core}
}

// Dial begins a new epoch, ending the present one if there is one. It does nothing
// after Close.
func (p *Pipe) Dial() {
	p.life.Lock()
	defer p.life.Unlock()
	p.redial()
}

// Redial is Dial under the name that tests of repair read better with.
func (p *Pipe) Redial() { p.Dial() }

// Cut ends the epoch: edge and core learn that the link is lost, the edge lives on.
func (p *Pipe) Cut() {
	p.life.Lock()
	defer p.life.Unlock()
	p.hangUp(false)
}

// Close ends the epoch for good. dead: the core is told that the edge's process is
// gone, so it detaches its sessions.
func (p *Pipe) Close(dead bool) {
	p.life.Lock()
	if !p.closed {
		p.closed = true
		p.hangUp(dead)
	}
	p.life.Unlock()
	p.resets.Wait()
}

// DropUp loses the next n messages from the edge. The core sees the gap at the next
// message or beat.
func (p *Pipe) DropUp(n int) { p.up.set(func() { p.up.lose = n }) }

// DropDown loses the next n messages from the core.
func (p *Pipe) DropDown(n int) { p.down.set(func() { p.down.lose = n }) }

// Mute loses everything in both directions, beats too, and tells nobody: a link that
// hangs.
func (p *Pipe) Mute(on bool) {
	p.down.set(func() { p.down.mute = on })
	p.up.set(func() { p.up.mute = on })
}

// Epoch is the present epoch, 0 when the link is down.
func (p *Pipe) Epoch() (epoch uint64) {
	p.up.set(func() { epoch = p.up.epoch })
	return epoch
}

func (p *Pipe) redial() {
	if p.closed {
		return
	}
	p.hangUp(false)
	epoch := p.up.last + 1
	p.down.open(epoch)
	p.up.open(epoch)
	p.edge.LinkUp(uplink{p, epoch}, epoch)
	p.core.EdgeUp(p.edgeName, p.incarnation, epoch, downlink{p, epoch})
}

func (p *Pipe) hangUp(dead bool) {
	p.down.shut()
	epoch := p.up.shut()
	if epoch == 0 && !dead {
		return
	}
	if epoch != 0 {
		p.edge.LinkDown(epoch)
	}
	p.core.EdgeDown(p.edgeName, p.incarnation, max(epoch, p.up.last), dead)
}

// reset redials unless the epoch with the gap is over already.
func (p *Pipe) reset(epoch uint64) {
	p.life.Lock()
	defer p.life.Unlock()
	if p.Epoch() == epoch {
		p.redial()
	}
}

// carry numbers a message or beat (n = 1 or 0) and hands it over by give, unless the
// epoch is over or the message is lost. It reports false when the epoch is over.
func (p *Pipe) carry(d *direction, epoch, n uint64, give func()) bool {
	d.Lock()
	defer d.Unlock()
	if d.epoch != epoch {
		return false
	}
	d.sent += n
	switch {
	case d.gap || d.mute:
		return true
	case n > 0 && d.lose > 0:
		d.lose--
		return true
	case d.received.Load()+n != d.sent:
		d.gap = true
		p.resets.Go(func() { p.reset(epoch) })
		return true
	}
	d.received.Store(d.sent)
	give()
	return true
}

func (d *direction) set(f func()) {
	d.Lock()
	defer d.Unlock()
	f()
}

func (d *direction) open(epoch uint64) {
	d.set(func() {
		d.epoch, d.last, d.sent, d.gap = epoch, epoch, 0, false
		d.received.Store(0)
	})
}

func (d *direction) shut() (epoch uint64) {
	d.set(func() { epoch, d.epoch = d.epoch, 0 })
	return epoch
}

type uplink struct {
	p     *Pipe
	epoch uint64
}

func (u uplink) Up(m *Up) error {
	p := u.p
	ok := p.carry(&p.up, u.epoch, 1, func() {
		m.Edge, m.Incarnation, m.Epoch, m.Seq = p.edgeName, p.incarnation, u.epoch, p.up.sent
		p.core.Up(m)
	})
	if !ok {
		return ErrDown
	}
	return nil
}

func (u uplink) Beat(b *Beat) {
	p := u.p
	p.carry(&p.up, u.epoch, 0, func() {
		b.Epoch, b.Sent, b.Received = u.epoch, p.up.sent, p.down.received.Load()
		p.core.Beat(p.edgeName, p.incarnation, b)
	})
}

type downlink struct {
	p     *Pipe
	epoch uint64
}

func (d downlink) Down(m *Down) {
	p := d.p
	p.carry(&p.down, d.epoch, 1, func() {
		m.Epoch, m.Seq = d.epoch, p.down.sent
		p.edge.Down(m)
	})
}

func (d downlink) Beat(b *Beat) {
	p := d.p
	p.carry(&p.down, d.epoch, 0, func() {
		b.Epoch, b.Sent, b.Received = d.epoch, p.down.sent, p.up.received.Load()
		p.edge.Beat(b)
	})
}
