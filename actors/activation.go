package actors

import (
	"fmt"
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

	// Of the gateway's turn.
	place int32 // in the heap, from 1; 0: no deadline
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
		rest func(presence.Explanation) *link.Answer
	}
)

// stepped is an activation's note to its gateway after a step.
type stepped struct {
	of      *activation
	publish *presence.Shown
	tick    bool   // the step was a Tick that published nothing
	idle    bool   // asks to passivate
	seen    uint32 // inputs handled
	due     int64  // its deadline, Unix ns; 0: none
	version uint64 // of a room

	// reply follows what the step published, so that an edge hears of an attach
	// after the change that it made.
	reply *link.Down
	to    presence.Edge
}

// crash is what an activation panics with.
type crash struct {
	of    *activation
	why   any
	stack []byte
}

// Receive handles one message of a user or room.
func (a *activation) Receive(ctx actor.Context) {
	defer func() {
		if r := recover(); r != nil {
			panic(&crash{a, r, debug.Stack()})
		}
	}()
	now := a.out.node.clock.Now
	switch m := ctx.Message().(type) {
	case *userInput:
		a.stepUser(ctx, now(), m.in, m.up)
	case *roomInput:
		a.stepRoom(ctx, now(), m.in, m.up)
	case tick:
		if a.user != nil {
			a.stepUser(ctx, now(), presence.Tick{}, nil)
		} else {
			a.stepRoom(ctx, now(), room.Tick{}, nil)
		}
	case *explain:
		a.out.send(m.edge, &link.Down{Body: &link.Down_Answer{Answer: m.rest(a.user.Explain())}})
	}
}

// stepUser is the order of effects: records, gateway, sends, reply.
func (a *activation) stepUser(ctx actor.Context, now time.Time, in presence.Input, up *link.Up) {
	out := a.user.Step(now, in)
	if len(out.Records) > 0 {
		a.persist(out.Records)
	}
	_, ticked := in.(presence.Tick)
	note := &stepped{of: a, publish: out.Publish, tick: ticked && out.Publish == nil, seen: a.user.Seen(), idle: a.user.Idle()}
	if at, ok := a.user.Deadline(); ok {
		note.due = at.UnixNano()
	}
	if note.reply = userReply(a.key, up, out.Reply); note.reply != nil {
		note.to = sender(up)
	}
	for _, c := range out.Sends {
		a.out.send(c.Conn.Holder(), closeConn(a.key, c))
	}
	ctx.Send(a.out.gateway, note)
}

// persist makes records durable. If it cannot, the activation is lost: what it did must
// not be seen.
func (a *activation) persist(records []presence.Record) {
	n := a.out.node
	if n.cfg.Persist != nil {
		if err := n.cfg.Persist.Persist(a.out.shard, a.out.term, a.key, records); err != nil {
			panic(fmt.Errorf("persist: %w", err))
		}
	}
	n.kept.keep(a.key, records)
}

func (a *activation) stepRoom(ctx actor.Context, now time.Time, in room.Input, up *link.Up) {
	out := a.room.Step(now, in)
	_, ticked := in.(room.Tick)
	if !ticked {
		a.room.seen++
	}
	note := &stepped{of: a, seen: a.room.seen, idle: a.room.Empty(), version: a.room.Version()}
	if at, ok := a.room.Deadline(); ok {
		note.due = at.UnixNano()
	}
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
