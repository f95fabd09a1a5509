package presence

import (
	"fmt"
	"slices"
	"time"
)

// modelBox is the naive outbox: every offset ever given is remembered with what became of
// it, and everything is recomputed by walking over them.
type modelBox struct {
	epoch, head uint64
	entries     map[uint64]*modelEntry // kept
	gone        map[uint64]GapReason
	devices     map[string]*modelDevice
	readers     map[string]*modelReader // by device
	ids         map[sentID]Known
}

type modelEntry struct {
	Entry
	body string
}

type modelDevice struct {
	provider, token string
	cursor          uint64
	day             int64
	start           Position // when it was registered
}

type modelReader struct {
	conn        Conn
	acked, next uint64
	at          time.Time
	wait        time.Duration
}

// item is one thing that a conn is told of an outbox.
type item struct {
	conn   Conn
	what   string // entry, gap or reset
	offset uint64
	reason GapReason
}

func (i item) String() string {
	return fmt.Sprintf("%s/%d %s %d (%d)", i.conn.Edge, i.conn.ID, i.what, i.offset, i.reason)
}

func newModelBox() *modelBox {
	return &modelBox{
		entries: map[uint64]*modelEntry{}, gone: map[uint64]GapReason{}, devices: map[string]*modelDevice{},
		readers: map[string]*modelReader{}, ids: map[sentID]Known{},
	}
}

func day(t time.Time) int64 { return t.Unix() / 86400 }

// kept offsets, ascending.
func (b *modelBox) kept() []uint64 { return sortedOffsets(b.entries) }

func sortedOffsets[V any](m map[uint64]V) []uint64 {
	all := make([]uint64, 0, len(m))
	for o := range m {
		all = append(all, o)
	}
	slices.Sort(all)
	return all
}

// first is the offset before the oldest entry kept.
func (b *modelBox) first() uint64 {
	if k := b.kept(); len(k) > 0 {
		return k[0] - 1
	}
	return b.head
}

// ackedBy counts the registered devices that have acked an offset.
func (b *modelBox) ackedBy(o uint64) (n int) {
	for _, d := range b.devices {
		if d.cursor >= o {
			n++
		}
	}
	return n
}

func (b *modelBox) remove(o uint64, why GapReason) {
	delete(b.entries, o)
	b.gone[o] = why
}

// settle removes what all devices have acked.
func (b *modelBox) settle() {
	for _, o := range b.kept() {
		if len(b.devices) > 0 && b.ackedBy(o) == len(b.devices) {
			b.remove(o, GapAcked)
		}
	}
}

func (b *modelBox) ack(now time.Time, d *modelDevice, offset uint64) {
	d.day = day(now)
	for _, o := range b.kept() {
		if o > d.cursor && o <= offset && b.entries[o].AnyDevice {
			b.remove(o, GapAcked)
		}
	}
	d.cursor = max(d.cursor, offset)
	b.settle()
}

// publish stores an entry.
func (b *modelBox) publish(now time.Time, cfg *Config, p Publish, blocked bool) (r result) {
	if k, ok := b.ids[sentID{p.Sender, p.ID}]; ok && p.Type == MessageEntry {
		if k.Digest != p.Digest {
			return result{code: IDReused}
		}
		return result{published: &Published{k.Epoch, k.Offset, k.At, true}}
	}
	if age := now.Sub(p.ID.Time()); p.Type == MessageEntry && (age > 24*time.Hour || age < -10*time.Minute) {
		return result{code: IDExpired}
	}
	var replaced []uint64
	n, size := 1, len(p.Body)
	for _, o := range b.kept() {
		switch e := b.entries[o]; {
		case b.ackedBy(o) > 0:
		case p.Collapse != "" && e.Collapse == p.Collapse && e.Sender == p.Sender:
			replaced = append(replaced, o)
		default:
			n, size = n+1, size+len(e.body)
		}
	}
	if n > 1000 || size > 1<<20 {
		return result{code: OutboxFull}
	}
	k := Known{At: now, Digest: p.Digest}
	if !blocked {
		if b.epoch == 0 {
			b.epoch = p.Fresh
		}
		for _, o := range replaced {
			b.remove(o, GapCollapsed)
		}
		size := len(p.Body)
		for _, e := range b.entries {
			size += len(e.body)
		}
		for _, o := range b.kept() {
			if len(b.entries) >= 1000 || size > 1<<20 {
				size -= len(b.entries[o].body)
				b.remove(o, GapOverflow)
			}
		}
		if p.TTL == 0 {
			p.TTL = cfg.OutboxTTL
		}
		b.head++
		b.entries[b.head] = &modelEntry{Entry{Offset: b.head, Until: now.Add(p.TTL), Sender: p.Sender, Collapse: p.Collapse, AnyDevice: p.AnyDevice}, p.Body}
		k.Epoch, k.Offset = b.epoch, b.head
	}
	if p.Type == MessageEntry {
		b.ids[sentID{p.Sender, p.ID}] = k
	}
	return result{published: &Published{k.Epoch, k.Offset, k.At, false}}
}

// register makes a device one that entries wait for; false: there is no room.
func (b *modelBox) register(now time.Time, id string) bool {
	if b.devices[id] != nil {
		return true
	}
	if len(b.devices) >= 50 {
		victim := ""
		for _, d := range sortedKeys(b.devices) {
			if b.readers[d] == nil && (victim == "" || b.devices[d].day < b.devices[victim].day) {
				victim = d
			}
		}
		if victim == "" {
			return false
		}
		b.forget(victim)
	}
	b.devices[id] = &modelDevice{cursor: b.first(), day: day(now), start: Position{b.epoch, b.first()}}
	return true
}

