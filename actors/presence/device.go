package presence

import (
	"slices"
	"strings"
)

const (
	maxRegistered = 50
	deviceDays    = 30 // unseen, until a registration expires
	maxProvider   = 32
	maxToken      = 4 << 10
)

// device is registered: entries wait for it.
type device struct {
	id              string
	provider, token string
	start           Position // where it began to read
	cursor          uint64   // it has acked all up to this
	seen            uint32   // Unix day
}

func dayOf(now int64) uint32 { return uint32(now / 86_400_000) }

func (d *device) record() DeviceSet {
	return DeviceSet{d.id, d.provider, d.token, d.start.Epoch, d.start.Offset, d.seen}
}

func (o *outbox) device(id string) *device {
	for i := range o.devices {
		if o.devices[i].id == id {
			return &o.devices[i]
		}
	}
	return nil
}

// register adds a device, which begins at the oldest entry kept; nil if there are too
// many and all are in use. The one that was not seen for longest gives way.
func (o *outbox) register(now int64, d device, out *Output) *device {
	if len(o.devices) >= maxRegistered {
		oldest := -1
		for i := range o.devices {
			if o.reads(o.devices[i].id) == nil && (oldest < 0 || o.devices[i].seen < o.devices[oldest].seen) {
				oldest = i
			}
		}
		if oldest < 0 {
			return nil
		}
		o.unregister(oldest, out)
	}
	d.cursor, d.seen = o.trimmed(), dayOf(now)
	d.start = Position{o.epoch, d.cursor}
	i, _ := slices.BinarySearchFunc(o.devices, d.id, func(d device, id string) int { return strings.Compare(d.id, id) })
	o.devices = slices.Insert(o.devices, i, d)
	added := &o.devices[i]
	out.Records = append(out.Records, added.record(), CursorSet{added.id, o.epoch, added.cursor, added.seen})
	return added
}

// unregister forgets the device at i; what only it had not acked goes.
func (o *outbox) unregister(i int, out *Output) {
	id := o.devices[i].id
	out.Records = append(out.Records, DeviceGone{id})
	o.devices = slices.Delete(o.devices, i, i+1)
	o.readers = slices.DeleteFunc(o.readers, func(r reader) bool { return r.device == id })
	o.release(out)
}

// release drops what all registered devices have acked. Without any, entries wait for
// their ttl.
func (o *outbox) release(out *Output) {
	if low, _ := o.cursors(); len(o.devices) > 0 && o.trimmed() < low {
		o.drop(GapAcked, out, func(h *held) bool { return h.offset <= low })
	}
	o.trimGaps()
}

// ack moves the cursor of a device, and drops what its ack is enough for.
func (o *outbox) ack(now int64, d *device, offset uint64, out *Output) {
	seen := dayOf(now)
	if offset <= d.cursor && seen == d.seen {
		return
	}
	from := d.cursor
	d.cursor, d.seen = max(d.cursor, offset), seen
	out.Records = append(out.Records, CursorSet{d.id, o.epoch, d.cursor, d.seen})
	if i, j := o.after(from), o.after(d.cursor); slices.ContainsFunc(o.entries[i:j], func(h held) bool { return h.anyDevice }) {
		o.drop(GapAcked, out, func(h *held) bool { return h.anyDevice && h.offset > from && h.offset <= offset })
	}
	o.release(out)
}

// setDevice registers a device for push, or forgets it.
func (u *User) setDevice(now int64, in *SetDevice, out *Output) Reply {
	id := in.Device
	if in.Session != "" {
		i := u.current(in.Session, in.Conn)
		if i < 0 {
			return notAttached
		}
		if id == "" {
			id = u.sessions[i].device
		}
	}
	if !validID(id) || len(in.Provider) > maxProvider || len(in.Token) > maxToken || (in.Token != "") != (in.Provider != "") {
		return bad("device: an id, a provider of at most 32 bytes with a token of at most 4 KiB, or neither")
	}
	o := u.outbox()
	if in.Forget {
		i := slices.IndexFunc(o.devices, func(d device) bool { return d.id == id })
		if i < 0 {
			return Reply{Code: NotFound, Message: "no such device"}
		}
		o.unregister(i, out)
		return Reply{}
	}
	d := o.device(id)
	if d == nil {
		if d = o.register(now, device{id: id, provider: in.Provider, token: in.Token}, out); d == nil {
			return Reply{Code: Limit, Message: "registered devices"}
		}
		return Reply{}
	}
	o.ack(now, d, d.cursor, out)
	if d.provider != in.Provider || d.token != in.Token {
		d.provider, d.token = in.Provider, in.Token
		out.Records = append(out.Records, d.record())
	}
	return Reply{}
}

// expireDevices forgets registrations that were not seen for long; one that reads is.
func (u *User) expireDevices(now int64, out *Output) {
	o := u.box()
	if o == nil {
		return
	}
	for i := 0; i < len(o.devices); {
		d := &o.devices[i]
		switch {
		case d.due() > now:
			i++
		case o.reads(d.id) != nil:
			o.ack(now, d, d.cursor, out)
			i++
		default:
			o.unregister(i, out)
		}
	}
}

// due is when the registration expires, Unix ms.
func (d *device) due() int64 { return int64(d.seen+deviceDays+1) * 86_400_000 }
