//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// written is what FloorWriter prints: syncs in a time.
type written struct {
	Syncs   int
	Seconds float64
}

// FloorWriter writes batches of size bytes into a file in dir, each followed by one
// fdatasync, for the time given. Its space is written before the clock starts, as a log does
// that uses its old files again.
func FloorWriter(dir string, size int, d time.Duration, out io.Writer) error {
	const room = 64 << 20
	f, err := os.CreateTemp(dir, "muster-floor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for range room >> 20 {
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	batch := make([]byte, size)
	for i := range batch {
		batch[i] = byte(i * 31)
	}
	w := written{}
	begin := time.Now()
	for at := int64(0); time.Since(begin) < d; at += int64(size) {
		if at+int64(size) > room {
			at = 0
		}
		if _, err := f.WriteAt(batch, at); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		w.Syncs++
	}
	w.Seconds = time.Since(begin).Seconds()
	return json.NewEncoder(out).Encode(w)
}

// writeFloor is how many batches of size bytes a second this disk takes.
func (r *runner) writeFloor(size int, d time.Duration, step string) (perSecond float64, err error) {
	var w written
	err = r.childJSON(&w, d, step, true, "bench", "floor-writer", os.TempDir(), fmt.Sprint(max(size, 1)), d.String())
	if err == nil && w.Syncs == 0 {
		err = fmt.Errorf("the floor wrote nothing")
	}
	return float64(w.Syncs) / max(w.Seconds, 1e-9), err
}
