package durable

import (
	"strings"
	"time"

	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Meter counts what a store does to its disk. It only rises.
type Meter struct {
	LogBytes  atomic.Uint64 // written to the write-ahead log
	AllBytes  atomic.Uint64 // written to all files
	Syncs     atomic.Uint64 // of the write-ahead log
	SyncNanos atomic.Uint64
	SyncedIn  [len(SyncBuckets) + 1]atomic.Uint64 // syncs by how long they took; the last one: longer than all
}

// SyncBuckets are the upper bounds of Meter.SyncedIn, seconds.
var SyncBuckets = [...]float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 2}

func (m *Meter) synced(took time.Duration) {
	m.Syncs.Add(1)
	m.SyncNanos.Add(uint64(took))
	i := 0
	for i < len(SyncBuckets) && took.Seconds() > SyncBuckets[i] {
		i++
	}
	m.SyncedIn[i].Add(1)
}

// metered is a file system whose writes are counted.
type metered struct {
	vfs.FS
	meter *Meter
}

func (m metered) Unwrap() vfs.FS { return m.FS }

func (m metered) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &meteredFile{File: f, meter: m.meter, log: strings.HasSuffix(name, ".log")}, nil
}

func (m metered) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.FS.Create(name, c)
	return m.wrap(name, f, err)
}

func (m metered) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := m.FS.OpenReadWrite(name, c, opts...)
	return m.wrap(name, f, err)
}

func (m metered) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := m.FS.ReuseForWrite(oldname, newname, c)
	return m.wrap(newname, f, err)
}

type meteredFile struct {
	vfs.File
	meter *Meter
	log   bool // of the write-ahead log
}

func (f *meteredFile) count(n int) {
	f.meter.AllBytes.Add(uint64(n))
	if f.log {
		f.meter.LogBytes.Add(uint64(n))
	}
}

func (f *meteredFile) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	f.count(n)
	return n, err
}

func (f *meteredFile) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.File.WriteAt(b, at)
	f.count(n)
	return n, err
}

func (f *meteredFile) timed(sync func() error) error {
	if !f.log {
		return sync()
	}
	begin := time.Now()
	err := sync()
	f.meter.synced(time.Since(begin))
	return err
}

func (f *meteredFile) Sync() error { return f.timed(f.File.Sync) }

func (f *meteredFile) SyncData() error { return f.timed(f.File.SyncData) }
