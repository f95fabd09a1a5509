package stream

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pair is two connected nodes; b counts what it receives.
func pair(b *testing.B, change ...func(*Config)) (one *node, count *atomic.Int64) {
	count = &atomic.Int64{}
	change = append(change, func(cfg *Config) {
		cfg.Receive = func(Peer, Class, byte, []byte) { count.Add(1) }
	})
	one, two := startNode(b, 1, change...), startNode(b, 2, change...)
	two.Handle("echo", false, func(_ context.Context, _ Peer, req []byte) ([]byte, error) { return req, nil })
	join(b, one, two)
	return one, count
}

// BenchmarkSend: one way over loopback, both ends in this process; cpu-ns/op is of both.
func BenchmarkSend(b *testing.B) {
	for name, change := range map[string]func(*Config){"mTLS": func(*Config) {}, "plain": plain} {
		for _, size := range []int{64, 1024} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				one, count := pair(b, change)
				payload := make([]byte, size)
				before := processor()
				b.ReportAllocs()
				for b.Loop() {
					if err := one.SendWait(context.Background(), 2, 0, 0, payload); err != nil {
						b.Fatal(err)
					}
				}
				eventually(b, "all arrived", func() bool { return count.Load() >= int64(b.N) })
				b.ReportMetric(float64(processor()-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func BenchmarkCall(b *testing.B) {
	one, _ := pair(b)
	req := make([]byte, 100)
	before := processor()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := one.Call(context.Background(), 2, "echo", req); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(processor()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkIdlePeer reports what a connection costs when nothing but pings goes over it: memory of both ends,
// and the processor's time a second.
func BenchmarkIdlePeer(b *testing.B) {
	const peers = 20
	for b.Loop() {
		hub := startNode(b, 1)
		var before, after runtime.MemStats
		nodes := []*node{hub}
		for i := range peers {
			nodes = append(nodes, startNode(b, uint64(i+2)))
		}
		runtime.GC()
		runtime.ReadMemStats(&before)
		routines := runtime.NumGoroutine()
		var far []Peer
		for _, n := range nodes[1:] {
			far = append(far, n.self)
			n.SetPeers([]Peer{hub.self})
		}
		hub.SetPeers(far)
		for _, n := range nodes[1:] {
			connected(b, hub, n)
		}
		used := processor()
		began := time.Now()
		<-time.After(2 * time.Second)
		b.ReportMetric(float64(processor()-used)/time.Since(began).Seconds()/peers/1000, "µs/s/pair")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/peers/1024, "KiB/pair")
		b.ReportMetric(float64(runtime.NumGoroutine()-routines)/peers, "goroutines/pair")
		for _, n := range nodes {
			n.Stop()
		}
	}
}

type zeros int

func (z zeros) WriteTo(w io.Writer) (n int64, err error) {
	b := make([]byte, 64<<10)
	for n < int64(z) && err == nil {
		var k int
		k, err = w.Write(b)
		n += int64(k)
	}
	return n, err
}

func BenchmarkStream(b *testing.B) {
	const size = 64 << 20
	takes := func(cfg *Config) {
		cfg.OnStream = func(_ Peer, _ byte, _ []byte, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		}
	}
	one, two := startNode(b, 1, takes), startNode(b, 2, takes)
	join(b, one, two)
	b.SetBytes(size)
	for b.Loop() {
		if err := one.Stream(context.Background(), 2, 0, nil, zeros(size)); err != nil {
			b.Fatal(err)
		}
	}
}
