// Package memdisk is the disk of tests: a file system in memory whose power can be cut.
//
// It is Pebble's crashable MemFS, but for a fault of that one (pebble v2.1.7, mended there
// after it by pull request 5993): Link, Lock and ReuseForWrite take a read lock twice, so
// that a CrashClone that begins in between waits for them and they for it, for ever.
package memdisk

import (
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Disk is safe for concurrent use; the zero value is not ready.
type Disk struct {
	*vfs.MemFS
	cut sync.RWMutex // taken before any lock of MemFS
}

func New() *Disk { return &Disk{MemFS: vfs.NewCrashableMem()} }

// CrashClone is what a power cut at this moment leaves: all that was synced and, of each write
// and each change of a directory that was not, what c says. The disk itself goes on.
func (d *Disk) CrashClone(c vfs.CrashCloneCfg) *Disk {
	d.cut.Lock()
	defer d.cut.Unlock()
	return &Disk{MemFS: d.MemFS.CrashClone(c)}
}

func (d *Disk) Link(oldname, newname string) error {
	d.cut.RLock()
	defer d.cut.RUnlock()
	return d.MemFS.Link(oldname, newname)
}

func (d *Disk) Lock(name string) (io.Closer, error) {
	d.cut.RLock()
	defer d.cut.RUnlock()
	return d.MemFS.Lock(name)
}

func (d *Disk) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	d.cut.RLock()
	defer d.cut.RUnlock()
	return d.MemFS.ReuseForWrite(oldname, newname, c)
}
