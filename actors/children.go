package actors

import (
	"errors"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
)

var errNotCrash = errors.New("a panic outside a turn")

// deliver gives an input to a user's activation, which is made if there is none.
func (g *gateway) deliver(u presence.ToUser, up *link.Up, now time.Time) {
	a := g.users[u.Key]
	if a == nil {
		if a = g.activate(u.Key, now); a == nil {
			g.refuse(u.Key, up)
			return
		}
		g.feedGraph(u.Key, now)
	}
	in, err := g.complete(a, u.In, now)
	if err != nil {
		g.gone(a)
		g.ctx.Stop(a.pid)
		g.park(u.Key, err, now)
		g.refuse(u.Key, up)
		return
	}
	a.PostUserMessage(&userInput{in, up})
}

// roomFor is the activation of a room; made if there is none, unless it is parked.
func (g *gateway) roomFor(k presence.Key, now time.Time) *activation {
	a := g.rooms[k]
	if a != nil || g.parked(k, true, now) {
		return a
	}
	var settle time.Time
	if g.settling || g.trouble[troubleKey(k, true)] != nil {
		settle = now.Add(g.node.cfg.Presence.Settle)
	}
	a = &activation{key: k, room: &roomState{Room: room.New(g.node.cfg.Room, g.floor, settle)}}
	g.rooms[k] = a
	g.start(a)
	g.node.stats.Rooms.Add(1)
	return a
}

// start spawns the activation as a child that fails to the gateway. It is not in
// protoactor's own set of children, which would cost 74 bytes each and say what users
// and rooms say.
func (g *gateway) start(a *activation) {
	a.out = g.out
	g.spawn = a
	system := g.ctx.ActorSystem()
	pid, err := actor.DefaultSpawner(system, system.ProcessRegistry.NextId(), g.props, g.ctx)
	if err != nil {
		panic(err) // the id is unique
	}
	a.pid, g.spawn = pid, nil
	g.node.stats.Spawned.Add(1)
}

// enqueue gives a room an input; it counts.
func (g *gateway) enqueue(a *activation, in *roomInput) {
	a.room.routed++
	a.PostUserMessage(in)
}

// stepped takes an activation's note: what it publishes, whether it may go, and what
// leaves after that. Notes of activations that are gone already are void but for the reply.
func (g *gateway) stepped(m *stepped, now time.Time) {
	a := m.of
	if a.out.term != g.term {
		return
	}
	if a.out == g.out && (g.users[a.key] == a || g.rooms[a.key] == a) {
		g.note(a, m, now)
	}
	if self := m.reply.GetAttached().GetSelf(); self != nil {
		self.Version = g.core.Look(now, a.key, presence.Watcher{}).Version
	}
	if m.more != nil {
		g.follow(a, m)
	} else if m.reply != nil {
		g.out.send(m.to, m.reply)
	}
}

// note takes what an activation that is on the books says after a step.
func (g *gateway) note(a *activation, m *stepped, now time.Time) {
	if a.room != nil {
		if m.idle && m.seen == a.room.routed {
			g.floor = max(g.floor, m.version)
			g.passivate(a)
		}
		return
	}
	if !m.tick {
		g.step(presence.Stepped{Key: a.key, Seen: m.seen, Publish: m.publish}, nil, now)
	}
	if m.idle && a.gate == nil && g.users[a.key] == a {
		if (!m.tick || m.settled) && g.linger(a, now) {
			return
		}
		g.step(presence.Passivate{Key: a.key, Seen: m.seen}, nil, now)
	}
}

// maxLingering is with how many users resident in a shard one more may linger.
const maxLingering = 1024

// linger keeps an idle activation for a while if reading it back takes more than its
// profile: who was sent one message often gets another.
func (g *gateway) linger(a *activation, now time.Time) bool {
	stay := g.node.cfg.Linger
	if !a.more || stay < 0 || len(g.users) > maxLingering {
		return false
	}
	if at := now.Add(stay).UnixNano(); a.due == 0 || at < a.due {
		g.due.set(a, at)
	}
	return true
}

// passivate lets an activation go when it has handled its mailbox.
func (g *gateway) passivate(a *activation) {
	if a == nil {
		return
	}
	g.gone(a)
	g.node.stats.Passivated.Add(1)
	g.ctx.Poison(a.pid)
}

