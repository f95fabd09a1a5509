package link

import (
	"fmt"
	"sync"
	"testing"

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

func (e *ends) uplink() (up Uplink) {
	e.set(func() { up = e.up })
	return up
}

func (e *ends) downlink() (down Downlink) {
	e.set(func() { down = e.down })
	return down
}

func (e *ends) take() []string {
	e.Lock()
	defer e.Unlock()
	t := e.trace
	e.trace = nil
	return t
}

type testCore struct{ *ends }

func (e testCore) EdgeUp(edge string, inc, epoch uint64, down Downlink) {
	e.set(func() { e.down = down })
	e.note("core: %s/%d up %d", edge, inc, epoch)
	down.Beat(&Beat{Shards: []uint32{1}, Terms: []uint64{7}})
}
func (e testCore) Up(m *Up) {
	e.note("core: %s/%d epoch %d seq %d", m.Edge, m.Incarnation, m.Epoch, m.Seq)
	if e.onUp != nil {
		e.onUp(m)
	}
}
func (e testCore) Beat(edge string, inc uint64, b *Beat) {
	e.note("core: beat sent %d received %d", b.Sent, b.Received)
}
func (e testCore) EdgeDown(edge string, inc, epoch uint64, dead bool) {
	e.note("core: down %d dead %v", epoch, dead)
}

type testEdge struct{ *ends }

func (e testEdge) LinkUp(up Uplink, epoch uint64) {
	e.set(func() { e.up = up })
	e.note("edge: up %d", epoch)
}
func (e testEdge) Down(m *Down) { e.note("edge: epoch %d seq %d", m.Epoch, m.Seq) }
func (e testEdge) Beat(b *Beat) {
	e.note("edge: beat sent %d received %d shards %v", b.Sent, b.Received, b.Shards)
}
func (e testEdge) LinkDown(epoch uint64) { e.note("edge: down %d", epoch) }

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
	p := NewPipe("e1", 3, testEdge{e}, testCore{e})
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
