package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/time/rate"

	"muster/cluster"
)

// TestPace sends two bodies of 32 MB in two virtual seconds, since they share one limit.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := rate.NewLimiter(snapshotRate, chunkBytes)
		began := time.Now()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				body := &paced{t.Context(), limit, bytes.NewReader(make([]byte, snapshotRate))}
				if n, err := body.WriteTo(io.Discard); n != snapshotRate || err != nil {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
		both.Wait()
		if took := time.Since(began); took < 1900*time.Millisecond || took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		began = time.Now()
		n, err := (&paced{ctx, limit, bytes.NewReader(make([]byte, snapshotRate))}).WriteTo(io.Discard)
		if !errors.Is(err, context.Canceled) || time.Since(began) != 100*time.Millisecond || n > snapshotRate/9 {
			t.Errorf("cut off after %d bytes and %v: %v", n, time.Since(began), err)
		}
	})
}

// taker reads snapshots and counts their bytes.
type taker struct {
	events
	got atomic.Int64
}

func (r *taker) ReceiveSnapshot(_ uint64, _ cluster.Message, rows io.Reader) error {
	b := make([]byte, 64<<10)
	for {
		n, err := rows.Read(b)
		r.got.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// TestSnapshotsArePaced has two snapshots share a limit that lets one chunk pass.
func TestSnapshotsArePaced(t *testing.T) {
	const size = 2 << 20
	a, b := startNode(t, 1), startNode(t, 2)
	to := &taker{}
	Raft(b.Net).Start(to)
	from := Raft(a.Net).(*raftPort)
	from.Start(&events{})
	join(t, a, b)
	if from.limit.Limit() != snapshotRate || from.limit.Burst() != chunkBytes {
		t.Errorf("%v bytes a second, %d at once", from.limit.Limit(), from.limit.Burst())
	}
	from.limit.SetLimit(1)
	done := make(chan error, 2)
	for range 2 {
		m := cluster.Message{Group: 1, From: 1, To: 2, Raft: &raftpb.Message{Type: raftpb.MsgSnap.Enum()}}
		from.SendSnapshot(m, bytes.NewReader(make([]byte, size)), func(err error) { done <- err })
	}
	eventually(t, "both wait", func() bool { return from.limit.Tokens() < -1.9*chunkBytes })
	eventually(t, "the first chunk arrives", func() bool { return to.got.Load() >= chunkBytes })
	if got := to.got.Load(); got != chunkBytes || len(done) > 0 {
		t.Errorf("%d bytes arrived, %d snapshots are done", got, len(done))
	}
	from.Stop() // they wait for their turn, years from now
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
