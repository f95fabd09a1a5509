package chaos

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// bar is one line of progress on a terminal; elsewhere it is silent.
type bar struct {
	w    io.Writer
	on   bool
	last time.Time
}

// show draws the bar for a step, at most five times a second.
func (b *bar) show(step string, done, all float64) {
	if !b.on || all <= 0 || time.Since(b.last) < 200*time.Millisecond {
		return
	}
	b.last = time.Now()
	const width = 30
	part := min(max(done/all, 0), 1)
	full := int(part * width)
	fmt.Fprintf(b.w, "\r\x1b[K%s%s %3.0f %%  %s", strings.Repeat("█", full), strings.Repeat("░", width-full), part*100, step)
}

func (b *bar) clear() {
	if b.on {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
