package stream

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// snapshotRate is how fast a node sends snapshots, all of them together, in bytes a second: what is moved must leave room for messages.
const snapshotRate = 32_000_000

// paced is a body that is sent no faster than a limit allows, which it may share with others. The limit's burst is chunkBytes.
type paced struct {
	ctx   context.Context
	limit *rate.Limiter
	body  io.WriterTo
}

func (p *paced) WriteTo(w io.Writer) (int64, error) {
	return p.body.WriteTo(&pacedWriter{p, w})
}

type pacedWriter struct {
	*paced
	w io.Writer
}

func (p *pacedWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		piece := b[:min(len(b), chunkBytes)]
		if err = p.limit.WaitN(p.ctx, len(piece)); err != nil {
			break
		}
		var k int
		k, err = p.w.Write(piece)
		n, b = n+k, b[k:]
	}
	return n, err
}
