package edge

import "testing"

// begins lets n connects come at once, each of which is answered after so many ms, and returns when each began.
func begins(t *testing.T, n int, answered int64) []int64 {
	t.Helper()
	var c crowd
	list := make([]*opener, n)
	for i := range list {
		list[i] = &opener{began: -1}
		c.join(list[i])
	}
	left := n
	for now := int64(1000); left > 0; now++ {
		for _, o := range c.begun {
			if o.began+answered <= now {
				c.free(o)
			}
		}
		at := c.next
		if len(c.begun) == 0 {
			at = func() int64 { return now }
		}
		due := at() <= now
		began := 0
		for o := c.pick(now); o != nil; o = c.pick(now) {
			if o != list[n-left] {
				t.Fatalf("connect %d began out of turn", n-left)
			}
			if answered == 0 {
				c.free(o)
			}
			began++
			left--
		}
		if c.busy > crowdSlots || due && began == 0 {
			t.Fatalf("at %d: %d at once, %d began, the next was due %v", now, c.busy, began, due)
		}
		if now > 1_000_000 {
			t.Fatalf("%d never began", left)
		}
	}
	var times []int64
	for _, o := range list {
		times = append(times, o.began-1000)
	}
	return times
}

func TestCrowd(t *testing.T) {
	for _, c := range []struct {
		name        string
		n           int
		answered    int64
		first, last int64 // when the first that had to wait and the last begin
	}{
		{"answered at once", 1000, 0, 0, 0},
		{"few", 33, 30, 30, 30},
		{"never answered", 96, 1 << 40, 800, 1600},
		{"many answered fast", 3200, 10, 10, 990},
		{"many never answered", 3200, 1 << 40, 60, 5940},
		{"very many", 32_000, 1 << 40, 6, 5994},
		{"more than can be paced", 300_000, 1 << 40, 0, 0},
	} {
		times := begins(t, c.n, c.answered)
		if times[31] != 0 || times[32] != c.first || times[c.n-1] != c.last {
			t.Errorf("%s: number 32, 33 and the last began at %d, %d and %d ms, want 0, %d, %d", c.name, times[31], times[32], times[c.n-1], c.first, c.last)
		}
	}
}
