// Package progress draws how far a long command is.
package progress

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Bar is one line of progress on a terminal; elsewhere it is silent.
type Bar struct {
	W    io.Writer
	On   bool // W is a terminal
	last time.Time
}

// Show draws the bar for a step, at most five times a second.
func (b *Bar) Show(step string, done, all float64) {
	if !b.On || all <= 0 || time.Since(b.last) < 200*time.Millisecond {
		return
	}
	b.last = time.Now()
	const width = 30
	part := min(max(done/all, 0), 1)
	full := int(part * width)
	fmt.Fprintf(b.W, "\r\x1b[K%s%s %3.0f %%  %s", strings.Repeat("█", full), strings.Repeat("░", width-full), part*100, step)
}

// Clear removes the line.
func (b *Bar) Clear() {
	if b.On {
		fmt.Fprint(b.W, "\r\x1b[K")
	}
}
