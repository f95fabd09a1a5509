package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
)

// line is a link of either kind, with faults.
type line interface {
	Dial()
	Cut()
	Close(dead bool)
	DropUp(n int)
	DropDown(n int)
	Mute(on bool)
}

// far is a link of two Fars with a stream of channels between them.
type far struct {
	near, away *Far // of the edge, of the core

	mu      sync.Mutex
	lose    [2]int // frames to lose, from the edge and from the core
	mute    bool
	stalled Lane
	stall   chan struct{}
	pace    time.Duration // that a frame of messages takes
	closed  bool
	flight  [2][lanes]chan frame
	pumps   sync.WaitGroup
	bytes   atomic.Int64
}

func newFarLine(name string, incarnation uint64, edge Edge, core Core, change ...func(*FarConfig)) *far {
	l := &far{}
	for dir := range l.flight {
		for lane := range l.flight[dir] {
			c := make(chan frame, 1<<14)
			l.flight[dir][lane] = c
			l.pumps.Go(func() {
				for f := range c {
					to := l.away
					if dir == 1 {
						to = l.near
					}
					to.Receive(Lane(lane), f.kind, f.payload)
				}
			})
		}
	}
	near := FarConfig{Peer: "c1", Incarnation: 9, Edge: edge, Send: l.send(0)}
	away := FarConfig{Peer: name, Incarnation: incarnation, Core: core, Send: l.send(1)}
	for _, f := range change {
		f(&near)
		f(&away)
	}
	l.near, l.away = NewFar(near), NewFar(away)
	return l
}

func (l *far) send(dir int) func(context.Context, Lane, byte, []byte) error {
	return func(ctx context.Context, lane Lane, kind byte, payload []byte) error {
		l.mu.Lock()
		stall, pace := l.stall, l.pace
		if lane != l.stalled {
			stall = nil
		}
		l.mu.Unlock()
		if stall != nil {
			select {
			case <-stall:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if kind == kindUp || kind == kindDown {
			time.Sleep(pace)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(payload) > maxFrame+32 {
			panic("a frame that is too large")
		}
		if (kind == kindUp || kind == kindDown) && l.lose[dir] > 0 {
			l.lose[dir]--
			return nil
		}
		if l.closed || l.mute {
			return nil
		}
		l.bytes.Add(int64(len(payload)))
		l.flight[dir][lane] <- frame{kind, payload}
		return nil
	}
}

func (l *far) Dial() {
	l.away.Up()
	l.near.Up()
}

func (l *far) Cut() {
	l.near.Down(false)
	l.away.Down(false)
}

func (l *far) Close(dead bool) {
	l.near.Down(false)
	l.away.Down(dead)
	l.near.Close()
	l.away.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		for _, all := range l.flight {
			for _, c := range all {
				close(c)
			}
		}
	}
	l.pumps.Wait()
}

func (l *far) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *far) DropUp(n int)   { l.set(func() { l.lose[0] = n }) }
func (l *far) DropDown(n int) { l.set(func() { l.lose[1] = n }) }
func (l *far) Mute(on bool)   { l.set(func() { l.mute = on }) }

// conform runs a story over both kinds of link.
func conform(t *testing.T, story func(t *testing.T, l line, e *ends)) {
	for name, dial := range map[string]func(Edge, Core) line{
		"pipe": func(e Edge, c Core) line { return NewPipe("e1", 3, e, c) },
		"far":  func(e Edge, c Core) line { return newFarLine("e1", 3, e, c) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ends{}
				l := dial(testEdge{e}, testCore{e})
				defer l.Close(false)
				l.Dial()
				synctest.Wait()
				both(t, e, "edge: up 1; edge: beat sent 0 received 0 shards [1]", "core: e1/3 up 1")
				time.Sleep(2 * patience)
				story(t, l, e)
			})
		})
	}
}

// both compares what each end was told; what happens at different ends has no order.
func both(t *testing.T, e *ends, edge, core string) {
	t.Helper()
	synctest.Wait()
	var got [2][]string
	for _, s := range e.take() {
		end := 0
		if strings.HasPrefix(s, "core") {
			end = 1
		}
		got[end] = append(got[end], s)
	}
	if s := strings.Join(got[0], "; "); s != edge {
		t.Fatalf("edge: got  %q\nwant %q", s, edge)
	}
	if s := strings.Join(got[1], "; "); s != core {
		t.Fatalf("core: got  %q\nwant %q", s, core)
	}
}

const (
	edgeAnew = "edge: down 1; edge: up 2; edge: beat sent 0 received 0 shards [1]"
	coreAnew = "core: down 1 dead false; core: e1/3 up 2"
)

