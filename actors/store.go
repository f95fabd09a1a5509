package actors

import (
	"errors"

	"muster/actors/row"
)

// Write is one change of a shard's rows. End not nil: delete all keys in [Key, End);
// Value nil: delete Key; else put.
type Write = row.Write

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
	// Confirm calls done once, from any goroutine and at any time: with nil when, after the call, it was certain
	// that no later term of the shard had committed anything, and all that was committed before the call is seen by
	// Get and Scan; else with an error. done does not block.
	Confirm(shard uint32, done func(error))
}

// Why a Store does not take a proposal.
var (
	ErrNotLeader = errors.New("actors: the shard is not led under this term here")
	ErrBusy      = errors.New("actors: too much is in flight")
	ErrNoRoom    = errors.New("actors: no room on the disk")
)
