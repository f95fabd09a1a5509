package cluster

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"muster/persistence/memdisk"
)

// onDisk gives the nodes directories of the real disk.
func (c *testCluster) onDisk(b *testing.B) *testCluster {
	for _, n := range c.nodes {
		n.fs, n.dir = nil, b.TempDir()
	}
	b.Cleanup(c.close) // before the directories go
	return c
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdle tells what 64 shards and the meta group cost a process that nobody uses.
func BenchmarkIdle(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) {
			c := newCluster(b, nodes, nodes, 64, nil).onDisk(b).start()
			for _, n := range c.nodes {
				eventually(b, "ready", func() bool { return len(n.engine.NotReady()) == 0 })
			}
			<-time.After(500 * time.Millisecond)
			before := cpu(b)
			b.ResetTimer()
			for range b.N {
				<-time.After(time.Second)
			}
			b.ReportMetric(100*float64(cpu(b)-before)/float64(b.Elapsed()), "%cpu")
		})
	}
}

// BenchmarkPropose is one command after the other from each of so many clients, over 64 shards,
// with fsync.
func BenchmarkPropose(b *testing.B) {
	for _, nodes := range []int{1, 3} {
		for _, clients := range []int{1, 64, 1000} {
			b.Run(fmt.Sprintf("nodes=%d/inflight=%d", nodes, clients), func(b *testing.B) {
				propose(b, newCluster(b, nodes, nodes, 64, nil).onDisk(b), clients)
			})
		}
	}
}

// BenchmarkProposeMemory is the same without a disk: what the processor alone allows.
func BenchmarkProposeMemory(b *testing.B) {
	c := newCluster(b, 1, 1, 64, nil)
	c.nodes[0].fs = &memdisk.Disk{MemFS: vfs.NewMem()}
	propose(b, c, 64)
}

func propose(b *testing.B, c *testCluster, clients int) {
	c.start()
	leaders := make([]*testNode, 64)
	for shard := range leaders {
		leaders[shard] = c.leader(uint32(shard))
	}
	value := string(make([]byte, 200))
	work := make(chan int)
	lat := make([]time.Duration, b.N)
	done := make(chan bool)
	before := cpu(b)
	b.ResetTimer()
	for range clients {
		go func() {
			for i := range work {
				began := time.Now()
				if err := leaders[i%64].put(uint32(i%64), fmt.Sprint("key", i), value); err != nil {
					b.Error(err)
				}
				lat[i] = time.Since(began)
			}
			done <- true
		}()
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	for range clients {
		<-done
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1e3, "cpu-µs/op")
	p50, p99 := percentiles(lat)
	b.ReportMetric(p50, "p50-µs")
	b.ReportMetric(p99, "p99-µs")
}

func percentiles(lat []time.Duration) (p50, p99 float64) {
	slices.Sort(lat)
	us := func(part float64) float64 { return float64(lat[int(part*float64(len(lat)-1))].Nanoseconds()) / 1e3 }
	return us(0.5), us(0.99)
}
