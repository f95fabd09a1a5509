package edge

import (
	"strconv"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/clients/wire"
	"muster/edge/publish"
)

// reading is how far a session has got with its user's outbox.
type reading struct {
	epoch uint64 // 0: none told yet
	acked uint64 // all up to it are done with
	sent  uint64 // the last offset that was given to the socket
}

// positionOf reads where a device wants to go on; nil: it does not read the outbox.
func positionOf(p *wire.OutboxPosition) (r *reading, why string) {
	if p == nil {
		return nil, ""
	}
	e, ok := epochOf(p.Epoch)
	switch {
	case !ok:
		return nil, "connect.outbox.epoch: want the 16 hex digits that the server gave"
	case e == 0 && p.Offset != 0:
		return nil, "connect.outbox.offset: means nothing without its epoch"
	}
	return &reading{epoch: e, acked: p.Offset, sent: p.Offset}, ""
}

// epochOf reads an epoch; "" is 0.
func epochOf(s string) (uint64, bool) {
	if s == "" {
		return 0, true
	}
	e, err := strconv.ParseUint(s, 16, 64)
	return e, err == nil && len(s) == 16
}

func (s *session) reading() *reading {
	if s.rare == nil {
		return nil
	}
	return s.rare.read
}

// position is where a core that has lost the session goes on. What was sent and not acked comes again: only an ack says
// that the device has it.
func (s *session) position() *link.OutboxPosition {
	r := s.reading()
	if r == nil {
		return nil
	}
	return &link.OutboxPosition{Epoch: r.epoch, Offset: r.acked}
}

// taken notes what the core gives of the outbox, and words it for the client; nil: nothing.
func (h *hub) taken(s *socket, b *link.OutboxBatch) *wire.OutboxPush {
	r := s.self.reading()
	if r == nil || b == nil {
		return nil
	}
	if b.Epoch != r.epoch || b.Reset_ {
		*r = reading{epoch: b.Epoch}
	}
	p := &wire.OutboxPush{Epoch: publish.EpochWord(b.Epoch), Head: b.Head, Reset_: b.Reset_}
	if g := b.Gap; g != nil {
		p.Gap = &wire.OutboxGap{From: g.From, To: g.To, Reason: publish.Reason(g.Reason)}
		if g.From <= r.acked+1 {
			r.acked = max(r.acked, g.To)
		}
		r.sent = max(r.sent, g.To)
	}
	list := b.Entries
	if len(list) > 0 && r.sent == 0 {
		r.acked = list[0].Offset - min(list[0].Offset, 1) // what comes before the first is not for this device
	}
	if h.unread(s) {
		// It has not even read what it was given: to send that again would only lengthen its queue.
		for len(list) > 0 && list[0].Offset <= r.sent {
			list = list[1:]
			h.edge.count.redelivered.Add(1)
		}
		if len(list) == 0 && len(b.Entries) > 0 && p.Gap == nil && !p.Reset_ {
			return nil
		}
	}
	for _, e := range list {
		p.Entries = append(p.Entries, entryOf(e))
		r.sent = max(r.sent, e.Offset)
	}
	h.edge.count.entries.Add(int64(len(list)))
	return p
}

// unread reports whether something waits to be written to the socket.
func (h *hub) unread(s *socket) bool {
	p := h.pend[s.idx]
	return p != nil && len(p.lines) > 0 || !s.out.idle()
}

func entryOf(e *link.OutboxEntry) *wire.OutboxEntry {
	return &wire.OutboxEntry{
		Offset: e.Offset, ClientId: e.ClientId, From: e.Sender, Type: publish.Type(e.Type), Class: publish.Class(e.Class),
		At: millis(e.At), ExpiresAt: millis(e.Until), CollapseKey: e.Collapse, Body: e.Body,
	}
}

// Bytes of a frame: what the reply to connect may take, and what an outbox push adds to its entries.
const (
	replyRoom    = wire.MaxFrame - 64
	pushOverhead = 256
)

// entrySize is a bound for an entry's encoding.
func entrySize(e *wire.OutboxEntry) int {
	return 256 + len(e.ClientId) + len(e.From) + 6*len(e.CollapseKey) + len(e.Body)
}

// cutOutbox takes from p what fits in so many bytes; rest, if any, comes after it.
func cutOutbox(p *wire.OutboxPush, room int) (first, rest *wire.OutboxPush) {
	room -= pushOverhead
	if p == nil || room < 0 {
		return nil, p
	}
	n := 0
	for n < len(p.Entries) && entrySize(p.Entries[n]) <= room {
		room -= entrySize(p.Entries[n])
		n++
	}
	if n == len(p.Entries) {
		return p, nil
	}
	first = &wire.OutboxPush{Epoch: p.Epoch, Head: p.Head, Entries: p.Entries[:n], Gap: p.Gap, Reset_: p.Reset_}
	return first, &wire.OutboxPush{Epoch: p.Epoch, Head: p.Head, Entries: p.Entries[n:]}
}

// outboxFrames makes pushes of at most 64 KiB of what p holds.
func (s *socket) outboxFrames(p *wire.OutboxPush) (list [][]byte) {
	for p != nil {
		var first *wire.OutboxPush
		first, p = cutOutbox(p, replyRoom)
		r := &wire.Reply{Body: &wire.Reply_Push{Push: &wire.Push{Outbox: first}}}
		list = append(list, sealFrame(s.codec.appendReply(newFrame(nil), r), s.codec.opcode()))
	}
	return list
}

// outboxBatch gives one conn what the core has for it. It is never dropped and never merged: a reader that does not keep up
// has its socket closed, and goes on from its position.
func (h *hub) outboxBatch(b *link.OutboxBatch) {
	s := h.edge.sockets.byConn(b.Conn)
	if s == nil || s.phase() == fresh || s.who.key != (presence.Key{App: b.App, User: b.User}) || !s.has(isAttached) {
		return
	}
	h.postOutbox(s, h.taken(s, b))
}

func (h *hub) postOutbox(s *socket, p *wire.OutboxPush) {
	for _, frame := range s.outboxFrames(p) {
		h.post(s, frame)
	}
}

// ack passes on how far a device has processed, if that is news.
func (h *hub) ack(s *socket, c *wire.Command, m *wire.Ack) (why string) {
	r := s.self.reading()
	if r == nil {
		return "ack: this session does not read the outbox; say so in connect"
	}
	e, ok := epochOf(m.Epoch)
	switch {
	case !ok:
		return "ack.epoch: want the 16 hex digits that the server gave"
	case (e == 0 || e == r.epoch) && m.Outbox > r.sent:
		return "ack.outbox: more than this session was given"
	case (e == 0 || e == r.epoch) && m.Outbox > r.acked:
		r.acked = m.Outbox
		h.up(s.who.shard, &link.Up{Body: &link.Up_Ack{Ack: &link.OutboxAck{
			App: s.who.key.App, User: s.who.key.User, Session: s.self.id, Conn: s.conn, Epoch: r.epoch, Offset: r.acked,
		}}})
	}
	if c.Id != 0 {
		h.answer(s, done(c))
	}
	return ""
}
