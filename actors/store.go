package actors

import (
	"errors"

	"muster/actors/link"
)

// Write is one change of a shard's rows. End not nil: delete all keys in [Key, End);
// Value nil: delete Key; else put.
type Write struct{ Key, End, Value []byte }

// Store keeps the rows of the shards. It calls Node.Opened, Node.Closed and
// Node.Committed, in order for each shard, and none of them from within its methods.
//
// All methods are safe for concurrent use and do not wait for other nodes or for a sync.
type Store interface {
	// Propose asks for the writes to be made durable, all or none, under a term that the
	// shard is open in. seq rises by one with each accepted proposal of (shard, term), from 1;
	// at is the shard's time, Unix ms, and never falls. Committed reports that all
	// proposals up to a seq are durable and that Get and Scan see them.
	// It returns ErrNotLeader, ErrBusy or ErrNoRoom, or an error that wraps one of these: then
	// nothing was proposed and seq is free again.
	Propose(shard uint32, term, seq uint64, at int64, writes []Write) error
	// Get reads one row as committed.
	Get(shard uint32, key []byte) (value []byte, ok bool, err error)
	// Scan visits the rows in [from, to) in order of their keys, until visit says no. What
	// visit is given may be overwritten when it returned.
	Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error
}

// Why a Store does not take a proposal.
var (
	ErrNotLeader = errors.New("actors: the shard is not led under this term here")
	ErrBusy      = errors.New("actors: too much is in flight")
	ErrNoRoom    = errors.New("actors: no room on the disk")
)

// Opened opens a shard under a term, in which at is the latest time committed, Unix ms.
// generation counts the times that the shard is known to have lost history. It does not block.
func (n *Node) Opened(shard uint32, term, generation uint64, at int64) {}

// Closed closes a shard: when it returned, nothing of the term leaves it. It does not
// block for longer than a message to an edge takes.
func (n *Node) Closed(shard uint32, term uint64) {}

// Committed reports that all proposals of (shard, term) up to seq are durable and
// visible, the last one in the log at index. It does not block.
func (n *Node) Committed(shard uint32, term, seq, index uint64) {}

// ReadEvents returns up to limit events of a shard that is open here, those with a seq greater than
// after, and the seq of the oldest event kept (0: there is none). It returns ErrNotLeader if the shard is not open.
func (n *Node) ReadEvents(shard uint32, after uint64, limit int) (events []*link.Event, first uint64, err error) {
	return nil, 0, ErrNotLeader
}

// HookCursor returns the seq of the last event of a shard that the webhook is done with.
func (n *Node) HookCursor(shard uint32) (uint64, error) { return 0, ErrNotLeader }

// SetHookCursor moves the cursor to seq and keeps the events that were refused for good
// as letters. It is durable when it returns; it waits for that.
func (n *Node) SetHookCursor(shard uint32, seq uint64, dead []*link.Event) error { return ErrNotLeader }
