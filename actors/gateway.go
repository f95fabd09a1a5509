package actors

import (
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
	"muster/actors/row"
)

// gateway is the actor of one shard. Its fields belong to its turn.
type gateway struct {
	mailbox
	wake  chan struct{} // the mailbox has work for the gateway's goroutine
	quit  chan struct{}
	node  *Node
	shard uint32
	ctx   actor.Context
	props *actor.Props
	spawn *activation // being spawned: the props' producers return its parts

	core     *presence.Gateway
	out      *outlet // nil: the shard is closed
	term     uint64  // of out, or the last one
	users    map[presence.Key]*activation
	rooms    map[presence.Key]*activation
	due      deadlines
	timer    *time.Timer
	armed    time.Time // when timer fires; zero: it does not
	deferred bool      // a late tick waits behind the inbox
	settling bool

	trouble map[string]*trouble // by activation: what panicked of late

	// What is durable.
	proposals
	generation uint64
	version    uint64        // of the core, after its last step
	skew       time.Duration // of the shard's time to the clock when it opened
	skewed     time.Time
	counters   row.Counters
	transfers  transfers
	handed     handover  // the last one, of the leader before
	opening    time.Time // when the shard opened under its term
	events     uint64    // the last one committed
	waiting    []waiting
	confirming int       // linearizable reads that wait for the store
	tidied     time.Time // when old rows were last looked for
	swept      uint64    // dedupe rows of hours before are gone
	graphs     graphs

	// Of rooms: the highest version a room of the shard had when it stopped, edges
	// without a link and when they count as dead, and announcements under way.
	floor      uint64
	edges      map[presence.Edge]bool
	away       map[presence.Edge]time.Time
	announcing map[presence.Edge]*roomsAnnounced
}

// flush is the node's word to all gateways, in the same instant, so that what they then write is
// synced at once.
type flush struct{}

const flushEvery = 2 // turns of the node's loop

// tick is the timer of a gateway, and its word to an activation.
type tick struct{}

func newGateway(n *Node, shard uint32) *gateway {
	g := &gateway{node: n, shard: shard, wake: make(chan struct{}, 1), quit: make(chan struct{}), edges: map[presence.Edge]bool{},
		away: map[presence.Edge]time.Time{}, trouble: map[string]*trouble{}}
	g.begin = func() { g.wake <- struct{}{} }
	g.props = actor.PropsFromProducer(
		func() actor.Actor { return g.spawn },
		actor.WithMailbox(func() actor.Mailbox { return &g.spawn.mailbox }))
	g.proposals = newProposals()
	return g
}

// now is the shard's time: the clock, but never before what was committed. What it is ahead is made up for
// at 1 %.
func (g *gateway) now() time.Time {
	now := g.node.clock.Now()
	if g.skew > 0 {
		if left := g.skew - time.Since(g.skewed)/slew; left > 0 {
			return now.Add(left)
		}
		g.skew = 0
	}
	return now
}

// turns is the gateway's goroutine. It is one for all its life, because a fresh stack
// would have to grow at every message.
func (g *gateway) turns() {
	for {
		select {
		case <-g.wake:
			g.run()
		case <-g.quit:
			return
		}
	}
}

// close stops the activations. Their outlet is cut already.
func (g *gateway) close() {
	if g.timer != nil {
		g.timer.Stop()
	}
	g.stopAll()
}

func (g *gateway) stopAll() {
	for _, all := range []map[presence.Key]*activation{g.users, g.rooms} {
		for _, a := range all {
			g.gone(a)
			g.ctx.Stop(a.pid)
		}
	}
}

// Receive handles one message.
func (g *gateway) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		g.ctx = ctx
		return
	case *actor.Stopping:
		g.close()
		return
	case *actor.Stopped:
		if g.core != nil {
			g.core.Close()
		}
		return
	case *actor.Terminated:
		return
	}
	defer g.contain()
	g.handle(ctx.Message(), g.now())
	if g.out != nil {
		g.askGraphs()
		g.settled()
		g.arm()
	}
}

func (g *gateway) handle(msg any, now time.Time) {
	switch m := msg.(type) {
	case *opened:
		g.opened(m)
		return
	case *closed:
		g.closed(m.out)
		return
	}
	if g.out == nil {
		g.handleClosed(msg)
		return
	}
	if up, ok := msg.(*link.Up); ok && linearizable(up) {
		g.confirm(up)
		return
	}
	switch m := msg.(type) {
	case committed:
		if m.term == g.out.term {
			g.committed(m, now)
		}
	case flush:
		g.sweep(now)
		g.flush(now)
	case *request:
		m.run(g, now)
	case *confirmed:
		g.confirmed(m, now)
	case *graphAnswer:
		g.graphed(m, now)
	case *link.Up:
		g.up(m, now)
	case *stepped:
		g.stepped(m, now)
	case tick:
		g.tick(now)
	case presence.Cluster:
		g.second(m, now)
	case edgeUp:
		g.edgeUp(m.edge, now)
	case edgeBack:
		g.edgeUp(m.edge, now)
		g.out.send(m.edge, again(presence.Key{}))
	case edgeDown:
		g.away[m.edge] = now.Add(g.node.cfg.Presence.Unreachable)
		g.step(presence.EdgeDown{Edge: m.edge}, nil, now)
	case edgeDead:
		g.loseEdge(m.edge)
		g.step(presence.EdgeDead{Edge: m.edge}, nil, now)
	case edgeDraining:
		g.step(presence.EdgeDraining{Edge: m.edge, On: m.on}, nil, now)
	}
}