func (b *modelBox) forget(id string) {
	delete(b.devices, id)
	delete(b.readers, id)
	b.settle()
}

// attach begins to read.
func (b *modelBox) attach(now time.Time, a Attach) (items []item) {
	delete(b.readers, a.Device)
	start, reset := b.first(), false
	switch p := *a.Outbox; {
	case p.Epoch == 0:
	case p.Epoch != b.epoch || p.Offset > b.head || b.devices[a.Device] == nil,
		b.devices[a.Device].start.Epoch == b.epoch && p.Offset < b.devices[a.Device].start.Offset:
		reset = true
	default:
		start = p.Offset
	}
	if !b.register(now, a.Device) {
		return nil
	}
	b.readers[a.Device] = &modelReader{a.Conn, start, start, time.Time{}, 5 * time.Second}
	b.ack(now, b.devices[a.Device], start)
	if reset {
		items = append(items, item{a.Conn, "reset", 0, 0})
	}
	return items
}

// forgetReasons forgets why offsets are gone that no registered device can ask for.
func (b *modelBox) forgetReasons() {
	for o := range b.gone {
		if len(b.devices) == 0 && o <= b.first() || len(b.devices) > 0 && b.ackedBy(o) == len(b.devices) {
			b.gone[o] = GapAcked
		}
	}
}

// pump is what the readers are told.
func (b *modelBox) pump(now time.Time) (items []item) {
	b.forgetReasons()
	for _, d := range sortedKeys(b.readers) {
		r := b.readers[d]
		if !r.at.IsZero() && !r.at.After(now) {
			r.next, r.at = r.acked, time.Time{}
			r.wait = min(2*r.wait, time.Minute)
		}
		n, size, kept := 0, 0, b.kept()
		for o := r.acked + 1; o <= b.head; o++ {
			e := b.entries[o]
			if e != nil {
				if n, size = n+1, size+len(e.body); o > r.next && (n > 256 || size > 1<<20) {
					break
				}
			}
			if o <= r.next {
				continue
			}
			if e == nil { // a hole is told with what follows, or at the end
				i, _ := slices.BinarySearch(kept, o)
				if i < len(kept) && (n+1 > 256 || size+len(b.entries[kept[i]].body) > 1<<20) {
					break // it waits for the entry that follows
				}
				items = append(items, item{r.conn, "gap", o, b.gone[o]})
			} else {
				items = append(items, item{r.conn, "entry", o, 0})
			}
			r.next = o
		}
		waits := false
		for _, o := range kept {
			waits = waits || o > r.acked && o <= r.next
		}
		if !waits {
			r.acked, r.at = r.next, time.Time{}
		} else if r.at.IsZero() {
			r.at = now.Add(r.wait)
		}
	}
	return items
}

func (b *modelBox) tick(now time.Time) {
	for _, o := range b.kept() {
		if !b.entries[o].Until.After(now) {
			b.remove(o, GapExpired)
		}
	}
	for _, d := range sortedKeys(b.devices) {
		switch {
		case day(now)-b.devices[d].day <= 30:
		case b.readers[d] != nil:
			b.ack(now, b.devices[d], 0)
		default:
			b.forget(d)
		}
	}
}

func (b *modelBox) purge(epoch uint64) (items []item) {
	b.epoch = epoch
	clear(b.entries)
	b.gone = map[uint64]GapReason{} // nobody of the new epoch can ask
	for _, d := range b.devices {
		d.cursor = 0
	}
	for _, d := range sortedKeys(b.readers) {
		r := b.readers[d]
		*r = modelReader{r.conn, b.head, b.head, time.Time{}, 5 * time.Second}
		items = append(items, item{r.conn, "reset", 0, 0})
	}
	return items
}

// items of a step of the core, one per offset.
func items(out *Output) (all []item) {
	ds := out.Deliver
	if out.Reply.Outbox != nil {
		ds = append([]Delivery{*out.Reply.Outbox}, ds...)
	}
	for _, d := range ds {
		if d.Reset {
			all = append(all, item{d.Conn, "reset", 0, 0})
		}
		if d.Gap != nil {
			for o := d.Gap.From; o <= d.Gap.To; o++ {
				all = append(all, item{d.Conn, "gap", o, d.Gap.Reason})
			}
		}
		for o := d.From; d.To != 0 && o <= d.To; o++ {
			all = append(all, item{d.Conn, "entry", o, 0})
		}
	}
	slices.SortStableFunc(all, func(a, b item) int {
		if a.conn.Edge != b.conn.Edge {
			return int(a.conn.Edge[1]) - int(b.conn.Edge[1])
		}
		return int(a.conn.ID) - int(b.conn.ID)
	})
	return all
}

// restored completes what needs the other rows.
func (b *modelBox) restored(records []Record) {
	for _, r := range records {
		switch r := r.(type) {
		case DeviceSet:
			b.devices[r.Device].start = Position{r.Epoch, r.Offset}
			if r.Epoch == b.epoch {
				b.devices[r.Device].cursor = max(b.devices[r.Device].cursor, r.Offset)
			}
		case CursorSet:
			if d := b.devices[r.Device]; d != nil {
				d.day = max(d.day, int64(r.Seen))
				if r.Epoch == b.epoch {
					d.cursor = max(d.cursor, r.Offset)
				}
			}
		case OutboxSet:
			for _, o := range b.kept() {
				if o <= r.Trimmed {
					delete(b.entries, o)
				}
			}
		}
	}
	b.settle()
}
