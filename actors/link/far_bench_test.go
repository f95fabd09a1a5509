package link

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
)

// sink is an edge and a core that take what comes.
type sink struct {
	up   chan Uplink
	down chan Downlink
	got  chan struct{}
	left int
}

func (s *sink) EdgeUp(_ string, _, _ uint64, down Downlink) { s.down <- down; down.Beat(&Beat{}) }
func (s *sink) Up(*Up)                                      {}
func (s *sink) EdgeDown(string, uint64, uint64, bool)       {}
func (s *sink) LinkUp(up Uplink, _ uint64)                  { s.up <- up }
func (s *sink) LinkDown(uint64)                             {}
func (s *sink) Down(*Down) {
	if s.left--; s.left == 0 {
		close(s.got)
	}
}

// one tells beats of an edge from those of a core.
type sinkCore struct{ *sink }

func (sinkCore) Beat(string, uint64, *Beat) {}

type sinkEdge struct{ *sink }

func (sinkEdge) Beat(*Beat) {}

// What a Change costs both ends of a Far together, without the stream.
func BenchmarkFarChange(b *testing.B) {
	for _, views := range []int{1, 3} {
		b.Run(fmt.Sprintf("views=%d", views), func(b *testing.B) {
			s := &sink{up: make(chan Uplink, 1), down: make(chan Downlink, 1), got: make(chan struct{}), left: b.N}
			l := newFarLine("e1", 3, sinkEdge{s}, sinkCore{s})
			defer l.Close(false)
			l.Dial()
			down := <-s.down
			c := &Change{App: "default", User: "user-123456", Version: 1234567}
			for i := range views {
				c.Views = append(c.Views, &View{Mask: uint32(i) + 1, State: 3, Since: 1_700_000_000_000, Devices: []*Device{{Class: 3, State: 3}}})
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				down.Down(&Down{Node: "core-1", Shard: uint32(i % Shards), Term: 1_700_000_000, Body: &Down_Change{Change: c}})
			}
			<-s.got
			b.ReportMetric(float64(l.bytes.Load())/float64(b.N), "B/msg")
			b.ReportMetric(float64(b.N)/float64(l.away.Stats().FramesOut.Load()), "msg/frame")
		})
	}
}

// FuzzFar gives both ends frames that anybody might have made: they may be refused, but nothing else.
func FuzzFar(f *testing.F) {
	hello, _ := proto.Marshal(&Beat{Epoch: 1, Shards: []uint32{1}, Terms: []uint64{7}})
	up, _ := proto.Marshal(&Up{Shard: 3, Body: &Up_Attach{Attach: &Attach{App: "a", User: "b"}}})
	message := append([]byte{1, 0, byte(len(up)), 0}, up...)
	f.Add(byte(Control), kindHello, []byte{1}, kindUp, message)
	f.Add(byte(Commands), kindDown, []byte{1, 0, 2, 8, 1}, kindDownBeat, hello)
	f.Add(byte(Bulk), kindUp, []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x7f}, kindUp, []byte{1, 1, 5})
	f.Add(byte(Commands), kindReset, []byte{1}, kindUpBeat, hello)
	f.Add(byte(9), LastKind, []byte{}, byte(200), []byte{0x80})
	f.Fuzz(func(t *testing.T, lane, k1 byte, p1 []byte, k2 byte, p2 []byte) {
		e := &ends{}
		var seq uint64
		e.onUp = func(m *Up) {
			if seq++; m.Seq != seq || m.Edge != "e1" || m.Epoch != 1 {
				t.Fatalf("%v", m)
			}
		}
		silent := func(context.Context, Lane, byte, []byte) error { return nil }
		far := NewFar(FarConfig{Peer: "e1", Incarnation: 3, Edge: testEdge{e}, Core: testCore{e}, Send: silent})
		defer far.Close()
		far.Up()
		far.Receive(Control, kindHello, []byte{1})
		for range 2 { // the same twice is a gap
			far.Receive(Lane(lane), k1, p1)
			far.Receive(Commands, k2, p2)
			far.Receive(Bulk, k2, p2)
		}
		held := 0
		for _, l := range far.core.held {
			held += len(l)
		}
		if held != far.core.many {
			t.Fatalf("%d held, counted %d", held, far.core.many)
		}
	})
}
