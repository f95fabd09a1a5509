package stream

import (
	"bytes"
	"context"
	"testing"
	"time"
)

func FuzzFrame(f *testing.F) {
	es := []envelope{{kind: 1, payload: []byte("a")}, {form: relayTo, kind: 2, far: 3, epoch: 4, payload: []byte("b")}, {form: relayFrom, far: 1}}
	f.Add(frameOf(1, es).ReadOnlyData())
	f.Add([]byte{1, 2, 9, 9})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var read []envelope
		unknown, err := openFrame(b, 1, func(e envelope) { read = append(read, e) })
		if err != nil || unknown > 0 {
			return
		}
		var again []envelope
		if _, err := openFrame(frameOf(1, read).ReadOnlyData(), 1, func(e envelope) { again = append(again, e) }); err != nil || len(again) != len(read) {
			t.Fatalf("%d envelopes became %d: %v", len(read), len(again), err)
		}
		for i, e := range read {
			if a := again[i]; a.form != e.form || a.kind != e.kind || a.far != e.far || a.epoch != e.epoch || !bytes.Equal(a.payload, e.payload) {
				t.Errorf("%+v became %+v", e, a)
			}
		}
	})
}

func TestFrames(t *testing.T) {
	es := []envelope{{kind: 1, payload: []byte("a")}, {form: relayTo, kind: 2, far: 3, epoch: 4, payload: bytes.Repeat([]byte("b"), 300)}, {}}
	frame := frameOf(1, es).ReadOnlyData()
	n := 0
	if unknown, err := openFrame(frame, 1, func(e envelope) {
		if w := es[n]; e.form != w.form || e.kind != w.kind || e.far != w.far || e.epoch != w.epoch || !bytes.Equal(e.payload, w.payload) {
			t.Errorf("%+v became %+v", w, e)
		}
		n++
	}); err != nil || unknown != 0 || n != len(es) {
		t.Error(n, unknown, err)
	}
	if _, err := openFrame(frame, 2, func(envelope) {}); err == nil {
		t.Error("a frame of another version")
	}
	for cut := range len(frame) {
		n := 0
		_, err := openFrame(frame[:cut], 1, func(envelope) { n++ })
		if n == len(es) || err == nil && cut != 1 && n == 0 {
			t.Errorf("%d of %d bytes: %d envelopes, %v", cut, len(frame), n, err)
		}
	}
}

// A stream whose epoch ends while only a part was taken of what waits ends too.
func TestQueueClosedHalfTaken(t *testing.T) {
	q := newQueue(1 << 30)
	for range 4 {
		if err := q.put(envelope{payload: make([]byte, frameBytes)}); err != nil {
			t.Fatal(err)
		}
	}
	if got, ok := q.take(nil); len(got) != 1 || !ok {
		t.Fatalf("took %d, %v", len(got), ok)
	}
	q.close()
	if got, ok := q.take(nil); len(got) != 0 || ok {
		t.Fatalf("took %d after the end, %v", len(got), ok)
	}
	if err := q.put(envelope{}); err != ErrDown {
		t.Fatal(err)
	}
}

func TestQueue(t *testing.T) {
	q := newQueue(3 * cost(envelope{payload: make([]byte, 100)}))
	put := func(n byte) error { return q.put(envelope{kind: n, payload: make([]byte, 100)}) }
	for i := range byte(3) {
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(3); err != ErrFull {
		t.Error(err)
	}
	waited := make(chan error)
	go func() { waited <- q.wait(t.Context(), envelope{kind: 3}) }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := q.wait(ctx, envelope{kind: 9, payload: make([]byte, 100)}); err != context.DeadlineExceeded {
		t.Error(err)
	}
	for next := byte(0); next < 4; {
		es, ok := q.take(nil)
		if !ok {
			t.Fatal("closed")
		}
		for _, e := range es {
			if e.kind != next {
				t.Fatalf("%d came, %d was due", e.kind, next)
			}
			next++
		}
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := q.put(envelope{payload: make([]byte, 1<<20)}); err != nil {
		t.Error("one message larger than an empty queue:", err)
	}
	q.close()
	if err := put(0); err != ErrDown {
		t.Error(err)
	}
	if _, ok := q.take(nil); ok {
		t.Error("taken from a closed queue")
	}
}