func TestLinkNumbersEachDirection(t *testing.T) {
	conform(t, func(t *testing.T, l line, e *ends) {
		for range 2 {
			if err := e.uplink().Up(&Up{}); err != nil {
				t.Fatal(err)
			}
		}
		e.downlink().Down(&Down{})
		synctest.Wait()
		e.uplink().Beat(&Beat{})
		synctest.Wait()
		e.downlink().Beat(&Beat{})
		both(t, e, "edge: epoch 1 seq 1; edge: beat sent 1 received 2 shards []",
			"core: e1/3 epoch 1 seq 1; core: e1/3 epoch 1 seq 2; core: beat sent 2 received 1")
	})
}

func TestLinkCutAndRedial(t *testing.T) {
	conform(t, func(t *testing.T, l line, e *ends) {
		stale := e.uplink()
		l.Cut()
		both(t, e, "edge: down 1", "core: down 1 dead false")
		if err := stale.Up(&Up{}); !errors.Is(err, ErrDown) {
			t.Fatalf("cut: %v", err)
		}
		l.Dial()
		both(t, e, "edge: up 2; edge: beat sent 0 received 0 shards [1]", "core: e1/3 up 2")
		if err := stale.Up(&Up{}); !errors.Is(err, ErrDown) {
			t.Fatalf("stale: %v", err)
		}
		l.Dial()
		both(t, e, "edge: down 2; edge: up 3; edge: beat sent 0 received 0 shards [1]", "core: down 2 dead false; core: e1/3 up 3")
	})
}

func TestLinkDeath(t *testing.T) {
	conform(t, func(t *testing.T, l line, e *ends) {
		down := e.downlink()
		l.Close(true)
		l.Dial()
		down.Down(&Down{})
		synctest.Wait()
		got := fmt.Sprint(e.take())
		if !strings.Contains(got, "edge: down 1") || !strings.HasSuffix(got, "core: down 1 dead true]") {
			t.Fatal(got)
		}
	})
}

// What is lost makes a new epoch, at the latest with the next beat.
func TestLinkGap(t *testing.T) {
	up := func(e *ends) { _ = e.uplink().Up(&Up{}) }
	down := func(e *ends) { e.downlink().Down(&Down{}) }
	upBeat := func(e *ends) { e.uplink().Beat(&Beat{}) }
	downBeat := func(e *ends) { e.downlink().Beat(&Beat{}) }
	for _, tt := range []struct {
		name       string
		drop       func(line)
		lost, sign func(*ends)
	}{
		{"up, then message", func(l line) { l.DropUp(1) }, up, up},
		{"up, then beat", func(l line) { l.DropUp(1) }, up, upBeat},
		{"down, then message", func(l line) { l.DropDown(1) }, down, down},
		{"down, then beat", func(l line) { l.DropDown(1) }, down, downBeat},
		{"mute, then message up", func(l line) { l.Mute(true) }, up, up},
		{"mute, then beat down", func(l line) { l.Mute(true) }, down, downBeat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conform(t, func(t *testing.T, l line, e *ends) {
				tt.drop(l)
				tt.lost(e)
				synctest.Wait()
				both(t, e, "", "")
				l.Mute(false)
				tt.sign(e)
				synctest.Wait()
				got := e.take()
				got = slices.DeleteFunc(got, func(s string) bool { // the beat itself is not held back
					return strings.Contains(s, "beat sent 1")
				})
				e.set(func() { e.trace = got })
				both(t, e, edgeAnew, coreAnew)
			})
		})
	}
}

// The end that thinks that the link is up learns otherwise from the other's beats.
func TestFarHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ends{}
		l := newFarLine("e1", 3, testEdge{e}, testCore{e})
		defer l.Close(false)
		l.Dial()
		time.Sleep(2 * patience)
		e.take()
		// The core has lost the stream and has it back; the edge has noticed nothing.
		l.away.Down(false)
		l.away.Up()
		both(t, e, "", "core: down 1 dead false")
		_ = e.uplink().Up(&Up{})
		both(t, e, "", "")
		e.uplink().Beat(&Beat{})
		both(t, e, edgeAnew, "core: e1/3 up 2")
		// And the other way round.
		time.Sleep(2 * patience)
		l.near.Down(false)
		l.near.Up()
		both(t, e, "edge: down 2; edge: up 3; edge: beat sent 0 received 0 shards [1]", "core: down 2 dead false; core: e1/3 up 3")
	})
}

