package cluster

import (
	"strings"
	"testing"
	"time"
)

func TestClocks(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name    string
		offsets []time.Duration // of the others from the own clock
		want    time.Duration   // how far the own one is ahead of the median
	}{
		{"alone", nil, 0},
		{"two that differ", []time.Duration{time.Hour}, 0},
		{"all the same", []time.Duration{0, 0}, 0},
		{"ahead of two", []time.Duration{-5 * second, -5 * second}, 5 * second},
		{"behind two", []time.Duration{4 * second, 6 * second}, -4 * second},
		{"one of the others is wrong", []time.Duration{0, time.Hour}, 0},
		{"two against two", []time.Duration{0, time.Hour, time.Hour}, 0},
		{"one against three", []time.Duration{time.Hour, time.Hour, time.Hour}, -time.Hour},
		{"ahead of three of four", []time.Duration{-3 * second, -4 * second, -9 * second}, 3 * second},
		{"five, all apart", []time.Duration{-2 * second, -second, second, 2 * second}, 0},
	} {
		var k clocks
		for i, o := range c.offsets {
			k.add(uint64(i+1), o, 0)
		}
		if got := k.error(0); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestClockIsRightAgain(t *testing.T) {
	var k clocks
	at := func(now, offset time.Duration) bool {
		k.add(1, offset, now)
		k.add(2, offset, now)
		return k.judge(now) != ""
	}
	for i, step := range []struct {
		offset time.Duration
		wrong  bool
	}{
		{2 * time.Second, false}, {2001 * time.Millisecond, true}, {1500 * time.Millisecond, true}, {time.Second, false}, {1500 * time.Millisecond, false},
		{-3 * time.Second, true}, {0, false}, {time.Hour, true},
	} {
		if got := at(time.Duration(i)*time.Second, step.offset); got != step.wrong {
			t.Errorf("step %d, %v off: %v", i, step.offset, got)
		}
	}
	if why := k.judge(16 * time.Second); !strings.Contains(why, "3 nodes") {
		t.Errorf("it says %q", why)
	}
	if why := k.judge(18 * time.Second); why != "" {
		t.Errorf("clocks that were not heard of for 10 s still count: %q", why)
	}
}

// TestWrongClockLeadsNothing moves the clock of a node in a cluster.
func TestWrongClockLeadsNothing(t *testing.T) {
	c := newCluster(t, 3, 3, 4, func(cfg *EngineConfig) { cfg.Tick = 20 * time.Millisecond }).start()
	n := c.leader(0)
	tell := func(offset time.Duration) {
		for _, p := range c.nodes {
			if p != n {
				n.engine.Clock(p.id, offset)
			}
		}
	}
	tell(3 * time.Second)
	eventually(t, "leaderships are given away", func() bool {
		tell(3 * time.Second)
		for shard := range uint32(4) {
			if n.isOpen(shard) {
				return false
			}
		}
		return true
	})
	says := func() bool {
		for _, why := range n.engine.NotReady() {
			if strings.Contains(why, "clock") {
				return true
			}
		}
		return false
	}
	if !says() {
		t.Errorf("not ready because of %q", n.engine.NotReady())
	}
	eventually(t, "right again", func() bool { tell(0); return !says() })
	eventually(t, "leads again", func() bool {
		_ = c.leader(0).engine.Transfer(0, n.id)
		return n.isOpen(0)
	})
}
