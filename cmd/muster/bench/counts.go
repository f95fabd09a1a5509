//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
)

// nobodyOnline asks the server's API who is there: only the watchers may be.
func (r *runner) nobodyOnline(t *target, watchers uint64) error {
	body, err := t.get("/v1/counts")
	if err != nil {
		return err
	}
	defer body.Close()
	var counts struct {
		Totals   map[string]uint64
		Complete bool
	}
	if err := json.NewDecoder(body).Decode(&counts); err != nil {
		return fmt.Errorf("/v1/counts: %w", err)
	}
	there := counts.Totals["online"] + counts.Totals["away"] + counts.Totals["dnd"]
	if there != watchers || !counts.Complete {
		return fmt.Errorf("%d users are online, %d should be (complete: %v): %v", there, watchers, counts.Complete, counts.Totals)
	}
	return nil
}
