package persistence

import (
	"errors"
	"io/fs"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	ballastFile = "ballast"
	// lowBytes and lowPart bound the free disk below which a node takes no more writes.
	lowBytes = 1 << 30
	lowPart  = 20 // 5 %
)

// ballast is a file whose only use is to be deleted when the disk is full.
type ballast struct {
	mu   sync.Mutex
	held bool
}

// Room says how many bytes the disk has left and whether that is low: below 1 GiB or
// 5 % of the disk, whichever is more (Options.Reserve changes it). It costs one system
// call. When there is room again it takes the ballast back.
func (s *Store) Room() (free uint64, low bool) {
	u, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		return math.MaxUint64, false
	}
	reserve := uint64(s.o.Reserve)
	if s.o.Reserve == 0 {
		reserve = max(lowBytes, u.TotalBytes/lowPart)
	}
	low = u.AvailBytes < reserve
	if !low && !s.readOnly && u.AvailBytes-reserve > uint64(max(0, s.o.Ballast)) {
		s.holdBallast()
	}
	return u.AvailBytes, low
}

// Release deletes the ballast, so that a full disk takes a few more writes. It returns
// the bytes set free; 0 if there was no ballast.
func (s *Store) Release() (int64, error) {
	s.ballast.mu.Lock()
	defer s.ballast.mu.Unlock()
	if !s.ballast.held {
		return 0, nil
	}
	if err := s.fs.Remove(s.path(ballastFile)); err != nil {
		return 0, fail(classify(err, ErrFailed), err, "%s: releasing the ballast", s.dir)
	}
	s.ballast.held = false
	return s.o.Ballast, nil
}

// holdBallast takes the ballast if it is not held. A disk that cannot give it is no
// error: the node works without.
func (s *Store) holdBallast() {
	s.ballast.mu.Lock()
	defer s.ballast.mu.Unlock()
	if s.ballast.held || s.o.Ballast < 0 {
		return
	}
	if err := allocate(s.fs, s.path(ballastFile), s.o.Ballast); err != nil {
		s.log.Warn("no ballast kept", "dir", s.dir, "bytes", s.o.Ballast, "error", err)
		_ = s.fs.Remove(s.path(ballastFile))
		return
	}
	s.ballast.held = true
}

func allocate(vs vfs.FS, path string, size int64) error {
	f, err := vs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return errors.Join(f.Preallocate(0, size), f.Close())
}

func exists(vs vfs.FS, path string) (bool, error) {
	_, err := vs.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
