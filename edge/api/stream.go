package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"muster/clients/wire"
)

// Times of a stream of events.
const (
	streamPoll  = 500 * time.Millisecond // between two looks at what is new
	streamAlive = 15 * time.Second       // of silence until a comment goes, to keep proxies from closing
	streamWrite = 30 * time.Second       // for the reader to take a batch
	streamBatch = 100                    // events at once
	maxStreams  = 100
)

func wantsStream(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// streamRequest reads the parameters of a stream, which huma does not see.
func streamRequest(r *http.Request) *eventsRequest {
	q := r.URL.Query()
	in := &eventsRequest{Cursor: q.Get("cursor"), Types: q["types"], Limit: streamBatch}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		in.Cursor = last // the browser's own memory is the newer
	}
	return in
}

// stream answers with events as they come, until the reader goes or the server does.
func (a *API) stream(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if a.streaming.Add(1) > maxStreams {
		a.streaming.Add(-1)
		writeError(w, fail(wire.CodeBusy, 5*time.Second, "%d streams are open already", maxStreams))
		return
	}
	defer a.streaming.Add(-1)
	in := streamRequest(r)
	at, err := in.from(ctx, a)
	if err != nil {
		writeError(w, callError(err))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out := &sink{w: w, control: http.NewResponseController(w)}
	_ = out.control.SetReadDeadline(time.Time{}) // of the request, which would end the stream; where there is none, none is set
	if !out.send([]byte(": muster\n\n")) {
		return
	}
	wanted := in.wanted(appOf(ctx))
	alive := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		case <-a.streams:
			return
		}
		p := readPage(at, in.Limit, wanted, func(shard uint32, from place, limit int) fetched {
			return a.eventsAfter(ctx, shard, from, limit)
		})
		at = p.at
		switch b := streamed(&p); {
		case len(b) > 0:
			alive = time.Now()
			if !out.send(b) {
				return
			}
		case time.Since(alive) >= streamAlive:
			alive = time.Now()
			if !out.send([]byte(": \n\n")) {
				return
			}
		}
		if p.more {
			timer.Reset(0)
		} else {
			timer.Reset(streamPoll)
		}
	}
}

// streamed is a page as server-sent events. Only the last carries the cursor: who comes back after a broken batch
// gets all of it again.
func streamed(p *page) []byte {
	var b bytes.Buffer
	if p.missed {
		b.WriteString("event: missed\ndata: {}\n\n")
	}
	for i := range p.events {
		data, err := json.Marshal(&p.events[i])
		if err != nil {
			continue // its data is no JSON: a bug of the shard's, told by the other readers
		}
		if i == len(p.events)-1 {
			fmt.Fprintf(&b, "id: %s\n", p.at.String())
		}
		fmt.Fprintf(&b, "event: %s\ndata: %s\n\n", oneLine(p.events[i].Type), data)
	}
	return b.Bytes()
}

var oneLine = strings.NewReplacer("\n", "", "\r", "").Replace

// sink writes to a reader that may be slow, but not for ever.
type sink struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s *sink) send(b []byte) bool {
	if err := s.control.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false
	}
	if _, err := s.w.Write(b); err != nil {
		return false
	}
	return s.control.Flush() == nil
}
