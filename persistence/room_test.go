package persistence

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestRoom: low below the reserve, the ballast held while there is room, set free on demand.
func TestRoom(t *testing.T) {
	mem := vfs.NewMem()
	disk := func(free uint64) { mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 100 << 30}) }
	held := func() bool { ok, _ := exists(mem, "data/ballast"); return ok }
	disk(50 << 30)
	o := small(mem)
	o.Ballast = 0
	s, err := Open("data", o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		free      uint64
		low, held bool
	}{{50 << 30, false, true}, {5<<30 + 1, false, true}, {5<<30 - 1, true, true}, {0, true, true}} {
		disk(c.free)
		if free, low := s.Room(); free != c.free || low != c.low || held() != c.held {
			t.Errorf("%d free: %d %v, ballast %v", c.free, free, low, held())
		}
	}
	if n, err := s.Release(); err != nil || n != DefaultBallast || held() {
		t.Error(n, err)
	}
	if n, err := s.Release(); err != nil || n != 0 {
		t.Error(n, err)
	}
	disk(5<<30 + 1000) // room, but not for the ballast too
	if _, low := s.Room(); low || held() {
		t.Error("low or held")
	}
	disk(6 << 30)
	if _, low := s.Room(); low || !held() {
		t.Error("low or not held")
	}
	disk(1 << 20)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open("data", o); err != nil || held() {
		t.Fatalf("the ballast is not released where the disk is full at the start: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
