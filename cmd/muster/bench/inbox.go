//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"time"
)

// inbox is a part of an outbox as a device gets it.
type inbox struct {
	Epoch   string
	Head    uint64
	Entries []struct {
		Offset   uint64
		ClientID string `json:"client_id"`
	}
	Gap   *struct{ From, To uint64 }
	Reset bool
}

// received reads the outbox out of a push or the answer to connect.
func (m *member) received(text []byte) {
	var frame struct {
		Connect struct{ Outbox *inbox }
		Push    struct{ Outbox *inbox }
	}
	if err := json.Unmarshal(text, &frame); err != nil {
		m.f.fail(fmt.Errorf("u%d was sent %.200s: %w", m.user, text, err))
		return
	}
	for _, o := range []*inbox{frame.Connect.Outbox, frame.Push.Outbox} {
		if o != nil {
			m.f.outbox(m, *o)
		}
	}
}

// reader is a device that reads an outbox from its start.
type reader struct {
	got  uint64 // entries, the last offset
	want uint64
	ids  map[string]bool
}

// drain connects a device for each recipient (users from first on) and reads every
// outbox to its end. All that was acknowledged must be there, once, without a hole.
func (r *runner) drain(t *target, first int, want []uint64) error {
	f, err := newFleet(t, r.opt)
	if err != nil {
		return err
	}
	defer f.e.close()
	readers := make([]reader, len(want))
	left := uint64(0)
	for i, n := range want {
		m, err := f.add(first+i, "reader")
		if err != nil {
			return err
		}
		m.reads = true
		readers[i] = reader{want: n, ids: make(map[string]bool, n)}
		left += n
	}
	all := left
	f.outbox = func(m *member, o inbox) {
		rd := &readers[m.user-first]
		if o.Gap != nil || o.Reset {
			f.fail(fmt.Errorf("u%d: gap %v, reset %v", m.user, o.Gap, o.Reset))
		}
		for _, e := range o.Entries {
			if e.Offset <= rd.got {
				continue // sent again
			}
			if e.Offset != rd.got+1 || rd.ids[e.ClientID] {
				f.fail(fmt.Errorf("u%d: offset %d (id %s) after %d", m.user, e.Offset, e.ClientID, rd.got))
			}
			rd.got, rd.ids[e.ClientID] = e.Offset, true
			left--
		}
		if rd.got > rd.want {
			f.fail(fmt.Errorf("u%d: %d entries, %d were acknowledged", m.user, rd.got, rd.want))
		}
		if len(o.Entries) > 0 {
			f.e.send(&m.client, textFrame(`{"ack":{"outbox":%d,"epoch":"%s"}}`, rd.got, o.Epoch))
		}
	}
	if err := f.connect(f.members, 64, time.Minute, func(n int) { r.bar.Show("reading outboxes", float64(n), float64(len(want))) }); err != nil {
		return err
	}
	f.e.until(time.Minute, func() bool { return left == 0 || len(f.failures) > 0 })
	if err := f.err(); err != nil {
		return err
	}
	if left > 0 {
		return fmt.Errorf("%d of %d acknowledged sends did not arrive", left, all)
	}
	return nil
}