// gone takes an activation off the books.
func (g *gateway) gone(a *activation) {
	g.due.set(a, 0)
	if a.user != nil {
		delete(g.users, a.key)
		g.node.stats.Users.Add(-1)
	} else {
		delete(g.rooms, a.key)
		g.node.stats.Rooms.Add(-1)
	}
}

// trouble is what panicked of late.
type trouble struct {
	key    presence.Key
	room   bool
	at     []time.Time // of the last panics within a minute
	parked time.Time   // until; zero: not parked
}

const (
	patience = 3 // panics …
	window   = time.Minute
)

func troubleKey(k presence.Key, room bool) string {
	kind := link.KindUser
	if room {
		kind = link.KindRoom
	}
	return kind + "\x00" + k.App + "\x00" + k.User
}

// HandleFailure is the supervision of activations: what panicked is dropped, and the
// edges announce what they hold of it.
func (g *gateway) HandleFailure(_ *actor.ActorSystem, s actor.Supervisor, child *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	s.StopChildren(child)
	c, ok := reason.(*crash)
	if !ok {
		g.node.cfg.Logger.Error(errNotCrash.Error(), "shard", g.shard, "panic", reason)
		return
	}
	defer g.contain()
	n, a, now := g.node, c.of, g.now()
	if c.stack != nil {
		n.stats.Panics.Add(1)
		n.cfg.Logger.Error("activation panicked", "shard", g.shard, "app", a.key.App, "id", a.key.User,
			"room", a.room != nil, "panic", c.why, "stack", string(c.stack))
	}
	if g.users[a.key] != a && g.rooms[a.key] != a {
		return
	}
	g.gone(a)
	if c.refused {
		g.recall(&trouble{key: a.key}, now)
		g.arm()
		return
	}
	t := g.trouble[troubleKey(a.key, a.room != nil)]
	if t == nil {
		t = &trouble{key: a.key, room: a.room != nil}
		g.trouble[troubleKey(a.key, t.room)] = t
	}
	if t.at = append(within(t.at, now), now); len(t.at) >= patience {
		t.parked = now.Add(n.cfg.Parking)
		n.stats.Parked.Add(1)
		n.cfg.Logger.Error("activation parked", "shard", g.shard, "app", a.key.App, "id", a.key.User, "until", t.parked)
	}
	if t.room {
		g.floor = max(g.floor, a.room.Version())
	}
	g.recall(t, now)
	g.arm()
}

// recall asks the edges to announce an activation that is gone: a user, or for a room
// the shard.
func (g *gateway) recall(t *trouble, now time.Time) {
	if !t.room {
		g.step(presence.Dropped{Key: t.key}, nil, now)
		if gate := g.gates[t.key]; gate != nil && len(gate.queue) > 0 && g.users[t.key] == nil {
			g.step(presence.Deliver{Key: t.key, In: presence.Wake{}}, nil, now) // to show what those in flight did
		}
		return
	}
	for _, e := range g.node.edges() {
		g.out.send(e, again(presence.Key{}))
	}
}

func within(at []time.Time, now time.Time) []time.Time {
	for len(at) > 0 && now.Sub(at[0]) >= window {
		at = at[1:]
	}
	return at
}

// parked reports whether an activation may not be made now.
func (g *gateway) parked(k presence.Key, room bool, now time.Time) bool {
	if len(g.trouble) == 0 {
		return false
	}
	t := g.trouble[troubleKey(k, room)]
	return t != nil && now.Before(t.parked)
}

// forgive ends parking, whose activation is then announced again, and forgets panics
// that are a minute old.
func (g *gateway) forgive(now time.Time) {
	for key, t := range g.trouble {
		switch {
		case now.Before(t.parked):
		case !t.parked.IsZero():
			t.parked, t.at = time.Time{}, nil
			g.recall(t, now)
		case len(within(t.at, now)) == 0:
			delete(g.trouble, key)
		}
	}
}

// refuse answers a command for a parked user.
func (g *gateway) refuse(k presence.Key, up *link.Up) {
	if d := userReply(k, up, presence.Reply{Code: presence.Code(link.Code_BUSY), Message: "parked after repeated faults"}); d != nil {
		g.out.send(sender(up), d)
	}
}
