package actors

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cespare/xxhash/v2"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// maxBatch is how much of bodies one message to an edge carries, bytes.
const maxBatch = 32 << 10

// effectsOf is what a step did besides; nil if nothing.
func effectsOf(out *presence.Output, up *link.Up) *effects {
	t := up.GetTransfer()
	if len(out.Sends)+len(out.Deliver)+len(out.Contacts) == 0 && out.Reply.Outbox == nil && out.Reply.Published == nil && t == nil {
		return nil
	}
	e := &effects{closes: out.Sends, outbox: out.Reply.Outbox, deliver: out.Deliver, contacts: out.Contacts}
	if out.Publish != nil {
		e.edges = out.Publish.Edges
	}
	if p := out.Reply.Published; p != nil && !p.Duplicate {
		e.client = up.GetAct().GetPublish().GetClientId()
	}
	if t != nil {
		e.outcome = outcome(t, link.Code(out.Reply.Code))
	}
	return e
}

// leave sends what goes before the gateway hears of the step.
func (g *gateway) leave(s *stepped) {
	if s.more == nil {
		return
	}
	for _, c := range s.more.closes {
		g.out.send(c.Conn.Holder(), closeConn(s.of.key, c))
	}
}

// follow sends what goes after it, the reply first.
func (g *gateway) follow(a *activation, s *stepped) {
	e := s.more
	if audit := g.node.cfg.Audit; audit != nil && e.client != "" && s.seq != 0 {
		audit(g.shard, g.out.term, g.index, e.client)
	}
	var rest []*link.OutboxBatch
	if e.outbox != nil {
		batches := g.batches(a, e.outbox)
		if to := s.reply.GetAttached(); to != nil {
			to.Outbox, batches = batches[0], batches[1:]
		}
		rest = batches
	}
	if s.reply != nil {
		g.out.send(s.to, s.reply)
	}
	for _, b := range rest {
		g.out.send(e.outbox.Conn.Holder(), &link.Down{Body: &link.Down_Outbox{Outbox: b}})
	}
	for i := range e.deliver {
		for _, b := range g.batches(a, &e.deliver[i]) {
			g.out.send(e.deliver[i].Conn.Holder(), &link.Down{Body: &link.Down_Outbox{Outbox: b}})
		}
	}
	if len(e.contacts) > 0 {
		rows := list(e.contacts, contactRow)
		for _, to := range e.edges {
			g.out.send(to, &link.Down{Body: &link.Down_Contacts{Contacts: &link.ContactsChanged{App: a.key.App, User: a.key.User, Rows: rows}}})
		}
	}
	if e.outcome != nil {
		g.node.toShard(e.outcome)
	}
}

// batcher cuts a delivery into messages.
type batcher struct {
	out  []*link.OutboxBatch
	head func() *link.OutboxBatch
	size int
}

func (b *batcher) last() *link.OutboxBatch { return b.out[len(b.out)-1] }

func (b *batcher) next() *link.OutboxBatch {
	b.out, b.size = append(b.out, b.head()), 0
	return b.last()
}

// gap says that offsets will not come; it goes before the entries of its message.
func (b *batcher) gap(from, to uint64, why presence.GapReason) {
	last := b.last()
	switch g := last.Gap; {
	case len(last.Entries) > 0:
		last = b.next()
	case g == nil:
	case g.To+1 == from && g.Reason == uint32(why):
		g.To = to
		return
	default:
		last = b.next()
	}
	last.Gap = &link.OutboxGap{From: from, To: to, Reason: uint32(why)}
}

func (b *batcher) entry(e *link.OutboxEntry) {
	if b.size > 0 && b.size+len(e.Body) > maxBatch {
		b.next()
	}
	b.size += len(e.Body)
	b.last().Entries = append(b.last().Entries, e)
}

