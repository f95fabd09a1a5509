package presence

import "slices"

const (
	windowEntries = 256
	windowBytes   = 1 << 20
	redeliverMin  = 5_000 // ms
	redeliverMax  = 60_000
)

// reader is a conn that reads the outbox.
type reader struct {
	conn   Conn
	device string
	acked  uint64
	next   uint64 // delivered up to this
	at     int64  // deliver again what is not acked, Unix ms; 0: all is
	wait   int64  // until the next time, ms
}

// reads finds the reader of a device.
func (o *outbox) reads(device string) *reader {
	for i := range o.readers {
		if o.readers[i].device == device {
			return &o.readers[i]
		}
	}
	return nil
}

// read makes a conn read from a position, and answers what it has missed.
func (u *User) read(now int64, a *Attach, out *Output) {
	o := u.outbox()
	o.readers = slices.DeleteFunc(o.readers, func(r reader) bool { return r.device == a.Device })
	pos := *a.Outbox
	first := Delivery{Conn: a.Conn, Epoch: o.epoch, Head: o.head}
	start := o.trimmed()
	d := o.device(a.Device)
	switch {
	case pos.Epoch == 0:
	case pos.Epoch != o.epoch || d == nil || d.start.Epoch == o.epoch && pos.Offset < d.start.Offset:
		first.Reset = true // also if it has not heard of the reset with which it was registered again
	case pos.Offset > o.head:
		first.Reset, first.Ahead = true, true
	default:
		start = pos.Offset
	}
	if d == nil {
		if a.NoRoom {
			return
		}
		if d = o.register(now, device{id: a.Device}, out); d == nil {
			return
		}
	}
	o.readers = append(o.readers, reader{conn: a.Conn, device: a.Device, acked: start, next: start, wait: redeliverMin})
	out.Deliver = append(out.Deliver, first)
	o.ack(now, d, start, out)
}

// answer makes the first delivery to the conn that was attached part of the reply.
func (out *Output) answer(conn Conn) {
	if i := slices.IndexFunc(out.Deliver, func(d Delivery) bool { return d.Conn == conn }); i >= 0 {
		d := out.Deliver[i]
		out.Deliver = slices.Delete(out.Deliver, i, i+1)
		out.Reply.Outbox = &d
	}
}

// stopReading ends what conns no longer do: those of sessions that are not live.
func (u *User) stopReading() {
	o := u.box()
	if o == nil || len(o.readers) == 0 {
		return
	}
	o.readers = slices.DeleteFunc(o.readers, func(r reader) bool {
		return !slices.ContainsFunc(u.sessions, func(s session) bool { return s.phase() == live && s.conn == r.conn })
	})
	if len(o.readers) == 0 {
		o.readers = nil
	}
}

// ackOutbox moves the cursor of the conn's device.
func (u *User) ackOutbox(now int64, in *AckOutbox, out *Output) Reply {
	o := u.box()
	if o == nil || in.Epoch != o.epoch {
		return Reply{}
	}
	for i := range o.readers {
		r := &o.readers[i]
		if r.conn != in.Conn {
			continue
		}
		offset := min(in.Offset, r.next)
		if offset > r.acked {
			r.acked, r.wait, r.at = offset, redeliverMin, now+redeliverMin
		}
		if d := o.device(r.device); offset > d.cursor {
			o.ack(now, d, offset, out)
		}
		break
	}
	return Reply{}
}

// pump delivers to every reader what its window has room for, and again what was not
// acked for too long.
func (u *User) pump(now int64, out *Output) {
	u.stopReading()
	o := u.box()
	if o == nil {
		return
	}
	for i := range o.readers {
		r := &o.readers[i]
		if r.at != 0 && r.at <= now {
			r.next, r.at = r.acked, 0
			r.wait = min(2*r.wait, redeliverMax)
		}
		o.deliver(now, r, out)
	}
}

// deliver hands out what follows r.next, in order, with the gaps between.
func (o *outbox) deliver(now int64, r *reader, out *Output) {
	i := o.after(r.acked)
	n, bytes := 0, 0
	for ; i < len(o.entries) && o.entries[i].offset <= r.next; i++ {
		n, bytes = n+1, bytes+int(o.entries[i].size)
	}
	for ; i < len(o.entries); i++ {
		h := &o.entries[i]
		if n++; n > windowEntries || bytes+int(h.size) > windowBytes {
			break
		}
		bytes += int(h.size)
		o.deliverGap(r, h.offset, out)
		d := out.last(r.conn)
		if d == nil || d.To != 0 && d.To+1 != h.offset {
			d = o.next(r, out)
		}
		if d.To = h.offset; d.From == 0 {
			d.From = h.offset
		}
		r.next = h.offset
	}
	if i == len(o.entries) {
		o.deliverGap(r, o.head+1, out)
	}
	switch {
	case o.after(r.acked) == o.after(r.next):
		r.acked, r.at = r.next, 0 // nothing to ack
	case r.at == 0:
		r.at = now + r.wait
	}
}

// deliverGap tells that the offsets from r.next to before an entry are gone.
func (o *outbox) deliverGap(r *reader, before uint64, out *Output) {
	for r.next+1 < before {
		g := o.gap(r.next+1, before-1)
		d := out.last(r.conn)
		if d == nil || d.Gap != nil || d.To != 0 {
			d = o.next(r, out)
		}
		d.Gap, r.next = &g, g.To
	}
}

// last is the last delivery of the step to a conn.
func (out *Output) last(c Conn) *Delivery {
	for i := len(out.Deliver) - 1; i >= 0; i-- {
		if out.Deliver[i].Conn == c {
			return &out.Deliver[i]
		}
	}
	return nil
}

// next adds a delivery.
func (o *outbox) next(r *reader, out *Output) *Delivery {
	out.Deliver = append(out.Deliver, Delivery{Conn: r.conn, Epoch: o.epoch, Head: o.head})
	return &out.Deliver[len(out.Deliver)-1]
}
