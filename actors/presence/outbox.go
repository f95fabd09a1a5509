package presence

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Bounds of an outbox.
const (
	maxEntries   = 1000
	maxBytes     = 1 << 20 // of bodies
	maxBody      = 16 << 10
	maxCollapse  = 64
	maxClientID  = 64
	maxGaps      = 64
	eventEntries = 100 // in one event
)

// outbox is a user's stream of entries, without their bodies, and who reads it.
type outbox struct {
	epoch   uint64 // 0: nothing was ever put into it
	head    uint64
	entries []held // by offset
	bytes   int    // of their bodies
	until   int64  // the earliest end of an entry, Unix ms; 0: none
	gaps    []Gap  // why offsets are gone, ascending; the rest were acked
	stale   uint64 // rows up to here were found below what is trimmed
	change  change // of the stream, to be recorded with the step
	hour    uint32 // when senders were last looked through
	senders []sender
	turned  bool     // some have changed
	devices []device // by id
	readers []reader
}

// held is an entry.
type held struct {
	offset    uint64
	until     int64 // Unix ms
	wakes     int64 // Unix ms
	sender    string
	clientID  string
	collapse  string
	size      int32
	class     Urgency
	typ       EntryType
	anyDevice bool
}

func (u *User) outbox() *outbox {
	m := u.extra()
	if m.outbox == nil {
		m.outbox = &outbox{}
	}
	return m.outbox
}

// box is the outbox, nil if there is none.
func (u *User) box() *outbox {
	if u.more == nil {
		return nil
	}
	return u.more.outbox
}

// empty reports that nothing is to be remembered.
func (o *outbox) empty() bool {
	return o.epoch == 0 && len(o.devices)+len(o.readers)+len(o.senders) == 0
}

// trimmed is the offset up to which all entries are gone.
func (o *outbox) trimmed() uint64 {
	if len(o.entries) > 0 {
		return o.entries[0].offset - 1
	}
	return o.head
}

// after is the index of the first entry behind an offset.
func (o *outbox) after(offset uint64) int {
	i, _ := slices.BinarySearchFunc(o.entries, offset+1, func(h held, at uint64) int {
		switch {
		case h.offset < at:
			return -1
		case h.offset > at:
			return 1
		}
		return 0
	})
	return i
}

// cursors are the lowest and the highest ack of the registered devices; 0 without any.
func (o *outbox) cursors() (low, high uint64) {
	for i := range o.devices {
		c := o.devices[i].cursor
		if high = max(high, c); i == 0 || c < low {
			low = c
		}
	}
	return low, high
}

// change says that something must be recorded at the end of a step.
type change uint8

const (
	noChange change = iota
	ackedChange
	firmChange
)

// changed is the change that a drop is.
func changed(why GapReason) change {
	if why == GapAcked {
		return ackedChange
	}
	return firmChange
}

// record records, at the end of a step, what changed of the stream and of its senders and is not said
// by an entry.
func (o *outbox) record(out *Output) {
	n := len(o.entries)
	headless := n == 0 || o.entries[n-1].offset != o.head // else the last entry says how far the stream goes
	if o.change == firmChange || o.change == ackedChange && headless {
		out.Records = append(out.Records, OutboxSet{Epoch: o.epoch, Head: o.head, Trimmed: o.trimmed(),
			Gaps: slices.Clone(o.gaps), Lazy: o.change == ackedChange})
	}
	o.change = noChange
	if !o.turned {
		return
	}
	o.turned = false
	for i := range o.senders {
		if s := &o.senders[i]; s.change != noChange {
			out.Records = append(out.Records, SenderSet{s.name, s.floor, s.hours, o.head, s.change == ackedChange})
			s.row, s.change = true, noChange
		}
	}
}

// publishEntry answers Publish.
func (u *User) publishEntry(now int64, in *Publish, out *Output) Reply {
	if r := u.checkPublish(in); r.Code != OK {
		return r
	}
	rel := u.relations().of(in.Sender).bits
	if in.Sender != "" && rel&RelationBlockedBy != 0 {
		return Reply{Code: Blocked, Message: "you have blocked the user"}
	}
	if r, done := u.dedupe(now, in); done {
		return r
	}
	if u.full(in) {
		return outboxFull
	}
	k := Known{At: instant(now), Digest: in.Digest}
	if in.Sender != "" && rel&RelationBlocked != 0 {
		u.outbox().turn(u.remember(now, in, k, out), firmChange)
		return published(in.Sender, k, false)
	}
	e := u.store(now, in, out)
	k.Epoch, k.Offset = u.box().epoch, e.Entry.Offset
	s := u.remember(now, in, k, out)
	s.at, s.change = k.Offset, noChange
	e.Floor, e.Hours = s.floor, s.hours
	out.Records = append(out.Records, e)
	return published(in.Sender, k, false)
}

var outboxFull = Reply{Code: OutboxFull, Message: "the outbox is full"}

