package presence

import "time"

// outside is what publishers and devices know: held against each other, whatever the core
// does inside.
type outside struct {
	given  map[[2]string]Published // by user and sender/id: the first answer
	where  map[[2]uint64]string    // client id by epoch and offset
	heads  map[string]Position     // of outboxes, by their answers
	acked  map[[2]uint64]bool      // some device has acked it
	events []Event
	serial uint64
	maker  map[ID]*actor        // whose activation first saw it
	wiped  map[string]time.Time // when users were erased
}

func newOutside() outside {
	return outside{
		given: map[[2]string]Published{}, where: map[[2]uint64]string{}, heads: map[string]Position{}, acked: map[[2]uint64]bool{}, maker: map[ID]*actor{},
		wiped: map[string]time.Time{},
	}
}

// inbox is what a device has of its user's outbox.
type inbox struct {
	pos  Position
	jump bool // what comes next may begin anywhere
}

// push is a delivery with its entries, as an edge passes it on.
type push struct {
	d       Delivery
	entries []Entry
}

// newID makes a client id with a time in it.
func (w *world) newID(at time.Time) (id ID) {
	w.serial++
	ms := at.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	for i := range 8 {
		id[8+i] = byte(w.serial >> (56 - 8*i))
	}
	return id
}

// publish sends one; what the store knows of the id goes along.
func (w *world) publish(to string, p Publish) {
	if p.Fresh == 0 {
		w.serial++
		p.Fresh = w.serial<<8 | 1
	}
	w.gateway(Deliver{Key: Key{testApp, to}, In: p})
}

// lookUp adds what the shell does: the dedupe row, unless its commit may be under way.
func (w *world) lookUp(a *actor, in Input) Input {
	p, ok := in.(Publish)
	if !ok {
		return in
	}
	for _, r := range w.stored(a.key.User) {
		if d, ok := r.(DedupeSet); ok && d.Sender == p.Sender && d.ID == p.ID && (w.maker[d.ID] != a || w.now.Sub(d.At) > 50*time.Second || w.pick(2) == 0) {
			p.Known = &Known{d.Epoch, d.Offset, d.At, d.Digest}
			if in24h := w.now.Sub(d.ID.Time()) <= dedupeWindow; in24h && d.At.After(w.wiped[a.key.User]) && !a.u.MayKnow(d.Sender, d.ID) {
				w.fail("%s: an id of %q is stored and would not be looked up", a.key.User, d.Sender)
			}
		}
	}
	return p
}

// published checks an answer: dense offsets, one for each id.
func (w *world) published(user string, in Publish, r *Reply) {
	w.log("%s has %s from %q: code %d", user, in.ClientID, in.Sender, r.Code)
	if r.Code != OK || in.Sender != "" {
		return
	}
	p := *r.Published
	k := [2]string{user, in.ClientID}
	if was, again := w.given[k]; again {
		if was.Epoch != p.Epoch || was.Offset != p.Offset {
			w.fail("%s: %s was %+v and now is %+v", user, in.ClientID, was, p)
		}
		return
	}
	w.given[k] = p
}

// stores checks the entries that a step stores: they follow one another.
func (w *world) stores(a *actor, records []Record) {
	user := a.key.User
	for _, r := range records {
		switch r := r.(type) {
		case OutboxSet:
			w.heads[user] = Position{r.Epoch, w.heads[user].Offset}
		case Erased:
			delete(w.heads, user)
			w.wiped[user] = w.now
		}
	}
	for _, r := range records {
		switch r := r.(type) {
		case EntryPut:
			head := w.heads[user]
			if head.Epoch == 0 || r.Entry.Offset != head.Offset+1 {
				w.fail("%s: offset %d after %+v", user, r.Entry.Offset, head)
			}
			w.heads[user] = Position{head.Epoch, r.Entry.Offset}
			w.where[[2]uint64{head.Epoch, r.Entry.Offset}] = r.Entry.ClientID
		case DedupeSet:
			w.maker[r.ID] = a
		}
	}
}

// outboxes carries deliveries to the edges, with the rows they name.
func (w *world) outboxes(a *actor, out *Output) {
	w.stores(a, out.Records)
	ds := out.Deliver
	if out.Reply.Outbox != nil {
		ds = append([]Delivery{*out.Reply.Outbox}, ds...)
	}
	for _, d := range ds {
		p := push{d: d}
		rows := map[uint64]Entry{}
		for _, r := range w.stored(a.key.User) {
			if e, ok := r.(EntryPut); ok {
				rows[e.Entry.Offset] = e.Entry
			}
		}
		for o := d.From; d.To != 0 && o <= d.To; o++ {
			if e, ok := rows[o]; ok {
				p.entries = append(p.entries, e)
			} else {
				w.fail("%s: row %d is not there when it is delivered", a.key.User, o)
			}
		}
		if len(p.entries) > windowEntries {
			w.fail("%s: %d entries at once", a.key.User, len(p.entries))
		}
		w.toEdge(d.Conn.Holder(), p)
	}
}

