package actors

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
)

// sink is an edge that counts answers, and says when a batch of them has come.
type sink struct {
	up      link.Uplink
	answers atomic.Int64
	batches chan struct{}
}

const batch = 1000

func (s *sink) LinkUp(up link.Uplink, _ uint64) { s.up = up }
func (s *sink) LinkDown(uint64)                 {}
func (s *sink) Beat(*link.Beat)                 {}
func (s *sink) Down(d *link.Down) {
	switch d.Body.(type) {
	case *link.Down_Attached, *link.Down_Acted, *link.Down_Views:
		if s.answers.Add(1)%batch == 0 {
			s.batches <- struct{}{}
		}
	case *link.Down_Answer:
		if d.GetAnswer().Call == batch {
			s.batches <- struct{}{}
		}
	}
}

func (s *sink) announceNothing() {
	for shard := range uint32(link.Shards) {
		_ = s.up.Up(&link.Up{Shard: shard, Body: &link.Up_Announce{Announce: &link.Announce{Id: 1, Term: 1, SessionsDone: true, Done: true}}})
	}
}

// nowhere is a Store that keeps nothing, so that a benchmark sees the shells alone.
type nowhere struct{ node *Node }

func (s *nowhere) Propose(shard uint32, term, seq uint64, _ int64, _ []Write) error {
	s.node.Committed(shard, term, seq, seq)
	return nil
}
func (*nowhere) Get(uint32, []byte) ([]byte, bool, error)                        { return nil, false, nil }
func (*nowhere) Scan(uint32, []byte, []byte, func(key, value []byte) bool) error { return nil }
func (*nowhere) Confirm(_ uint32, done func(error))                              { done(nil) }

func benchNode(b *testing.B) (*Node, *sink) {
	store := &nowhere{}
	n, err := New(Config{Name: "n1", Store: store})
	if err != nil {
		b.Fatal(err)
	}
	store.node = n
	if err := n.Start(); err != nil {
		b.Fatal(err)
	}
	for shard := range uint32(link.Shards) {
		n.Opened(shard, 1, 0, 0)
	}
	s := &sink{batches: make(chan struct{}, 1000)}
	p := link.NewPipe("e1", 1, s, n)
	p.Dial()
	b.Cleanup(func() { p.Close(false); n.Stop() })
	s.announceNothing()
	return n, s
}

func attachAll(b *testing.B, s *sink, n int) {
	for i := range n {
		user := fmt.Sprintf("user-%07d", i)
		_ = s.up.Up(&link.Up{Shard: link.ShardOf(app, link.KindUser, user), Body: &link.Up_Attach{Attach: &link.Attach{Call: uint64(i + 1), App: app, User: user,
			Device: fmt.Sprintf("device-%012x", i), Class: uint32(presence.Web), Session: fmt.Sprintf("%032x", i), Conn: uint64(i + 1), Attempt: 1, GraceMs: -1}}})
	}
	for range n / batch {
		<-s.batches
	}
}

// cpu is the time that the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memory is what is live, and what the heap holds for it: the rest of it is free slots
// among live ones, for what comes next.
func onHeap() (live, held float64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse), float64(m.HeapInuse + m.StackInuse)
}

const residents = 100_000

// gates is how many users of a node have something in flight.
func gates(n *Node) (sum int) {
	count := make(chan int, link.Shards)
	for shard := range uint32(link.Shards) {
		n.post(shard, &request{done: func(error) {}, do: func(g *gateway, _ time.Time) { count <- len(g.gates) }})
	}
	for range link.Shards {
		sum += <-count
	}
	return sum
}

