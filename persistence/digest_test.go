package persistence

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// TestDigest: a replica that was made from a snapshot has the digest of its source, although its log, its hard state and its
// id are its own; any other row gives another one.
func TestDigest(t *testing.T) {
	src, dst := openMem(t), openMem(t)
	seeded(t, src, 1, 3000, 900)
	seeded(t, src, 2, 10, 900)
	staged, err := dst.Receive(bytes.NewReader(send(t, src, 1)))
	if err == nil {
		err = dst.Ingest(staged, 41, 9, 9)
	}
	if err == nil {
		err = dst.Write([]Update{{Group: 1, Entries: entries(901, 905, 41, "new"), Hard: hardState(41, 9, 900)}}, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	digest := func(s *Store, ctx context.Context) (uint64, int64, error) {
		p, err := s.Snapshot(1)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		return p.Digest(ctx)
	}
	want, rows, err := digest(src, t.Context())
	if err != nil || rows != 3000 {
		t.Fatal(rows, err)
	}
	if got, n, err := digest(dst, t.Context()); got != want || n != rows || err != nil {
		t.Errorf("%x of %d rows, want %x of %d: %v", got, n, want, rows, err)
	}
	for _, op := range []Op{put("r000007", "other"), {Key: []byte("r000008")}, put("", "")} {
		if err := dst.Write([]Update{{Group: 1, Ops: []Op{op}}}, false); err != nil {
			t.Fatal(err)
		}
		got, _, err := digest(dst, t.Context())
		if err != nil || got == want {
			t.Errorf("%q changed, the digest did not: %v", op.Key, err)
		}
		want = got
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := digest(src, over); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