// begin is the first offset that a delivery is about.
func (d *Delivery) begin() uint64 {
	if d.Gap != nil {
		return d.Gap.From
	}
	return d.From
}

// pushed is what a device makes of it: nothing may be missing without a word.
func (e *vedge) pushed(w *world, p push) {
	c, v := w.clientOf(e, p.d.Conn.ID), e.conns[p.d.Conn.ID]
	if c == nil || v == nil || c.box == nil {
		return
	}
	b := c.box
	if begin := p.d.begin(); !p.d.Reset && b.pos.Epoch != 0 && (b.pos.Epoch != p.d.Epoch || !b.jump && begin > b.pos.Offset+1) {
		return // something before it was lost with a link
	}
	if p.d.Reset || b.pos.Epoch == 0 {
		if p.d.Ahead {
			w.fail("%s/%s was ahead: %+v of %+v", c.user, c.device, b.pos, p.d)
		}
		b.pos, b.jump = Position{p.d.Epoch, 0}, true
		if p.d.Gap == nil && len(p.entries) == 0 {
			b.pos.Offset, b.jump = p.d.Head, false
		}
	}
	if !b.jump && v.attach.Outbox.Epoch != b.pos.Epoch { // as its edge announces it
		pos := b.pos
		v.attach.Outbox = &pos
	}
	take := func(from, to uint64) bool {
		if b.jump {
			b.pos.Offset, b.jump = from-1, false
			pos := b.pos
			v.attach.Outbox = &pos
		}
		if from > b.pos.Offset+1 {
			w.fail("%s/%s: %d follows %d", c.user, c.device, from, b.pos.Offset)
		}
		fresh := to > b.pos.Offset
		b.pos.Offset = max(b.pos.Offset, to)
		return fresh
	}
	if g := p.d.Gap; g != nil && take(g.From, g.To) {
		w.log("%s/%s misses %d to %d: %s", c.user, c.device, g.From, g.To, [...]string{"acked", "expired", "collapsed", "overflow", "purged"}[g.Reason])
		for o := g.From; o <= g.To && g.Reason == GapAcked; o++ {
			if !w.acked[[2]uint64{p.d.Epoch, o}] {
				w.fail("%s/%s: %d is gone but nobody has acked it", c.user, c.device, o)
			}
		}
	}
	for _, x := range p.entries {
		if id := w.where[[2]uint64{p.d.Epoch, x.Offset}]; id != x.ClientID {
			w.fail("%s/%s: offset %d is %q, and was %q", c.user, c.device, x.Offset, x.ClientID, id)
		}
		if take(x.Offset, x.Offset) {
			w.log("%s/%s gets %d: %s", c.user, c.device, x.Offset, x.ClientID)
		}
	}
}

// acks notes what a device says that it has read.
func (w *world) acks(pos Position) {
	for o := pos.Offset; o > 0 && !w.acked[[2]uint64{pos.Epoch, o}]; o-- {
		w.acked[[2]uint64{pos.Epoch, o}] = true
	}
}

// ack says how far a device has come.
func (w *world) ack(c *client) {
	e, v := w.vconn(c)
	if v == nil || c.box == nil || c.box.pos.Epoch == 0 || v.attach.Outbox == nil || c.box.jump {
		return
	}
	pos := c.box.pos
	w.acks(pos)
	v.attach.Outbox = &pos
	e.send(Deliver{Key{testApp, c.user}, e.id(), AckOutbox{v.attach.Session, v.attach.Conn, pos.Epoch, pos.Offset}})
}

// read demands that every device that reads has come to the end.
func (w *world) read() {
	for range 20 {
		for _, n := range sortedKeys(w.clients) {
			w.ack(w.clients[n])
		}
		w.drain()
	}
	w.advance(2*time.Minute, true)
	for _, n := range sortedKeys(w.clients) {
		c := w.clients[n]
		e, v := w.vconn(c)
		if v == nil || c.box == nil || !e.linked || v.attach.Outbox == nil {
			continue
		}
		head := Position{}
		for _, r := range w.stored(c.user) {
			switch r := r.(type) {
			case OutboxSet:
				head = Position{r.Epoch, max(head.Offset, r.Head)}
			case EntryPut:
				head.Offset = max(head.Offset, r.Entry.Offset)
			}
		}
		a := w.actors[c.user] // a device that was forgotten reads no longer
		known := a != nil && a.m.box.readers[c.device] != nil
		if known && head != c.box.pos && head.Epoch != 0 {
			w.fail("%s has read up to %+v of %+v", n, c.box.pos, head)
		}
	}
}
