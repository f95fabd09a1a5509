package row

import (
	"encoding/binary"
	"time"

	"muster/actors/presence"
)

// Profile is what is read of every user: 24 bytes at most for one who only comes and
// goes.
type Profile struct {
	Marker presence.Marker
	Marked bool // there is a marker
	More   bool // the user may have other rows
}

const (
	bitMarked = 1 << iota
	bitMore
	bitOnline
)

// EncodeProfile is the value of a profile.
func EncodeProfile(p Profile) []byte {
	var flags byte
	if p.More {
		flags |= bitMore
	}
	if !p.Marked {
		return []byte{version, flags}
	}
	flags |= bitMarked
	if p.Marker.Online {
		flags |= bitOnline
	}
	seen := ms(p.Marker.LastSeen)
	b := append(make([]byte, 0, 24), version, flags, byte(p.Marker.Reason))
	b = signed(b, seen)
	b = signed(b, ms(p.Marker.LastConnected)-seen)
	return signed(b, ms(p.Marker.Since)-seen)
}

// DecodeProfile reads a profile.
func DecodeProfile(v []byte) (p Profile, err error) {
	r, err := read(v)
	if err != nil {
		return p, err
	}
	flags := r.byte()
	p.More = flags&bitMore != 0
	if p.Marked = flags&bitMarked != 0; !p.Marked {
		return p, r.end()
	}
	p.Marker.Online = flags&bitOnline != 0
	p.Marker.Reason = presence.Reason(r.byte())
	seen := r.signed()
	p.Marker.LastSeen = instant(seen)
	p.Marker.LastConnected = instant(seen + r.signed())
	p.Marker.Since = instant(seen + r.signed())
	return p, r.end()
}

func encodeOutbox(o presence.OutboxSet) []byte {
	b := make([]byte, 0, 32)
	b = binary.BigEndian.AppendUint64(append(b, version), o.Epoch)
	b = unsigned(unsigned(b, o.Head), o.Trimmed)
	for _, g := range o.Gaps {
		b = append(unsigned(unsigned(b, g.From), g.To), byte(g.Reason))
	}
	return b
}

func decodeOutbox(v []byte) (o presence.OutboxSet, err error) {
	r, err := read(v)
	if err != nil {
		return o, err
	}
	o.Epoch = r.fixed()
	o.Head, o.Trimmed = r.unsigned(), r.unsigned()
	for len(r.rest) > 0 {
		o.Gaps = append(o.Gaps, presence.Gap{From: r.unsigned(), To: r.unsigned(), Reason: presence.GapReason(r.byte())})
	}
	return o, r.end()
}

func (r *reader) fixed() uint64 {
	if len(r.rest) < 8 {
		r.fail()
		return 0
	}
	n := binary.BigEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return n
}

func encodePosition(c presence.CursorSet) []byte {
	b := binary.BigEndian.AppendUint64([]byte{version}, c.Epoch)
	return unsigned(unsigned(b, c.Offset), uint64(c.Seen))
}

func decodePosition(v []byte) (c presence.CursorSet, err error) {
	r, err := read(v)
	if err != nil {
		return c, err
	}
	c.Epoch = r.fixed()
	c.Offset, c.Seen = r.unsigned(), uint32(r.unsigned())
	return c, r.end()
}

func encodeDedupe(d presence.DedupeSet) []byte {
	b := binary.BigEndian.AppendUint64([]byte{version}, d.Epoch)
	b = binary.BigEndian.AppendUint64(b, d.Digest)
	return signed(unsigned(b, d.Offset), ms(d.At))
}

// DecodeDedupe reads a dedupe row.
func DecodeDedupe(v []byte) (*presence.Known, error) {
	r, err := read(v)
	if err != nil {
		return nil, err
	}
	k := &presence.Known{Epoch: r.fixed(), Digest: r.fixed(), Offset: r.unsigned()}
	k.At = instant(r.signed())
	return k, r.end()
}

const (
	bitAnyDevice = 1 << iota
	bitHours
	bitFloor // with bitHours
)

