package edge

import (
	"testing"
	"time"
)

// A hub that writes little puts busy sockets off only while the process is full.
func TestLoadWindow(t *testing.T) {
	for name, c := range map[string]struct {
		load load
		want int64
	}{
		"idle":                {load{}, 0},
		"half busy":           {load{share: 0.5}, 0},
		"full process":        {load{share: 0.1, full: true}, windowMin},
		"writes all the time": {load{share: 1}, windowMax},
		"both":                {load{share: 1, full: true}, windowMax},
	} {
		if got := c.load.window(); got != c.want {
			t.Errorf("%s: %d ms, want %d", name, got, c.want)
		}
	}
}

// The measure of a full process falls with the next slot in which it had time left.
func TestLoadMeasuresTheProcess(t *testing.T) {
	start := time.Now()
	used := cpuTime().Microseconds()
	l := load{cpu: used - time.Hour.Microseconds()} // as if an hour of work had been done since
	l.add(start.Add(time.Second), 0, start)
	if !l.full {
		t.Error("a process that used more than its processors' time does not count as full")
	}
	l.add(start.Add(time.Hour), 0, start)
	if l.full {
		t.Error("a process that used next to nothing counts as full")
	}
}
