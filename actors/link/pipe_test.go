package link

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ends records what both ends of a pipe are told, in order.
type ends struct {
	sync.Mutex
	trace []string
	up    Uplink
	down  Downlink
	onUp  func(*Up)
}

func (e *ends) note(format string, args ...any) {
	e.Lock()
	defer e.Unlock()
	e.trace = append(e.trace, fmt.Sprintf(format, args...))
}

func (e *ends) set(f func()) {
	e.Lock()
	defer e.Unlock()
	f()
}

func (e *ends) take() []string {
	e.Lock()
	defer e.Unlock()
	t := e.trace
	e.trace = nil
	return t
}

type coreEnd struct{ *ends }

func (e coreEnd) EdgeUp(edge string, inc, epoch uint64, down Downlink) {
	e.set(func() { e.down = down })
	e.note("core: %s/%d up %d", edge, inc, epoch)
	down.Beat(&Beat{Shards: []uint32{1}, Terms: []uint64{7}})
}
func (e coreEnd) Up(m *Up) {
	e.note("core: %s/%d epoch %d seq %d", m.Edge, m.Incarnation, m.Epoch, m.Seq)
	if e.onUp != nil {
		e.onUp(m)
	}
}
func (e coreEnd) Beat(edge string, inc uint64, b *Beat) {
	e.note("core: beat sent %d received %d", b.Sent, b.Received)
}
func (e coreEnd) EdgeDown(edge string, inc, epoch uint64, dead bool) {
	e.note("core: down %d dead %v", epoch, dead)
}

type edgeEnd struct{ *ends }

func (e edgeEnd) LinkUp(up Uplink, epoch uint64) {
	e.set(func() { e.up = up })
	e.note("edge: up %d", epoch)
}
func (e edgeEnd) Down(m *Down) { e.note("edge: epoch %d seq %d", m.Epoch, m.Seq) }
func (e edgeEnd) Beat(b *Beat) {
	e.note("edge: beat sent %d received %d shards %v", b.Sent, b.Received, b.Shards)
}
func (e edgeEnd) LinkDown(epoch uint64) { e.note("edge: down %d", epoch) }

func dial(t *testing.T) (*Pipe, *ends) {
	t.Helper()
	e := &ends{}
	p := NewPipe("e1", 3, edgeEnd{e}, coreEnd{e})
	p.Dial()
	expect(t, e, "edge: up 1", "core: e1/3 up 1", "edge: beat sent 0 received 0 shards [1]")
	return p, e
}

func expect(t *testing.T, e *ends, want ...string) {
	t.Helper()
	if got := e.take(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
}

func TestPipeNumbersEachDirection(t *testing.T) {
	p, e := dial(t)
	defer p.Close(false)
	for range 2 {
		if err := e.up.Up(&Up{}); err != nil {
			t.Fatal(err)
		}
	}
	e.down.Down(&Down{})
	e.up.Beat(&Beat{})
	e.down.Beat(&Beat{})
	expect(t, e, "core: e1/3 epoch 1 seq 1", "core: e1/3 epoch 1 seq 2", "edge: epoch 1 seq 1",
		"core: beat sent 2 received 1", "edge: beat sent 1 received 2 shards []")
}

func TestPipeCutAndRedial(t *testing.T) {
	p, e := dial(t)
	stale := e.up
	p.Cut()
	expect(t, e, "edge: down 1", "core: down 1 dead false")
	if err := stale.Up(&Up{}); !errors.Is(err, ErrDown) {
		t.Fatalf("cut: %v", err)
	}
	p.Redial()
	expect(t, e, "edge: up 2", "core: e1/3 up 2", "edge: beat sent 0 received 0 shards [1]")
	if err := stale.Up(&Up{}); !errors.Is(err, ErrDown) {
		t.Fatalf("stale: %v", err)
	}
	p.Close(true)
	expect(t, e, "edge: down 2", "core: down 2 dead true")
	p.Redial()
	expect(t, e)
}

// A lost message, up or down, makes a new epoch at the next message or beat.
func TestPipeGap(t *testing.T) {
	again := []string{"edge: down 1", "core: down 1 dead false",
		"edge: up 2", "core: e1/3 up 2", "edge: beat sent 0 received 0 shards [1]"}
	up := func(e *ends) { _ = e.up.Up(&Up{}) }
	down := func(e *ends) { e.down.Down(&Down{}) }
	for _, tt := range []struct {
		name string
		drop func(*Pipe)
		send []func(*ends)
	}{
		{"up, then message", func(p *Pipe) { p.DropUp(2) }, []func(*ends){up, up, up}},
		{"up, then beat", func(p *Pipe) { p.DropUp(1) }, []func(*ends){up, func(e *ends) { e.up.Beat(&Beat{}) }}},
		{"down, then message", func(p *Pipe) { p.DropDown(1) }, []func(*ends){down, down}},
		{"down, then beat", func(p *Pipe) { p.DropDown(1) }, []func(*ends){down, func(e *ends) { e.down.Beat(&Beat{}) }}},
		{"mute", func(p *Pipe) { p.Mute(true) }, []func(*ends){up, func(e *ends) { e.up.Beat(&Beat{}) }, nil, up}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, e := dial(t)
				defer p.Close(false)
				tt.drop(p)
				for _, send := range tt.send {
					if send == nil {
						p.Mute(false)
						continue
					}
					synctest.Wait()
					expect(t, e)
					send(e)
				}
				synctest.Wait()
				expect(t, e, again...)
			})
		})
	}
}

// Many senders: every receiver sees 1, 2, 3 … per epoch whatever is cut meanwhile.
func TestPipeOrderUnderFaults(t *testing.T) {
	e := &ends{}
	var epoch, seq uint64
	e.onUp = func(m *Up) {
		if m.Epoch != epoch {
			epoch, seq = m.Epoch, 0
		}
		if seq++; m.Seq != seq {
			t.Errorf("epoch %d: seq %d, want %d", m.Epoch, m.Seq, seq)
		}
	}
	p := NewPipe("e1", 3, edgeEnd{e}, coreEnd{e})
	p.Dial()
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for i := range 500 {
				var up Uplink
				e.set(func() { up = e.up })
				_ = up.Up(&Up{})
				if i%100 == 50 {
					p.DropUp(1)
				}
				if i%170 == 0 {
					p.Redial()
				}
			}
		})
	}
	senders.Wait()
	p.Close(true)
	if epoch < 2 || seq == 0 {
		t.Fatalf("nothing was cut: epoch %d seq %d", epoch, seq)
	}
}
