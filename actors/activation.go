package actors

import (
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"muster/actors/link"
	"muster/actors/presence"
	"muster/actors/room"
)

// activation is one resident user or room: the actor, its mailbox and the gateway's
// book-keeping in one allocation, because there are many.
type activation struct {
	mailbox
	key  presence.Key
	out  *outlet
	pid  *actor.PID
	user *presence.User // one of the two
	room *roomState
	gate *gate // nil: all its records are durable

	place int32 // in the heap, from 1; 0: no deadline
	more  bool  // the user may have other rows than its profile
	due   int64 // Unix ns
}

// roomState is a room and the agreed counts; presence.Gateway and presence.User keep
// those of users.
type roomState struct {
	*room.Room
	seen   uint32 // inputs handled; of the actor's turn
	routed uint32 // inputs sent; of the gateway's turn
}

type (
	// userInput is an input for a user. up is the message that asks for the answer, or nil.
	userInput struct {
		in presence.Input
		up *link.Up
	}
	// roomInput is an input for a room.
	roomInput struct {
		in room.Input
		up *link.Up
	}
	// explain asks a user for its state. rest is the gateway's part.
	explain struct {
		edge presence.Edge
		rest func(*activation) *link.Answer
	}
)

// stepped is an activation's note to its gateway after a step.
type stepped struct {
	of      *activation
	publish *presence.Shown
	tick    bool   // the step was a Tick that published nothing
	idle    bool   // asks to passivate
	settled bool   // all its records are durable: it is as if it had just stepped
	seen    uint32 // inputs handled
	version uint64 // of a room
	seq     uint64 // the proposal that it waits for; 0: none of its own

	// reply follows what the step published, so that an edge hears of an attach
	// after the change that it made.
	reply *link.Down
	to    presence.Edge
	more  *effects // nil: none
}

// effects are what few steps have besides.
type effects struct {
	closes   []presence.CloseConn // go first
	outbox   *presence.Delivery   // a part of the reply
	deliver  []presence.Delivery  // follow the reply
	contacts []presence.RelationRow
	edges    []presence.Edge // for contacts
	client   string          // id of what was published: audited before the reply
	outcome  *link.Up        // of a transfer
}

// crash is what an activation panics with.
type crash struct {
	of      *activation
	why     any
	stack   []byte
	refused bool // nothing is wrong with it: the store refused a command
}

// Receive handles one message of a user or room.
func (a *activation) Receive(ctx actor.Context) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if c, ok := r.(*crash); ok {
			panic(c)
		}
		panic(&crash{of: a, why: r, stack: debug.Stack()})
	}()
	now := a.out.gw.now()
	switch m := ctx.Message().(type) {
	case *userInput:
		a.stepUser(ctx, now, m.in, m.up)
	case *roomInput:
		a.stepRoom(ctx, now, m.in, m.up)
	case tick:
		if a.user != nil {
			a.stepUser(ctx, now, presence.Tick{}, nil)
		} else {
			a.stepRoom(ctx, now, room.Tick{}, nil)
		}
	case *explain:
		answer := &link.Down{Body: &link.Down_Answer{Answer: m.rest(a)}}
		a.emit(ctx, &stepped{of: a, tick: true, seen: a.user.Seen(), reply: answer, to: m.edge})
	}
}

// stepUser is the order of effects: records, gateway, sends, reply. All that is not
// records waits until they, and those of the steps before, are durable.
func (a *activation) stepUser(ctx actor.Context, now time.Time, in presence.Input, up *link.Up) {
	out := a.user.Step(now, in)
	g := a.out.gw
	seq, err := g.keep(a, out.Records, now)
	if err != nil {
		d := userReply(a.key, up, presence.Reply{Code: presence.Code(link.Code_UNAVAILABLE), Message: noRoom})
		if d != nil {
			a.out.send(sender(up), d)
		}
		panic(&crash{of: a, why: err, refused: d != nil}) // what nobody asked for would be refused again and again
	}
	_, ticked := in.(presence.Tick)
	note := &stepped{of: a, publish: out.Publish, tick: ticked && out.Publish == nil, seen: a.user.Seen(), idle: a.user.Idle(), seq: seq}
	if note.reply = userReply(a.key, up, out.Reply); note.reply != nil {
		note.to = sender(up)
	}
	note.more = effectsOf(&out, up)
	g.due.set(a, deadline(a.user))
	a.emit(ctx, note)
}

// emit lets a note out, unless it or one before it must wait.
func (a *activation) emit(ctx actor.Context, s *stepped) {
	if t := a.gate; t != nil && (s.seq != 0 || len(t.queue) > 0) {
		t.queue = append(t.queue, s)
		a.out.node.stats.Gated.Add(1)
		return
	}
	a.out.gw.leave(s)
	ctx.Send(a.out.gateway, s)
}

// deadline is when an activation must be ticked, Unix ns; 0: never.
func deadline(u interface{ Deadline() (time.Time, bool) }) int64 {
	if at, ok := u.Deadline(); ok {
		return at.UnixNano()
	}
	return 0
}

func (a *activation) stepRoom(ctx actor.Context, now time.Time, in room.Input, up *link.Up) {
	out := a.room.Step(now, in)
	_, ticked := in.(room.Tick)
	if !ticked {
		a.room.seen++
	}
	note := &stepped{of: a, seen: a.room.seen, idle: a.room.Empty(), version: a.room.Version()}
	a.out.gw.due.set(a, deadline(a.room))
	ctx.Send(a.out.gateway, note)
	for _, s := range out.Sends {
		for _, e := range s.To {
			a.out.send(e, roomSend(a.key, s))
		}
	}
	if c := up.GetRoom(); c.GetCall() != 0 && out.Reply != nil {
		a.out.send(sender(up), roomReply(c, out.Reply))
	}
}