func published(sender string, k Known, again bool) Reply {
	p := &Published{Epoch: k.Epoch, Offset: k.Offset, At: k.At, Duplicate: again}
	if sender != "" {
		p.Epoch, p.Offset = 0, 0
	}
	return Reply{Published: p}
}

// checkPublish fills in the ttl and names what is wrong.
func (u *User) checkPublish(in *Publish) Reply {
	if in.TTL == 0 {
		in.TTL = u.cfg.OutboxTTL
	}
	switch {
	case in.Sender != "" && !validID(in.Sender):
		return bad("sender: an id is 1 to 128 of A-Za-z0-9._@+=-")
	case len(in.Body) > maxBody || !json.Valid([]byte(in.Body)):
		return bad("body: a JSON value of at most 16 KiB")
	case in.Class >= urgencies || in.Type >= entryTypes:
		return bad("class: critical, normal or presence")
	case in.TTL < minOutboxTTL || in.TTL > maxOutboxTTL:
		return bad("ttl: 10s to 720h")
	case len(in.Collapse) > maxCollapse || len(in.ClientID) > maxClientID:
		return bad("collapse_key, client_id: at most 64 bytes")
	case in.Fresh == 0:
		return bad("an epoch is missing")
	}
	return Reply{}
}

// collapses reports that an entry, which no device has acked, would be replaced. A key is
// its sender's own.
func (in *Publish) collapses(h *held) bool {
	return in.Collapse != "" && h.collapse == in.Collapse && h.sender == in.Sender
}

// full reports that there is no room: the bound counts what no device has acked.
func (u *User) full(in *Publish) bool {
	o := u.box()
	if o == nil {
		return false
	}
	_, high := o.cursors()
	n, bytes := 1, len(in.Body)
	for _, h := range o.entries[o.after(high):] {
		if !in.collapses(&h) {
			n, bytes = n+1, bytes+int(h.size)
		}
	}
	return n > maxEntries || bytes > maxBytes
}

// store puts an entry into the outbox, which is not full. Beyond the bound, what some device has acked
// gives way, the oldest first, and the gap of the others is recorded.
func (u *User) store(now int64, in *Publish, out *Output) EntryPut {
	o := u.outbox()
	if o.epoch == 0 {
		o.epoch, o.change = in.Fresh, firmChange
	}
	if in.Collapse != "" {
		_, high := o.cursors()
		o.drop(GapCollapsed, out, func(h *held) bool { return h.offset > high && in.collapses(h) })
	}
	if n, bytes := len(o.entries)+1, o.bytes+len(in.Body); n > maxEntries || bytes > maxBytes {
		o.drop(GapOverflow, out, func(h *held) bool {
			fits := n <= maxEntries && bytes <= maxBytes
			n, bytes = n-1, bytes-int(h.size)
			return !fits
		})
	}
	o.head++
	e := EntryPut{Body: in.Body, Entry: Entry{
		Offset: o.head, Type: in.Type, Class: in.Class, AnyDevice: in.AnyDevice, At: instant(now), Until: instant(now + in.TTL.Milliseconds()),
		Sender: in.Sender, ClientID: in.ClientID, Collapse: in.Collapse, Size: len(in.Body),
	}}
	h := e.Entry.held()
	for i := len(o.entries) - 1; i >= 0 && !e.Indexed; i-- {
		e.Indexed = o.entries[i].wakes == h.wakes
	}
	o.entries = append(o.entries, h)
	o.bytes += len(in.Body)
	if o.until == 0 || h.until < o.until {
		o.until = h.until
	}
	o.sweepStale(out)
	return e
}

func (e *Entry) held() held {
	return held{
		offset: e.Offset, until: milli(e.Until), wakes: milli(e.Wakes()), sender: e.Sender, clientID: e.ClientID, collapse: e.Collapse,
		size: int32(e.Size), class: e.Class, typ: e.Type, anyDevice: e.AnyDevice,
	}
}

// sweepStale removes rows that a crash left behind.
func (o *outbox) sweepStale(out *Output) {
	if o.stale != 0 {
		out.Records = append(out.Records, EntriesDropped{1, o.stale, GapAcked})
		o.change = firmChange
		for i := range o.senders {
			if s := &o.senders[i]; s.at != 0 && s.at <= o.stale {
				o.turn(s, firmChange)
			}
		}
		o.stale = 0
	}
}