// handleClosed handles a message while the shard is closed.
func (g *gateway) handleClosed(msg any) {
	switch m := msg.(type) {
	case *link.Up:
		if h := m.GetHandover(); h != nil {
			g.takeHandover(h, g.now())
		} else {
			g.moving(m)
		}
	case *request:
		m.done(ErrNotLeader)
	case *confirmed:
		g.moving(m.read)
	case edgeDead:
		delete(g.edges, m.edge)
		delete(g.away, m.edge)
	}
}

// step steps the core and does what it says. up is the message that in came from, for
// the activation that is to answer it; it may be nil.
func (g *gateway) step(in presence.GatewayInput, up *link.Up, now time.Time) {
	fx := g.core.Step(now, in)
	g.version = g.core.Version()
	for _, m := range fx.Edges {
		g.out.send(m.Edge, down(m.Message))
	}
	var asked presence.Key
	if d, ok := in.(presence.Deliver); ok && up != nil {
		asked = d.Key
	}
	for _, u := range fx.Users {
		if u.Key == asked && asked != (presence.Key{}) {
			asked = presence.Key{}
			g.deliver(u, up, now)
		} else {
			g.deliver(u, nil, now)
		}
	}
	for _, k := range fx.Stop {
		g.passivate(g.users[k])
	}
}

// edgeUp begins a link. Rooms hold what an older process of that name held as lost.
func (g *gateway) edgeUp(e presence.Edge, now time.Time) {
	for old := range g.edges {
		if old.Name == e.Name && old.Incarnation < e.Incarnation {
			g.loseEdge(old)
		}
	}
	g.edges[e] = true
	delete(g.away, e)
	delete(g.announcing, e)
	g.step(presence.EdgeUp{Edge: e}, nil, now)
}

// loseEdge forgets an edge and tells all rooms.
func (g *gateway) loseEdge(e presence.Edge) {
	delete(g.edges, e)
	delete(g.away, e)
	delete(g.announcing, e)
	for _, a := range g.rooms {
		g.enqueue(a, &roomInput{in: room.EdgeLost{Edge: e}})
	}
}

// second is the turn of the node's loop: the storm guard's counts in and out, and what
// else is in no hurry.
func (g *gateway) second(all presence.Cluster, now time.Time) {
	load := &g.node.loads[g.shard]
	sessions, lost := g.core.Load(now)
	load.sessions.Store(sessions)
	load.lost.Store(lost)
	g.step(all, nil, now)
	for e, until := range g.away {
		if now.After(until) {
			g.loseEdge(e)
		}
	}
	g.forgive(now)
	if cfg := g.node.cfg.Presence; all.Lost >= cfg.StormFloor && float64(all.Lost) > cfg.StormPercent/100*float64(all.Sessions) {
		for _, a := range g.rooms {
			g.enqueue(a, &roomInput{in: room.ExtendGrace{Until: now.Add(cfg.StormGrace)}})
		}
	}
}

// settled tells the rooms when the shard has settled.
func (g *gateway) settled() {
	if !g.settling || g.core.Settling() {
		return
	}
	g.settling = false
	for _, a := range g.rooms {
		g.enqueue(a, &roomInput{in: room.Settled{}})
	}
}

// tick fires what is due. A tick that comes late goes to the end of the queue once, so
// that what arrived meanwhile is read before any grace runs out.
func (g *gateway) tick(now time.Time) {
	late := !g.armed.IsZero() && now.Sub(g.armed) > lateness
	if late && !g.deferred {
		g.deferred = true
		g.node.stats.LateTicks.Add(1)
		g.ctx.Send(g.ctx.Self(), tick{})
		return
	}
	g.deferred, g.armed = false, time.Time{}
	if at, ok := g.core.Deadline(); ok && !now.Before(at) {
		g.step(presence.Tick{}, nil, now)
	}
	var due []*activation
	for a := g.due.next(now); a != nil; a = g.due.next(now) {
		due = append(due, a)
	}
	for _, a := range due {
		a.PostUserMessage(tick{})
	}
}

// arm sets the shard's one timer to the earliest deadline, unless it fires before that
// anyway.
func (g *gateway) arm() {
	at, ok := g.core.Deadline()
	if first, some := g.due.first(); some && (!ok || first.Before(at)) {
		at, ok = first, true
	}
	if !ok || g.deferred || !g.armed.IsZero() && !at.Before(g.armed) {
		return
	}
	g.armed = at
	wait := max(at.Sub(g.now()), 0)
	if g.timer == nil {
		system, self := g.ctx.ActorSystem(), g.ctx.Self()
		g.timer = time.AfterFunc(wait, func() { system.Root.Send(self, tick{}) })
		return
	}
	g.timer.Reset(wait)
}

// contain ends a panic of the gateway: all that it knew is dropped in one step, and the
// edges announce the shard again. What was proposed goes on.
func (g *gateway) contain() {
	r := recover()
	if r == nil {
		return
	}
	n := g.node
	n.stats.Panics.Add(1)
	n.stats.Reopened.Add(1)
	n.cfg.Logger.Error("gateway panicked; shard reopens", "shard", g.shard, "panic", r, "stack", string(debug.Stack()))
	if g.out != nil {
		g.out.cut()
		g.stopAll()
		g.reopen()
	}
}

// giveUp closes a shard that cannot even begin, until the store opens it again.
func (g *gateway) giveUp(out *outlet) {
	r := recover()
	if r == nil {
		return
	}
	g.node.cfg.Logger.Error("shard does not open", "shard", g.shard, "panic", r, "stack", string(debug.Stack()))
	out.cut()
	g.out = out
	g.closed(out)
}