// The body is the last: who loads a user does not copy it.
func encodeEntry(e *presence.EntryPut) []byte {
	b := make([]byte, 0, 64+len(e.Entry.Sender)+len(e.Entry.ClientID)+len(e.Entry.Collapse)+len(e.Body))
	b = append(b, version, byte(e.Entry.Type), byte(e.Entry.Class), 0)
	if e.Entry.AnyDevice {
		b[3] |= bitAnyDevice
	}
	at := ms(e.Entry.At)
	b = signed(signed(b, at), ms(e.Entry.Until)-at)
	b = text(text(text(b, e.Entry.Sender), e.Entry.ClientID), e.Entry.Collapse)
	if len(e.Hours) > 0 {
		b[3] |= bitHours
		b = unsigned(b, uint64(len(e.Hours)))
		for _, h := range e.Hours {
			b = unsigned(unsigned(b, uint64(h.Hour)), uint64(h.Rows))
		}
		if e.Floor != (presence.ID{}) {
			b[3] |= bitFloor
			b = append(b, e.Floor[:]...)
		}
	}
	return append(b, e.Body...)
}

// DecodeEntry reads an outbox entry. The body is not copied, nor is it in the record.
func DecodeEntry(offset uint64, v []byte) (put presence.EntryPut, body []byte, err error) {
	r, err := read(v)
	if err != nil {
		return put, nil, err
	}
	e := &put.Entry
	e.Offset = offset
	e.Type, e.Class = presence.EntryType(r.byte()), presence.Urgency(r.byte())
	flags := r.byte()
	e.AnyDevice = flags&bitAnyDevice != 0
	at := r.signed()
	e.At, e.Until = instant(at), instant(at+r.signed())
	e.Sender, e.ClientID, e.Collapse = r.text(), r.text(), r.text()
	if flags&bitHours != 0 {
		n := r.unsigned()
		if n > uint64(len(r.rest))/2 { // an hour takes two bytes at least
			return put, nil, errShort
		}
		put.Hours = make([]presence.HourCount, n)
		for i := range put.Hours {
			put.Hours[i] = presence.HourCount{Hour: uint32(r.unsigned()), Rows: uint16(r.unsigned())}
		}
		if flags&bitFloor != 0 {
			n := copy(put.Floor[:], r.rest)
			r.rest, r.bad = r.rest[n:], r.bad || n < len(put.Floor)
		}
	}
	e.Size = len(r.rest)
	if r.bad {
		return put, nil, errShort
	}
	return put, r.rest, nil
}

func encodeRelation(r presence.RelationSet) []byte {
	return unsigned(unsigned([]byte{version, byte(r.Relation)}, r.Asked), r.Heard)
}

func decodeRelation(v []byte) (s presence.RelationSet, err error) {
	r, err := read(v)
	if err != nil {
		return s, err
	}
	s.Relation = presence.Relation(r.byte())
	s.Asked, s.Heard = r.unsigned(), r.unsigned()
	return s, r.end()
}

// Counters number what a shard gives out: the last transfer and the last event.
type Counters struct{ Transfers, Events uint64 }

// EncodeCounters is the value of the counters.
func EncodeCounters(c Counters) []byte {
	return unsigned(unsigned([]byte{version}, c.Transfers), c.Events)
}

// DecodeCounters reads the counters.
func DecodeCounters(v []byte) (c Counters, err error) {
	r, err := read(v)
	if err != nil {
		return c, err
	}
	c.Transfers, c.Events = r.unsigned(), r.unsigned()
	return c, r.end()
}

// Floor is the first transfer of a source that may still come.
type Floor struct{ Generation, Seq uint64 }

// EncodeFloor is the value of a floor.
func EncodeFloor(f Floor) []byte {
	return unsigned(unsigned([]byte{version}, f.Generation), f.Seq)
}

// DecodeFloor reads a floor.
func DecodeFloor(v []byte) (f Floor, err error) {
	r, err := read(v)
	if err != nil {
		return f, err
	}
	f.Generation, f.Seq = r.unsigned(), r.unsigned()
	return f, r.end()
}

// EncodeCursor is the value of the webhook's cursor.
func EncodeCursor(seq uint64) []byte { return unsigned([]byte{version}, seq) }

// DecodeCursor reads the webhook's cursor.
func DecodeCursor(v []byte) (seq uint64, err error) {
	r, err := read(v)
	if err != nil {
		return 0, err
	}
	seq = r.unsigned()
	return seq, r.end()
}

// present is the value of a row that says all by its key.
func present() []byte { return []byte{version} }

// ceil rounds the end of something up to the grain of the expiry index.
func ceil(t time.Time) int64 {
	const grain = int64(time.Minute / time.Millisecond)
	return (t.UnixMilli() + grain - 1) / grain * grain
}
