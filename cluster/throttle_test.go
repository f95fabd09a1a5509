package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// refusals counts what a log says of snapshots that were refused.
type refusals struct{ n atomic.Int64 }

func (r *refusals) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("receives 2 snapshots already")) {
		r.n.Add(1)
	}
	return len(b), nil
}

// TestTwoSnapshotsAtATime has a node receive two snapshots that never end. Another is refused, and sent again and again until there is
// room for it.
func TestTwoSnapshotsAtATime(t *testing.T) {
	var said refusals
	c := newCluster(t, 3, 3, 1, func(cfg *EngineConfig) {
		cfg.Host.LogEntries = 64
		cfg.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}).start()
	slow := c.nodes[2]
	c.leader(0)
	c.mesh.Isolate(slow.id)
	for i := range 300 {
		c.put(0, fmt.Sprint("k", i), "v")
	}
	never := Message{Group: 1, From: 1, To: 3, Raft: &raftpb.Message{Type: raftpb.MsgSnap.Enum()}}
	ended := make(chan error, maxStreams)
	var endless []*io.PipeWriter
	for range maxStreams {
		r, w := io.Pipe()
		defer w.Close()
		endless = append(endless, w)
		go func() { ended <- slow.engine.ReceiveSnapshot(1, never, r) }()
		if _, err := w.Write([]byte{0}); err != nil { // returns when it is read
			t.Fatal(err)
		}
	}
	if err := slow.engine.ReceiveSnapshot(1, never, strings.NewReader("")); !errors.Is(err, ErrBusy) {
		t.Errorf("a third one: %v", err)
	}
	c.mesh.Heal()
	eventually(t, "it is sent, and sent again", func() bool { return said.n.Load() >= 3 })
	if slow.get(0, "k299") != "-" {
		t.Error("it was taken")
	}
	for _, w := range endless {
		_ = w.CloseWithError(errUnreachable)
		if err := <-ended; err == nil || errors.Is(err, ErrBusy) {
			t.Error(err)
		}
	}
	eventually(t, "there is room for it", func() bool { return slow.get(0, "k299") == "v" })
	equalHashes(t, c, 1)
}