// drop removes entries and notes why.
func (o *outbox) drop(why GapReason, out *Output, which func(*held) bool) (dropped []held) {
	kept := o.entries[:0:len(o.entries)]
	last := false // the entry before was dropped, too
	o.until = 0
	for _, h := range o.entries {
		if !which(&h) {
			kept, last = append(kept, h), false
			if o.until == 0 || h.until < o.until {
				o.until = h.until
			}
			continue
		}
		dropped = append(dropped, h)
		o.bytes -= int(h.size)
		o.change = max(o.change, changed(why))
		if i, found := o.findSender(h.sender); found && o.senders[i].at == h.offset {
			o.turn(&o.senders[i], changed(why))
		}
		if why != GapAcked {
			o.note(Gap{h.offset, h.offset, why})
		}
		if n := len(out.Records) - 1; last {
			out.Records[n] = EntriesDropped{out.Records[n].(EntriesDropped).From, h.offset, why}
		} else {
			out.Records = append(out.Records, EntriesDropped{h.offset, h.offset, why})
		}
		last = true
	}
	clear(o.entries[len(kept):])
	if o.entries = kept; len(kept) == 0 {
		o.entries = nil
	}
	o.trimGaps()
	return dropped
}

// note adds a gap, and joins the oldest ones if there are too many.
func (o *outbox) note(g Gap) {
	i, _ := slices.BinarySearchFunc(o.gaps, g.From, func(x Gap, from uint64) int {
		if x.From < from {
			return -1
		}
		return 1
	})
	o.gaps = slices.Insert(o.gaps, i, g)
	for j := max(i-1, 0); j+1 < len(o.gaps) && j <= i+1; {
		if a, b := o.gaps[j], o.gaps[j+1]; a.Reason == b.Reason && a.To+1 >= b.From {
			o.gaps[j].To = max(a.To, b.To)
			o.gaps = slices.Delete(o.gaps, j+1, j+2)
			continue
		}
		j++
	}
	if len(o.gaps) > maxGaps {
		o.gaps[1].From = o.gaps[0].From
		o.gaps = slices.Delete(o.gaps, 0, 1)
	}
}

// trimGaps forgets the reasons that no registered device can ask for.
func (o *outbox) trimGaps() {
	low, _ := o.cursors()
	if len(o.devices) == 0 {
		low = o.trimmed()
	}
	o.gaps = slices.DeleteFunc(o.gaps, func(g Gap) bool { return g.To <= low })
	if len(o.gaps) == 0 {
		o.gaps = nil
	}
}

// gap is the first part, with one reason, of a range of offsets that are gone.
func (o *outbox) gap(from, to uint64) Gap {
	for _, g := range o.gaps {
		if g.To < from {
			continue
		}
		if g.From <= from {
			return Gap{from, min(to, g.To), g.Reason}
		}
		return Gap{from, min(to, g.From-1), GapAcked}
	}
	return Gap{from, to, GapAcked}
}

// Gone says why an offset that was named in a Delivery is no longer stored.
func (u *User) Gone(offset uint64) GapReason {
	if o := u.box(); o != nil {
		return o.gap(offset, offset).Reason
	}
	return GapPurged
}

// expireEntries drops what has outlived its ttl.
func (u *User) expireEntries(now int64, out *Output) {
	o := u.box()
	if o == nil || o.until == 0 || o.until > now {
		return
	}
	dropped := o.drop(GapExpired, out, func(h *held) bool { return h.until <= now })
	if !u.cfg.Events {
		return
	}
	for part := range slices.Chunk(dropped, eventEntries) {
		out.Records = append(out.Records, expiredEvent(now, o.epoch, part))
	}
}

// expiredEntry is what the event stream tells of an entry that nobody acked in time.
type expiredEntry struct {
	Offset   uint64 `json:"offset"`
	ClientID string `json:"client_id,omitempty"`
	From     string `json:"from,omitempty"`
	Collapse string `json:"collapse_key,omitempty"`
}

func expiredEvent(now int64, epoch uint64, part []held) Event {
	var list []expiredEntry
	for _, h := range part {
		list = append(list, expiredEntry{h.offset, h.clientID, h.sender, h.collapse})
	}
	data, _ := json.Marshal(struct {
		Epoch   string         `json:"epoch"`
		Entries []expiredEntry `json:"entries"`
	}{fmt.Sprintf("%016x", epoch), list})
	return Event{EventExpired, instant(now), string(data)}
}

// purge begins a new stream. Its offsets go on, so that what is lazy and about the old
// ones cannot meet new ones.
func (u *User) purge(in *Purge, out *Output) Reply {
	if in.Epoch == 0 {
		return bad("an epoch is missing")
	}
	o := u.outbox()
	if len(o.entries) > 0 || o.stale != 0 {
		out.Records = append(out.Records, EntriesDropped{1, o.head, GapPurged})
	}
	o.epoch, o.entries, o.bytes, o.until, o.gaps, o.stale, o.change = in.Epoch, nil, 0, 0, nil, 0, firmChange
	for i := range o.senders {
		if o.senders[i].at != 0 {
			o.turn(&o.senders[i], firmChange)
		}
	}
	for i := range o.devices {
		o.devices[i].cursor = 0
	}
	for i := range o.readers {
		r := &o.readers[i]
		*r = reader{conn: r.conn, device: r.device, acked: o.head, next: o.head, wait: redeliverMin}
		o.next(r, out).Reset = true
	}
	return Reply{}
}