// A hello that is lost is said again; epochs that gaps begin come once a second at most.
func TestFarHelloAndStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ends{}
		l := newFarLine("e1", 3, testEdge{e}, testCore{e})
		defer l.Close(false)
		l.Mute(true)
		l.Dial()
		time.Sleep(10 * patience)
		both(t, e, "edge: up 1", "")
		l.Mute(false)
		time.Sleep(patience)
		both(t, e, "edge: beat sent 0 received 0 shards [1]", "core: e1/3 up 1")
		began := time.Now()
		for time.Since(began) < 10*time.Second {
			l.DropUp(1)
			_ = e.uplink().Up(&Up{})
			time.Sleep(10 * time.Millisecond)
			_ = e.uplink().Up(&Up{})
			time.Sleep(10 * time.Millisecond)
		}
		if n := l.near.Stats().Epochs.Load(); n < 9 || n > 12 {
			t.Fatalf("%d epochs in 10 s", n)
		}
	})
}

// A queue that is full costs the epoch, and nothing else: no memory, and no message that was not announced.
func TestFarOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ends{}
		l := newFarLine("e1", 3, testEdge{e}, testCore{e}, func(c *FarConfig) { c.Queue = 1 << 20 })
		defer l.Close(false)
		l.Dial()
		time.Sleep(2 * patience)
		e.take()
		stall := make(chan struct{})
		l.set(func() { l.stall, l.stalled = stall, Commands })
		up := e.uplink()
		big := &Up{Body: &Up_Attach{Attach: &Attach{Client: strings.Repeat("x", 1000)}}}
		for range 5000 {
			if err := up.Up(proto.Clone(big).(*Up)); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.near.Stats().Overflows.Load(); n != 1 {
			t.Fatalf("%d overflows", n)
		}
		l.set(func() { l.stall = nil })
		close(stall)
		up.Beat(&Beat{})
		synctest.Wait()
		if got := strings.Join(e.take(), "; "); !strings.Contains(got, edgeAnew[:len("edge: down 1; edge: up 2")]) {
			t.Fatal(got)
		}
	})
}

// announcer is an edge that announces so many messages of 1 KB at the first beat of each epoch.
type announcer struct {
	testEdge
	n    int
	last *uint64
	got  *atomic.Int64 // messages of the core in the epoch
}

func (a announcer) Beat(b *Beat) {
	if *a.last == b.Epoch {
		return
	}
	*a.last = b.Epoch
	a.got.Store(0)
	for i := range a.n {
		_ = a.uplink().Up(&Up{Shard: uint32(i % Shards), Body: &Up_Announce{Announce: &Announce{Sessions: []*Attach{{Client: strings.Repeat("x", 1000)}}}}})
	}
}

func (a announcer) Down(*Down) { a.got.Add(1) }

// What an edge announces, and what a core answers, may be more than a queue takes at once: each epoch that fails for
// that doubles the bound, so that the link comes up after a few. A bound that stays would begin epochs for ever.
func TestFarLargeAnnouncement(t *testing.T) {
	const queue = 1 << 20
	for _, tt := range []struct{ up, each, epochs int }{
		{up: 600, each: 1, epochs: 1},  // within the bound
		{up: 3000, each: 0, epochs: 3}, // 3 MB up
		{up: 500, each: 6, epochs: 3},  // 3 MB down
	} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &ends{}
				var last uint64
				var got, heard atomic.Int64
				var epoch atomic.Uint64
				e.onUp = func(m *Up) {
					if epoch.Swap(m.Epoch) != m.Epoch {
						got.Store(0)
					}
					got.Add(1)
					down := e.downlink()
					for range tt.each {
						down.Down(&Down{Shard: m.Shard, Body: &Down_Answer{Answer: &Answer{Json: strings.Repeat("y", 1000)}}})
					}
				}
				edge := announcer{testEdge{e}, tt.up, &last, &heard}
				l := newFarLine("e1", 3, edge, testCore{e}, func(c *FarConfig) { c.Queue = queue })
				defer l.Close(false)
				l.set(func() { l.pace = 10 * time.Millisecond })
				l.Dial()
				for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Second) {
					if up := e.uplink(); up != nil {
						up.Beat(&Beat{})
					}
					if down := e.downlink(); down != nil && epoch.Load() != 0 {
						down.Beat(&Beat{})
					}
				}
				synctest.Wait()
				if n := l.near.Stats().Epochs.Load(); int(n) != tt.epochs || int(got.Load()) != tt.up || int(heard.Load()) != tt.up*tt.each {
					t.Errorf("%d epochs, %d of %d messages announced, %d of %d answered", n, got.Load(), tt.up, heard.Load(), tt.up*tt.each)
				}
			})
		})
	}
}

