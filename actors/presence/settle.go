package presence

// strike takes an edge off the barrier.
func (g *Gateway) strike(now int64, e Edge, out *Effects) {
	if g.barrier[e] {
		delete(g.barrier, e)
		g.heard(now, out)
	}
}

// answered notes that the activation of a user who was announced has told what the user shows.
func (g *Gateway) answered(now int64, k Key, out *Effects) {
	if g.awaited[k] {
		delete(g.awaited, k)
		g.heard(now, out)
	}
}

// all reports that every edge has announced and every user who was announced has been heard.
func (g *Gateway) all() bool { return len(g.barrier) == 0 && len(g.awaited) == 0 }

// heard settles the shard when there is nothing more to wait for. Were it settled before the activations have answered, a
// watch in the next message would find users offline who have just been announced.
func (g *Gateway) heard(now int64, out *Effects) {
	if g.settling && g.all() {
		g.settle(now, out)
	}
}

// settle ends the wait for announcements: users known to have been online whom nobody
// announced are presumed to be for a while, the rest is told.
func (g *Gateway) settle(now int64, out *Effects) {
	g.settling = false
	grace := g.cfg.Presume
	if g.draining != 0 && g.draining >= g.opened-g.cfg.PresumeDrain.Milliseconds() {
		grace = g.cfg.PresumeDrain
	}
	until := g.opened + grace.Milliseconds()
	var keys []Key
	for k := range g.expected {
		keys = append(keys, k)
	}
	for _, k := range sorted(keys) {
		e := g.entry(k)
		if e.live > 0 || until <= now {
			g.reap(e)
			continue
		}
		e.owed = true
		if len(e.holds) == 0 && !g.handed[k] { // else it was announced, and the answer is on its way
			g.send(e, Presume{instant(until)}, out)
		}
	}
	for k := range g.awaited {
		g.entry(k).owed = true // until it is heard
	}
	g.expected, g.barrier, g.handed, g.awaited = nil, nil, nil, nil
	keys = keys[:0]
	for k, e := range g.entries {
		if e.owed {
			keys = append(keys, k)
		}
	}
	for _, k := range sorted(keys) {
		g.resolve(now, g.entries[k], out)
	}
}

// cluster feeds the storm guard: when more than StormPercent of all sessions and at
// least StormFloor were lost within 5 s, offline events are held back and then released
// evenly over StormRelease.
func (g *Gateway) cluster(now int64, in Cluster, out *Effects) {
	storm := in.Lost >= g.cfg.StormFloor && float64(in.Lost)*100 > g.cfg.StormPercent*float64(in.Sessions+in.Lost)
	tripped := storm && !g.storm
	g.storm = storm
	if !tripped {
		return
	}
	var keys []Key
	for k, e := range g.entries {
		if e.detached > 0 {
			keys = append(keys, k)
		}
	}
	for _, k := range sorted(keys) {
		g.extend(g.entries[k], out)
	}
}

// extend raises the grace of a user's lost sessions. Where in the release a user comes
// is a hash of its key: even, and the same wherever it is computed.
func (g *Gateway) extend(e *entry, out *Effects) {
	spread := int64(hash(e.key) % uint64(max(g.cfg.StormRelease.Milliseconds(), 1)))
	g.send(e, ExtendGrace{instant(e.lostAt + g.cfg.StormGrace.Milliseconds() + spread)}, out)
}

// hash is FNV-1a.
func hash(k Key) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{k.App, "\x00", k.User} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	return h
}

// noteLost counts sessions lost in this second.
func (g *Gateway) noteLost(now int64, n int) {
	if n == 0 {
		return
	}
	second := now / 1000
	b := &g.lost[second%int64(len(g.lost))]
	if b.second != second {
		b.second, b.n = second, 0
	}
	b.n += int64(n)
}
