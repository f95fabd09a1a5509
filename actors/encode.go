package actors

import (
	"bytes"
	"time"

	"muster/actors/presence"
	"muster/actors/row"
)

// encode appends what records of a user change to a proposal.
func (g *gateway) encode(f *flight, k presence.Key, records []presence.Record, now time.Time) {
	from := len(f.writes)
	a := g.users[k]
	var p row.Profile
	if a == nil || !a.more && row.Widens(records) {
		var err error
		p, err = g.profile(k)
		g.must(err)
	} else {
		p.More = a.more
	}
	for _, r := range records {
		switch r := r.(type) {
		case presence.Erased:
			g.encodeErased(f, k, now)
		case presence.TransferOut:
			g.counters.Transfers++
			t := g.newTransfer(g.counters.Transfers, row.Stored{App: k.App, From: k.User, To: r.To, At: now, What: r.What})
			f.writes = append(f.writes, Write{Key: row.TransferKey(t.seq), Value: row.EncodeTransfer(&t.stored)})
			f.send, f.counted = append(f.send, t), true
		case presence.Event:
			g.counters.Events++
			f.writes = append(f.writes, Write{Key: row.EventKey(g.counters.Events),
				Value: row.EncodeEvent(&row.StoredEvent{Key: k, Event: r, Generation: g.generation})})
			f.events, f.counted = g.counters.Events, true
		}
	}
	f.writes = p.Append(f.writes, k, row.Salted(records, g.generation))
	if a != nil {
		a.more = p.More
	}
	for _, w := range f.writes[from:] {
		if w.End == nil && row.Early(w.Key) {
			g.fresh[string(w.Key)] = freshRow{g.seq + 1, w.Value}
			f.fresh = append(f.fresh, string(w.Key))
		}
	}
}

// encodeErased removes what stands elsewhere than in the user's own range.
func (g *gateway) encodeErased(f *flight, k presence.Key, now time.Time) {
	last := row.HourOf(now.Add(time.Hour))
	for hour := row.HourOf(now.Add(-row.Window)); hour <= last; hour++ {
		f.writes = append(f.writes, row.StreamIDs(hour, k).Delete())
	}
	records, _, err := g.load(k)
	g.must(err)
	for _, key := range row.Expiries(k, records) {
		f.writes = append(f.writes, Write{Key: key})
	}
}

// sweep is the housekeeping of the shard, every two seconds: what ends by itself, what is
// old, what has to be sent again. What it writes goes with the next flush.
func (g *gateway) sweep(now time.Time) {
	g.expire(now)
	g.retryTransfers(now)
	g.answerWaiting(now, false)
	if now.Sub(g.tidied) < time.Minute {
		return
	}
	g.tidied = now
	g.raiseFloors()
	g.forgetGraphs(now)
	g.dropEvents(now)
	if hour := row.HourOf(now.Add(-row.Window)); hour != g.swept {
		g.swept = hour
		g.debris = append(g.debris, row.IDsBefore(hour).Delete())
	}
}

const maxExpired = 1000 // expiry rows in one sweep

// expire wakes the users of whom something has ended. Their expiry rows go after what they then
// write.
func (g *gateway) expire(now time.Time) {
	if g.full || len(g.flights) >= maxFlights {
		return
	}
	var keys []presence.Key
	var last []byte
	span := row.ExpiredBy(now.UnixMilli())
	g.must(g.node.store.Scan(g.shard, span.From, span.To, func(key, _ []byte) bool {
		_, k, err := row.ParseExpiry(key)
		g.must(err)
		keys = append(keys, k)
		last = append(bytes.Clone(key), 0)
		return len(keys) < maxExpired
	}))
	for _, k := range keys {
		if g.users[k] == nil { // else its own deadline has come
			g.step(presence.Deliver{Key: k, In: presence.Wake{}}, nil, now)
		}
	}
	if last != nil {
		g.debris = append(g.debris, Write{Key: span.From, End: last})
	}
}
