// Package persistence is a core node's disk: one Pebble instance that holds the Raft
// logs, hard states and rows of every group of the node, so that one batch and one sync
// per turn serve them all.
//
// # What it promises
//
// A Write is one batch: after a crash all of it is there or none of it, and never a later
// one without the earlier. A synced Write is there after any crash. A failed write, sync or
// read of damaged data ends the Store: Options.Fatal hears one line, and the process must
// end, because what the disk holds is known again only after it was read again. An error
// is never retried: a second fsync may succeed without the data of the first.
//
// # The directory
//
//	FORMAT     the version of all that follows, in words; every version reads it first
//	pebble/    Pebble's files and its LOCK, which keeps a second process out
//	synced     the number of the next write after the last synced one (see below)
//	staged/    received snapshots that are not part of the store; emptied by Open
//	ballast    space to come back from a full disk with
//
// # Keys
//
// Numbers are big-endian; "group" is 4 bytes: 0 the meta group, s+1 shard s.
//
//	key                          value
//	01 01                        identity, JSON
//	02 group                     tombstone: 01, the smallest replica id allowed back
//	03 group 01                  hard state: 01, term, vote, commit
//	03 group 02                  state row: 01, see State
//	03 group 03 index(8)         log entry: 01, type, term, data
//	03 group 04 inner key        a row of the shard; inner key and value are the caller's
//
// The first byte of a value is its codec's version; integers in values are varints. An
// unknown version is refused (ErrNewer), never guessed. All of a group stands under one
// prefix, so a snapshot can replace it by one IngestAndExcise, which needs a Pebble format
// that is set at birth. Rows are last, so that the rows which a snapshot's receiver builds
// itself sort before those it was sent. Identity and tombstones stand outside: they
// outlive the replica.
//
// # The log
//
// Update.Entries replaces the log from its first index on: the keys of an old tail are
// deleted in the same batch, or a restart would load the tail of an older term. The store
// knows the bounds of every log, so an append deletes nothing. Few keys are deleted one by
// one, also those of Op.End: each range deletion in a memtable makes the next read of
// anything slower, 10,000 of them by milliseconds.
//
// # What is checked at a start
//
// Pebble finds damage in the middle of its files by checksums, but takes a write-ahead log
// that ends early, is missing, or is damaged in its last part for one that was not written
// further. Three checks tell what it cannot:
//
//   - The file "synced" is written, not synced, after each sync. It never promises too
//     much, and a killed process leaves it exact; after a power loss it may be some seconds
//     old. If Pebble recovers less than it says, Open fails with ErrLost.
//   - A log must begin after State.Truncated, and hold all that its hard state calls
//     committed and its state row calls applied.
//   - Every key must be of this layout.
//
// What stays unnoticed: a disk that loses the last seconds before a power loss although it
// confirmed them, and a directory that was replaced as a whole by an older copy of itself.
// Blocks of SSTs are checked when they are read; Check reads them all.
//
// # Snapshots, backups
//
// Both are streams of rows (stream.go), not of Pebble's files: sender and receiver may run
// different versions, and a sender writes nothing to its disk. They read through one
// iterator, because an excise beside it would take rows out of a pebble.Snapshot. Of the
// sender's hard state nothing arrives: the receiver's term and vote are its own, or it could
// vote twice in a term.
//
// A restored cluster must not be taken for the old one: its ids are new, terms leap, replica
// ids rise, and State.Generation grows by one. Whoever numbers streams makes the generation
// part of their epoch, so that clients see a reset instead of offsets that mean something else.
//
// # A full disk
//
// Room tells the caller when to stop taking writes; it keeps a ballast file while there is
// room. Release deletes it by hand, and Open does when it finds the disk low. A write that
// still finds no space fails the store.
package persistence
