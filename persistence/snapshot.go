package persistence

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"
)

// Snapshot is one group as it stood when Snapshot was called.
type Snapshot struct{ State State }

// Snapshot freezes a group. Close it soon: it keeps deleted data on the disk.
func (s *Store) Snapshot(group uint32) (*Snapshot, error) { return nil, nil }

// WriteTo writes the group's state row and rows as a stream for Receive.
func (p *Snapshot) WriteTo(w io.Writer) (int64, error) { return 0, nil }

// Close lets the snapshot go.
func (p *Snapshot) Close() error { return nil }

// Staged is a received snapshot: checked, on the disk, not yet part of the store.
type Staged struct {
	Group uint32
	State State // the sender's: Applied, AppliedTerm, Conf, Members, Hash, At, Generation
}

// Receive reads a snapshot's stream to its end and stages its rows as files.
func (s *Store) Receive(r io.Reader) (*Staged, error) { return nil, nil }

// Discard deletes the staged files. After Ingest it does nothing.
func (t *Staged) Discard() error { return nil }

// Ingest replaces everything the group has here by the staged rows, in one step. hard
// is the receiver's own term and vote; its commit and the truncated log are set to
// what the snapshot covers. replica is the receiver's own replica id.
func (s *Store) Ingest(t *Staged, hard *raftpb.HardState, replica uint64) error { return nil }