// The bound doubles four times and no more.
func TestFarQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const queue = 64 << 10
		e := &ends{}
		l := newFarLine("e1", 3, testEdge{e}, testCore{e}, func(c *FarConfig) { c.Queue = queue })
		defer l.Close(false)
		stall := make(chan struct{})
		defer close(stall)
		l.set(func() { l.stall, l.stalled = stall, Commands })
		big := &Up{Body: &Up_Attach{Attach: &Attach{Client: strings.Repeat("x", 1000)}}}
		for range maxGrown + 2 {
			l.Dial()
			synctest.Wait()
			out, before := &l.near.edge.out, l.near.Stats().Overflows.Load()
			for most := 0; l.near.Stats().Overflows.Load() == before; {
				if err := e.uplink().Up(proto.Clone(big).(*Up)); err != nil {
					t.Fatal(err)
				}
				out.mu.Lock()
				most = max(most, out.lanes[Commands].queued)
				out.mu.Unlock()
				if most > queue<<maxGrown {
					t.Fatalf("%d bytes wait", most)
				}
			}
		}
	})
}

// Messages of any size come whole and in order, in frames of a bounded size.
func TestFarFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		e := &ends{}
		var got []int
		e.onUp = func(m *Up) { got = append(got, len(m.GetAttach().GetClient())) }
		l := newFarLine("e1", 3, testEdge{e}, testCore{e})
		defer l.Close(false)
		l.Dial()
		time.Sleep(2 * patience)
		var want []int
		for i := range 300 {
			n := rng.IntN(2000)
			if i%50 == 7 {
				n = 3<<20 + rng.IntN(1<<20)
			}
			want = append(want, n)
			_ = e.uplink().Up(&Up{Body: &Up_Attach{Attach: &Attach{Client: strings.Repeat("y", n)}}})
			if rng.IntN(10) == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if !slices.Equal(got, want) || l.near.Stats().Epochs.Load() != 1 {
			t.Fatalf("%d of %d messages, %d epochs", len(got), len(want), l.near.Stats().Epochs.Load())
		}
	})
}

// What is sent for a shard after its announcement comes after it, though it has another lane; the other shards do not
// wait.
func TestFarAnnouncementsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ends{}
		var got []string
		e.onUp = func(m *Up) {
			if a := m.GetAnnounce(); a != nil {
				got = append(got, fmt.Sprint("announce ", m.Shard))
			} else {
				got = append(got, fmt.Sprint(m.GetAttach().GetConn(), " of ", m.Shard))
			}
		}
		l := newFarLine("e1", 3, testEdge{e}, testCore{e})
		defer l.Close(false)
		l.Dial()
		time.Sleep(2 * patience)
		stop := make(chan struct{})
		l.set(func() { l.stall, l.stalled = stop, Bulk })
		command := func(shard uint32, conn uint64) {
			_ = e.uplink().Up(&Up{Shard: shard, Body: &Up_Attach{Attach: &Attach{Conn: conn}}})
			synctest.Wait()
		}
		announce := func(shard uint32) {
			_ = e.uplink().Up(&Up{Shard: shard, Body: &Up_Announce{Announce: &Announce{}}})
			synctest.Wait()
		}
		command(5, 1)
		announce(5)
		command(5, 2)
		announce(6)
		command(6, 3)
		command(5, 4)
		command(7, 5)
		if want := "1 of 5; 5 of 7"; strings.Join(got, "; ") != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		close(stop)
		synctest.Wait()
		if want := "1 of 5; 5 of 7; announce 5; 2 of 5; 4 of 5; announce 6; 3 of 6"; strings.Join(got, "; ") != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	})
}

// Many senders, with frames lost and streams that end meanwhile: each epoch is seen as 1, 2, 3 …, at both ends.
func TestFarOrderUnderFaults(t *testing.T) {
	e := &ends{}
	var epoch, seq atomic.Uint64
	e.onUp = func(m *Up) {
		if m.Epoch != epoch.Load() {
			epoch.Store(m.Epoch)
			seq.Store(0)
		}
		if n := seq.Add(1); m.Seq != n {
			t.Errorf("epoch %d: seq %d, want %d", m.Epoch, m.Seq, n)
		}
	}
	l := newFarLine("e1", 3, testEdge{e}, testCore{e})
	l.Dial()
	deadline := time.Now().Add(30 * time.Second)
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for i := 0; epoch.Load() < 4 && time.Now().Before(deadline); i++ {
				runtime.Gosched()
				up, down := e.uplink(), e.downlink()
				if up != nil {
					_ = up.Up(&Up{Shard: uint32(i % 64)})
				}
				if down != nil {
					down.Down(&Down{})
				}
				switch {
				case i%100 == 50:
					l.DropUp(1)
				case i%1700 == 1699:
					l.Dial()
				}
			}
		})
	}
	senders.Wait()
	l.Close(true)
	if epoch.Load() < 4 {
		t.Fatalf("epoch %d after 30 s", epoch.Load())
	}
}
