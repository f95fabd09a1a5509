package cluster

import (
	"bytes"
	"io"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"muster/persistence"
	"muster/persistence/memdisk"
)

// realDisk is persistence.Store on a file system in memory that forgets what was not synced.
// A crash keeps all of the unsynced batches or none: how far Pebble's own goroutines came
// between them is not the seed's to say.
type realDisk struct {
	*persistence.Store
	s      *sim
	node   uint64
	fs     *memdisk.Disk
	broken error
}

func newRealDisk(s *sim, n *vnode) simDisk {
	d := &realDisk{s: s, node: n.id, fs: memdisk.New()}
	s.must(d.open(&persistence.Identity{Cluster: "sim", Node: n.id, Name: "sim"}))
	return d
}

func (d *realDisk) open(create *persistence.Identity) error {
	store, err := persistence.Open("data", persistence.Options{
		FS: d.fs, Create: create, Cache: 1 << 20, Memtable: 1 << 20, Ballast: -1, Reserve: 1,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err == nil {
		d.Store, d.broken = store, nil
	}
	return err
}

func (d *realDisk) put(us []persistence.Update) error {
	if d.broken != nil {
		return d.broken
	}
	return d.Write(us, false)
}

func (d *realDisk) sync() error {
	if d.broken != nil {
		return d.broken
	}
	return d.Write(nil, true)
}

func (d *realDisk) crash(keep int) error {
	if keep == 100 {
		if err := d.Write(nil, true); err != nil {
			return err
		}
	}
	fs := d.fs.CrashClone(vfs.CrashCloneCfg{})
	if err := d.Store.Close(); err != nil {
		return err
	}
	d.fs, d.Store = fs, nil
	return d.open(nil)
}

func (d *realDisk) freeze(group uint32) (any, error) {
	if d.broken != nil {
		return nil, d.broken
	}
	snapshot, err := d.Snapshot(group)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := snapshot.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), snapshot.Close()
}

func (d *realDisk) ingest(in Ingest, rows any) error {
	if err := d.sync(); err != nil {
		return err
	}
	staged, err := d.Receive(bytes.NewReader(rows.([]byte)))
	if err != nil {
		return err
	}
	return d.Ingest(staged, in.Update.Hard.GetTerm(), in.Update.Hard.GetVote(), in.Update.State.Replica)
}

func (d *realDisk) breakDown() { d.broken = errDisk }
func (d *realDisk) close() {
	if d.Store != nil {
		d.s.must(d.Store.Close())
	}
}
