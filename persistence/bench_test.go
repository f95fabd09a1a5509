package persistence

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func benchStore(b *testing.B, dir string) *Store {
	b.Helper()
	s, err := Open(dir, Options{FS: vfs.Default, Create: &Identity{Node: 1}, Ballast: -1, Logger: silent})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

func userKey(i int) []byte {
	return binary.BigEndian.AppendUint64([]byte("u\x03app\x14user-"), uint64(i)*2654435761)
}

// fill writes rows of 60 bytes to shard 0.
func fill(b *testing.B, s *Store, rows int) {
	b.Helper()
	value := make([]byte, 60)
	us := []Update{{Group: 1, State: &State{Replica: 1}}}
	for i := range rows {
		us[0].Ops = append(us[0].Ops, Op{Key: userKey(i), Value: value})
		if len(us[0].Ops) == 1000 || i == rows-1 {
			if err := s.Write(us, false); err != nil {
				b.Fatal(err)
			}
			us[0] = Update{Group: 1}
		}
	}
}

// BenchmarkWrite commits what a turn of one shard does: one entry and 64 rows of 100 bytes.
func BenchmarkWrite(b *testing.B) {
	for _, sync := range []bool{true, false} {
		b.Run(map[bool]string{true: "sync", false: "nosync"}[sync], func(b *testing.B) {
			s := benchStore(b, b.TempDir())
			st := State{Replica: 1}
			if err := s.Write([]Update{{Group: 1, State: &st}}, true); err != nil {
				b.Fatal(err)
			}
			ops := make([]Op, 64)
			value := make([]byte, 100)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				for j := range ops {
					ops[j] = Op{Key: userKey(i*64 + j), Value: value}
				}
				n := uint64(i + 1)
				st.Applied = n
				u := Update{Group: 1, Entries: entries(n, n, 1, "e"), Ops: ops, State: &st, Hard: hardState(1, 1, n)}
				if err := s.Write([]Update{u}, sync); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const rows = 200_000
	s := benchStore(b, b.TempDir())
	fill(b, s, rows)
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	get := func(name string, key func(i int) []byte, want bool) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, ok, err := s.Get(0, key(i)); ok != want || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
	get("hit", func(i int) []byte { return userKey(i * 7919 % rows) }, true)
	get("miss", func(i int) []byte { return userKey(rows + i) }, false)
	b.Run("scan 20", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			n := 0
			if err := s.Scan(0, userKey(i*7919%rows), nil, func(_, _ []byte) bool { n++; return n < 20 }); err != nil {
				b.Fatal(err)
			}
		}
	})
	// A turn that deletes a few rows by a range, then a read: what ranges left in the
	// memtable cost.
	for _, before := range []int{0, 1000, 10_000} {
		for i := range before {
			if err := s.Write([]Update{{Group: 1, Ops: []Op{{Key: userKey(i), End: append(userKey(i), 0)}}}}, false); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("range delete and get after %d", before), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				k := userKey(i * 31 % rows)
				if err := s.Write([]Update{{Group: 1, Ops: []Op{{Key: k, End: append(k, 0)}}}}, false); err != nil {
					b.Fatal(err)
				}
				if _, _, err := s.Get(0, k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens a directory with a million rows and reads one.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir, Options{Create: &Identity{Node: 1}, Ballast: -1, Logger: silent})
	if err != nil {
		b.Fatal(err)
	}
	fill(b, s, 1_000_000)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		s, err := Open(dir, Options{Ballast: -1, Logger: silent})
		if err != nil {
			b.Fatal(err)
		}
		if _, ok, err := s.Get(0, userKey(5)); !ok || err != nil {
			b.Fatal(ok, err)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.StartTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/1e6, "MB-heap")
}
