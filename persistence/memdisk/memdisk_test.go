package memdisk

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCutWhileBusy cuts the power again and again while files are linked, locked and used
// again. With Pebble's own MemFS it does not end.
func TestCutWhileBusy(t *testing.T) {
	d := New()
	for _, name := range []string{"a", "old"} {
		f, err := d.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	busy := []func() error{
		func() error {
			d.CrashClone(vfs.CrashCloneCfg{})
			return nil
		},
		func() error {
			if err := d.Link("a", "b"); err != nil {
				return err
			}
			return d.Remove("b")
		},
		func() error {
			l, err := d.Lock("lock")
			if err != nil {
				return err
			}
			return l.Close()
		},
		func() error {
			f, err := d.ReuseForWrite("old", "old", vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			return f.Close()
		},
	}
	done := make(chan error, len(busy))
	for _, do := range busy {
		go func() {
			var err error
			for range 20_000 {
				if err = do(); err != nil {
					break
				}
			}
			done <- err
		}()
	}
	late := time.After(time.Minute)
	for range busy {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-late:
			t.Fatal("the disk stands still")
		}
	}
}
