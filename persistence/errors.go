package persistence

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// Code is the stable name of a failure; errors.Is(err, persistence.ErrLocked) asks for it.
type Code string

// Error makes a Code usable with errors.Is.
func (c Code) Error() string { return string(c) }

// What Open, Inspect, Backup and Restore refuse, and what reading and writing may meet.
const (
	ErrLocked      Code = "STORE_LOCKED"    // another process holds the directory
	ErrNewer       Code = "STORE_NEWER"     // written by a newer version
	ErrForeign     Code = "STORE_FOREIGN"   // of another cluster
	ErrNotBorn     Code = "STORE_NOT_BORN"  // no identity, and none to create
	ErrNotEmpty    Code = "STORE_NOT_EMPTY" // Restore wants an empty directory
	ErrCorrupt     Code = "STORE_CORRUPT"   // a checksum, a codec or a rule of the layout failed
	ErrLost        Code = "STORE_LOST"      // data that had been synced is gone
	ErrReadOnly    Code = "STORE_READ_ONLY" // the disk, or the Store, takes no writes
	ErrDiskFull    Code = "STORE_DISK_FULL" // no space left
	ErrFailed      Code = "STORE_FAILED"    // a write failed; the process must end
	ErrBackup      Code = "BACKUP_INVALID"  // a snapshot or backup stream is cut off or damaged
	ErrRetired     Code = "REPLICA_RETIRED" // a replica id below the group's tombstone
	ErrInvalid     Code = "STORE_INVALID"   // the caller broke a rule of Write or Ingest
	ErrCompacted   Code = "LOG_COMPACTED"   // the entry is not in the log any more
	ErrUnavailable Code = "LOG_UNAVAILABLE" // the entry is not in the log yet
	ErrNoGroup     Code = "STORE_NO_GROUP"  // no replica of the group is here
)

// Error is one failure: one line of text, its Code and its cause.
type Error struct {
	Code Code
	Text string
	Err  error // cause, may be nil
}

func (e *Error) Error() string {
	s := "persistence: " + string(e.Code) + ": " + e.Text
	if e.Err != nil {
		s += ": " + strings.ReplaceAll(e.Err.Error(), "\n", " ")
	}
	return s
}

func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}

func fail(code Code, cause error, format string, args ...any) error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...), Err: cause}
}

// classify names the failure behind an error of Pebble or the file system; other is
// the code of what has no name of its own.
func classify(err error, other Code) Code {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own.Code
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ErrDiskFull
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission), errors.Is(err, pebble.ErrReadOnly):
		return ErrReadOnly
	case pebble.IsCorruptionError(err):
		return ErrCorrupt
	}
	return other
}
