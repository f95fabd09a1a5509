package actors

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"time"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/row"
)

// must ends the gateway's turn on a fault of the store that says nothing of one user.
func (g *gateway) must(err error) {
	if err != nil {
		panic(fmt.Errorf("shard %d: %w", g.shard, err))
	}
}

// get reads one row as it is or will be.
func (g *gateway) get(key []byte) ([]byte, bool, error) {
	if f, ok := g.fresh[string(key)]; ok {
		return f.value, f.value != nil, nil
	}
	return g.node.store.Get(g.shard, key)
}

// profile reads a user's profile as it is or will be.
func (g *gateway) profile(k presence.Key) (p row.Profile, err error) {
	v, ok, err := g.node.store.Get(g.shard, row.ProfileKey(k))
	if err != nil || ok {
		if err == nil {
			p, err = row.DecodeProfile(v)
		}
		if err != nil {
			return p, fmt.Errorf("profile: %w", err)
		}
	}
	for r := range g.uncommitted(k) {
		p.Note(r)
	}
	return p, nil
}

// uncommitted visits the records of a user that are not durable yet, in order.
func (g *gateway) uncommitted(k presence.Key) iter.Seq[presence.Record] {
	return func(yield func(presence.Record) bool) {
		t := g.gates[k]
		if t == nil {
			return
		}
		for _, p := range t.fly {
			for _, r := range p.records {
				if !yield(r) {
					return
				}
			}
		}
		for _, r := range t.lazy {
			if !yield(r) {
				return
			}
		}
	}
}

// load reads the records of a user, in the order in which Restore takes them, and whether
// the user may have more rows than its profile.
func (g *gateway) load(k presence.Key) (records []presence.Record, more bool, err error) {
	g.node.stats.Loads.Add(1)
	v, ok, err := g.node.store.Get(g.shard, row.ProfileKey(k))
	if err != nil {
		return nil, false, err
	}
	var p row.Profile
	if ok {
		if p, err = row.DecodeProfile(v); err != nil {
			return nil, false, fmt.Errorf("profile: %w", err)
		}
	}
	if p.Marked {
		records = append(records, p.Marker)
	}
	if p.More {
		if records, err = g.scanUser(k, records); err != nil {
			return nil, false, err
		}
	}
	for r := range g.uncommitted(k) {
		if p.Note(r); isErased(r) {
			records = nil
			continue
		}
		records = append(records, r)
	}
	return records, p.More, nil
}

// scanUser reads all rows of a user but its profile.
func (g *gateway) scanUser(k presence.Key, records []presence.Record) ([]presence.Record, error) {
	var fault error
	span := row.More(k)
	err := g.node.store.Scan(g.shard, span.From, span.To, func(key, v []byte) bool {
		r, err := row.Decode(k, key, v)
		if fault = err; err == nil {
			records = append(records, r)
		}
		return err == nil
	})
	if err = cmp.Or(err, fault); err != nil {
		return nil, err
	}
	sortClaims(records)
	return row.Salted(records, g.generation), nil
}

// sortClaims brings claims, which have come by their ids, into the order in which they
// were set: the newest counts.
func sortClaims(records []presence.Record) {
	isClaim := func(r presence.Record) bool { _, ok := r.(presence.ClaimSet); return ok }
	from := slices.IndexFunc(records, isClaim)
	if from < 0 {
		return
	}
	to := from
	for to < len(records) && isClaim(records[to]) {
		to++
	}
	slices.SortStableFunc(records[from:to], func(a, b presence.Record) int {
		return a.(presence.ClaimSet).At.Compare(b.(presence.ClaimSet).At)
	})
}

func isErased(r presence.Record) bool {
	_, ok := r.(presence.Erased)
	return ok
}

// activate makes the user's activation from what is stored. It returns nil if it may not be made now.
func (g *gateway) activate(k presence.Key, now time.Time) *activation {
	if g.parked(k, false, now) {
		return nil
	}
	begin := time.Now()
	records, more, err := g.load(k)
	if err != nil {
		g.park(k, err, now)
		return nil
	}
	a := &activation{key: k, user: presence.NewUser(g.node.cfg.Presence, g.core.LastSeen(k)), gate: g.gates[k], more: more}
	if len(records) > 0 {
		a.user.Restore(records...)
	}
	g.users[k] = a
	g.start(a)
	g.node.stats.Users.Add(1)
	g.node.stats.readBack(time.Since(begin))
	return a
}

// learn tells the core what is stored of a user without an activation, if it does not
// know, so that it can answer for the user.
func (g *gateway) learn(k presence.Key, now time.Time) {
	if g.core.Known(k) {
		g.graph(k, now)
		return
	}
	if !g.holds(k, link.KindUser) || g.parked(k, false, now) {
		return
	}
	records, _, err := g.load(k)
	if err != nil {
		g.park(k, err, now)
		return
	}
	loaded, graph := presence.Loaded{Key: k}, g.graphOf(k)
	if len(records) > 0 || graph != nil {
		u := g.restored(records)
		loaded.Publish = u.Step(now, presence.Tick{}).Publish
		if graph != nil {
			loaded.Publish = cmp.Or(u.Step(now, *graph).Publish, loaded.Publish)
		}
	}
	g.step(loaded, nil, now)
	g.graph(k, now)
}

// restored is a user as it is stored, not to be used but for looking at it.
func (g *gateway) restored(records []presence.Record) *presence.User {
	u := presence.NewUser(g.node.cfg.Presence, time.Time{})
	if len(records) > 0 {
		u.Restore(records...)
	}
	return u
}

func (g *gateway) learnAll(app string, users []string, now time.Time) {
	for _, u := range users {
		g.learn(presence.Key{App: app, User: u}, now)
	}
}

// park keeps a user out whose rows cannot be read.
func (g *gateway) park(k presence.Key, why error, now time.Time) {
	n := g.node
	t := &trouble{key: k, parked: now.Add(n.cfg.Parking)}
	g.trouble[troubleKey(k, false)] = t
	n.stats.Parked.Add(1)
	n.cfg.Logger.Error("user cannot be loaded", "shard", g.shard, "app", k.App, "id", k.User, "error", why, "until", t.parked)
}