// batches reads the entries of a delivery. There is at least one batch, the first says
// what the delivery says besides.
func (g *gateway) batches(a *activation, d *presence.Delivery) []*link.OutboxBatch {
	b := &batcher{head: func() *link.OutboxBatch {
		return &link.OutboxBatch{App: a.key.App, User: a.key.User, Conn: d.Conn.ID, Epoch: d.Epoch, Head: d.Head}
	}}
	b.next().Reset_ = d.Reset
	if d.Ahead {
		g.node.stats.ResumeAhead.Add(1)
		g.node.cfg.Logger.Error("a device has read more of an outbox than there is: acknowledged data was lost",
			"shard", g.shard, "app", a.key.App, "user", a.key.User, "head", d.Head)
	}
	if d.Gap != nil {
		b.gap(d.Gap.From, d.Gap.To, d.Gap.Reason)
	}
	if d.To == 0 {
		return b.out
	}
	next := d.From
	missing := func(until uint64) {
		for ; next < until; next++ {
			b.gap(next, next, a.user.Gone(next))
		}
	}
	span := row.Entries(a.key, d.From, d.To)
	prefix := len(span.From) - 8
	g.must(g.node.store.Scan(g.shard, span.From, span.To, func(key, v []byte) bool {
		offset := row.Offset(key[prefix:])
		put, body, err := row.DecodeEntry(offset, v)
		g.must(err)
		e := &put.Entry
		missing(offset)
		b.entry(&link.OutboxEntry{Offset: offset, ClientId: e.ClientID, Sender: e.Sender, Type: uint32(e.Type), Class: uint32(e.Class),
			At: toMs(e.At), Until: toMs(e.Until), Collapse: e.Collapse, Body: string(body)})
		next = offset + 1
		return true
	}))
	missing(d.To + 1)
	return b.out
}

// complete fills in what an input needs to know of the rows.
func (g *gateway) complete(a *activation, in presence.Input, now time.Time) (presence.Input, error) {
	switch in := in.(type) {
	case presence.Publish:
		in.Fresh = fresh()
		var err error
		if a.user.MayKnow(in.Sender, in.ID) {
			if in.Known, err = g.known(row.DedupeKey(a.key, in.Sender, in.ID)); err != nil {
				return nil, err
			}
		}
		if after, ok := a.user.NeedsOldest(in.Sender, now); ok {
			in.Oldest, err = g.oldest(a.key, in.Sender, after, now)
		}
		return in, err
	case presence.Received:
		in.Fresh = fresh()
		return in, nil
	case presence.Purge:
		if in.Epoch == 0 {
			in.Epoch = fresh()
		}
		return in, nil
	}
	return in, nil
}

// known is what a dedupe row says; nil if there is none.
func (g *gateway) known(key []byte) (*presence.Known, error) {
	v, ok, err := g.get(key)
	if err != nil || !ok {
		return nil, err
	}
	k, err := row.DecodeDedupe(v)
	row.SaltedKnown(k, g.generation)
	return k, err
}

// oldest is the least id after one that a sender has used in a user's outbox.
func (g *gateway) oldest(k presence.Key, sender string, after presence.ID, now time.Time) (id presence.ID, err error) {
	last := row.HourOf(now.Add(time.Hour))
	for hour := max(row.Hour(after), row.HourOf(now.Add(-row.Window))); hour <= last; hour++ {
		span, found := row.SenderIDs(hour, k, sender), false
		if hour == row.Hour(after) {
			span.From = append(row.DedupeKey(k, sender, after), 0)
		}
		fault := g.node.store.Scan(g.shard, span.From, span.To, func(key, _ []byte) bool {
			id, err = row.ParseID(key)
			found = true
			return false
		})
		if found || err != nil || fault != nil {
			return id, cmp.Or(err, fault)
		}
	}
	return id, nil
}

// fresh is random and not 0: an epoch.
func fresh() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// digest is what must not differ under one client id.
func digest(body string) uint64 { return xxhash.Sum64String(body) }

// needsRoom reports that an input may make records that must be committed.
func (g *gateway) needsRoom(in presence.Input) bool {
	switch in := in.(type) {
	case presence.SetClaim:
		return in.Session == "" || in.Claim.Durable || in.Claim.TTL > g.node.cfg.Presence.DurableTTL
	case presence.Attach, presence.Detach, presence.Active, presence.EndClaim, presence.Kick, presence.AckOutbox, presence.SetGraph, presence.Wake:
		return false
	}
	return true
}

const noRoom = "no room on the disk for durable changes"

// admit says whether an input may be given to its user now, and why not.
func (g *gateway) admit(in presence.Input) (link.Code, string) {
	switch {
	case !g.full && len(g.flights) < maxFlights || !g.needsRoom(in):
		return link.Code_OK, ""
	case g.full:
		g.node.stats.Busy.Add(1)
		return link.Code_UNAVAILABLE, noRoom
	}
	g.node.stats.Busy.Add(1)
	return link.Code_BUSY, "too many changes are on their way to the disk"
}
