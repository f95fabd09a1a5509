package persistence

import "github.com/cockroachdb/pebble/v2/vfs"

// watched is the file system Pebble gets: the first change to a file or directory that
// fails is the store's failure. Pebble itself would try some again, and panics on others,
// at times on goroutines of its own or with a mutex in a state no recover can mend. So
// Fatal hears of it first, and with a Fatal Pebble never hears of it: the goroutine waits
// here for the process to end. Deleting and linking may fail: Pebble does without.
type watched struct {
	vfs.FS
	s *Store
}

func (w watched) Unwrap() vfs.FS { return w.FS }

// GetDiskUsage may fail without harm: Pebble paces deletions by it.
func (w watched) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	u, err := w.FS.GetDiskUsage(path)
	if err != nil {
		err = vfs.ErrUnsupported
	}
	return u, err
}

func (w watched) check(err error, doing string) error {
	if err == nil {
		return nil
	}
	w.s.stuck.Store(true)
	w.s.broken(err, doing)
	if w.s.o.Fatal != nil && !w.s.closing.Load() {
		select {}
	}
	return err
}

func (w watched) file(f vfs.File, err error, doing string) (vfs.File, error) {
	if err != nil {
		return nil, w.check(err, doing)
	}
	return watchedFile{File: f, w: w}, nil
}

func (w watched) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, category)
	return w.file(f, err, "creating a file")
}

func (w watched) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.ReuseForWrite(oldname, newname, category)
	return w.file(f, err, "creating a file")
}

func (w watched) Rename(oldname, newname string) error {
	return w.check(w.FS.Rename(oldname, newname), "renaming a file")
}

func (w watched) OpenDir(name string) (vfs.File, error) {
	f, err := w.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return watchedFile{File: f, w: w}, nil
}

type watchedFile struct {
	vfs.File
	w watched
}

func (f watchedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.w.check(err, "writing a file")
}

func (f watchedFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, f.w.check(err, "writing a file")
}

func (f watchedFile) Sync() error { return f.w.check(f.File.Sync(), "syncing a file") }

func (f watchedFile) SyncData() error { return f.w.check(f.File.SyncData(), "syncing a file") }

func (f watchedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.w.check(err, "syncing a file")
}
