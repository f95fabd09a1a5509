package persistence

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The file "synced" holds the number of the next write after the last synced one, as
// Pebble counts them. It is written after each sync and not synced itself: it never
// promises too much, and a process that is killed leaves it exact. Pebble takes a log
// that ends early for one that was never synced further; the mark tells the difference.
const (
	markFile = "synced"
	markSize = 4 + 8 + 4 // magic with version, number, checksum
)

var (
	markMagic  = [4]byte{'s', 'y', 'n', 1}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

type mark struct {
	f  vfs.File
	at uint64
}

func encodeMark(at uint64) []byte {
	b := binary.BigEndian.AppendUint64(append(make([]byte, 0, markSize), markMagic[:]...), at)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeMark returns 0, which promises nothing, for what is not a mark: a power loss may
// leave the file empty or torn.
func decodeMark(b []byte) uint64 {
	if len(b) != markSize || [4]byte(b[:4]) != markMagic ||
		crc32.Checksum(b[:markSize-4], castagnoli) != binary.BigEndian.Uint32(b[markSize-4:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b[4:])
}

func readMark(vs vfs.FS, path string) (uint64, error) {
	f, err := vs.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	b, err := io.ReadAll(io.LimitReader(f, markSize+1))
	return decodeMark(b), errors.Join(err, f.Close())
}

// open makes the file ready to be written.
func (m *mark) open(vs vfs.FS, path string, at uint64) (err error) {
	m.at = at
	m.f, err = vs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	return err
}

func (m *mark) set(at uint64) error {
	m.at = max(m.at, at)
	_, err := m.f.WriteAt(encodeMark(m.at), 0)
	return err
}

func (m *mark) close() error {
	if m.f == nil {
		return nil
	}
	return m.f.Close()
}

// position is the number of the next write: an empty batch is given it and changes nothing.
func position(db *pebble.DB) (uint64, error) {
	b := db.NewBatch()
	defer b.Close()
	if err := b.LogData(nil, nil); err != nil {
		return 0, err
	}
	if err := db.Apply(b, pebble.NoSync); err != nil {
		return 0, err
	}
	return uint64(b.SeqNum()), nil
}