// BenchmarkResident is what one online user costs, all in: actor, state, index.
func BenchmarkResident(b *testing.B) {
	for b.Loop() {
		n, s := benchNode(b)
		live, held := onHeap()
		attachAll(b, s, residents)
		for gates(n) > 0 { // until the markers are written
			runtime.Gosched()
		}
		liveNow, heldNow := onHeap()
		b.ReportMetric((liveNow-live)/residents, "B/user")
		b.ReportMetric((heldNow-held)/residents, "held-B/user")
		if got := n.Stats().Users.Load(); got != residents {
			b.Fatalf("%d resident", got)
		}
	}
}

// BenchmarkRandomUser is a message through its gateway to one of 100,000 users, without
// and with a change of what it shows.
func BenchmarkRandomUser(b *testing.B) {
	_, s := benchNode(b)
	attachAll(b, s, residents)
	names := make([]string, residents)
	for i := range names {
		names[i] = fmt.Sprintf("user-%07d", i)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	// The generator keeps at most eight batches in flight. Its own part of the CPU time is
	// some 0.5 µs.
	send := func(b *testing.B, act func(i int) *link.Act) {
		s.answers.Store(0)
		sent := 0
		b.ReportAllocs()
		used := cpu(b)
		for b.Loop() {
			i := rng.IntN(residents)
			a := act(i)
			a.Call, a.App, a.User = 1, app, names[i]
			_ = s.up.Up(&link.Up{Shard: link.ShardOf(app, link.KindUser, a.User), Body: &link.Up_Act{Act: a}})
			if sent++; sent%batch == 0 && sent >= 8*batch {
				<-s.batches
			}
		}
		for s.answers.Load() < int64(sent) {
			runtime.Gosched()
		}
		b.ReportMetric(float64(cpu(b)-used)/float64(sent), "cpu-ns/op")
		for len(s.batches) > 0 {
			<-s.batches
		}
	}
	b.Run("refused", func(b *testing.B) {
		send(b, func(int) *link.Act { return &link.Act{What: &link.Act_EndClaim{EndClaim: "none"}} })
	})
	b.Run("durable", func(b *testing.B) {
		send(b, func(int) *link.Act {
			return &link.Act{What: &link.Act_Claim{Claim: &link.Claim{Id: "c", Source: "api", State: uint32(presence.DND), Priority: -1, Durable: true}}}
		})
	})
	b.Run("status", func(b *testing.B) {
		send(b, func(i int) *link.Act {
			return &link.Act{Session: fmt.Sprintf("%032x", i), Conn: uint64(i + 1), What: &link.Act_Claim{Claim: &link.Claim{
				Id: "manual", Source: "manual", State: uint32(presence.Away + presence.State(rng.IntN(2))), Priority: -1}}}
		})
	})
}

// BenchmarkIdle is the node's loop: 64 gateways, once a second.
func BenchmarkIdle(b *testing.B) {
	n, _ := benchNode(b)
	for b.Loop() {
		n.tellAll(presence.Cluster{})
	}
}

// BenchmarkWatch is an edge's interest in one user who is not there, as a connect with
// twenty watches sends twenty times.
func BenchmarkWatch(b *testing.B) {
	_, s := benchNode(b)
	rng := rand.New(rand.NewPCG(1, 2))
	names := make([]string, residents)
	for i := range names {
		names[i] = fmt.Sprintf("user-%07d", i)
	}
	s.answers.Store(0)
	sent := 0
	b.ReportAllocs()
	used := cpu(b)
	for b.Loop() {
		user := names[rng.IntN(residents)]
		_ = s.up.Up(&link.Up{Shard: link.ShardOf(app, link.KindUser, user), Body: &link.Up_Interest{Interest: &link.Interest{Call: 1, App: app,
			Watcher: names[sent/20%residents], Add: []string{user}}}})
		if sent++; sent%batch == 0 && sent >= 8*batch {
			<-s.batches
			s.up.Beat(&link.Beat{})
		}
	}
	for s.answers.Load() < int64(sent) {
		runtime.Gosched()
	}
	b.ReportMetric(float64(cpu(b)-used)/float64(sent), "cpu-ns/op")
}
