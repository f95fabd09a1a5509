package room

import (
	"time"

	"muster/actors/presence"
)

// Config bounds a room. The zero value of a field means its default.
type Config struct {
	Occupants int // visible occupants; default 200
	Places    int // sessions, occupying or subscribed; default 4,000
	Info      int // bytes of an occupant's info; default 1,024

	Coalesce time.Duration // least time between two changes; default 100 ms

	// Grace after a lost conn, by cause: Gone 5 s; Silence and NodeLost 15 s; Drain 60 s.
	// Causes that are not listed here end a place at once.
	GraceGone, GraceSilence, GraceDrain time.Duration
}

func (c Config) withDefaults() Config {
	set(&c.Occupants, 200)
	set(&c.Places, 4000)
	set(&c.Info, 1024)
	set(&c.Coalesce, 100*time.Millisecond)
	set(&c.GraceGone, 5*time.Second)
	set(&c.GraceSilence, 15*time.Second)
	set(&c.GraceDrain, 60*time.Second)
	return c
}

func set[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

// Input is what may happen to a room.
type Input interface{ input() }

// Enter takes a place, or changes what the session's place is. The newest attempt of
// a session wins, equal ones by arrival.
type Enter struct {
	User, Session string
	Conn          presence.Conn
	Attempt       uint64
	Occupy        bool
	Subscribe     bool
	Info          string
	State         presence.State // the public state of the user …
	Version       presence.Version
	Hidden        bool
}

// Leave ends a place, at once or after the grace of its cause. It is ignored unless
// Conn is the place's present one.
type Leave struct {
	User, Session string
	Conn          presence.Conn
	Cause         presence.Cause
}

// List asks who is here.
type List struct{}

// Update tells the public state of an occupant. Older versions are ignored.
type Update struct {
	User    string
	State   presence.State
	Version presence.Version
	Hidden  bool
}

// Typing goes from an occupant to the subscribers.
type Typing struct {
	User string
	Conn presence.Conn
	Kind string
	Stop bool
}

// Announce is the complete set of the places that an edge holds in this room. A live
// place of that edge which is not in it has lost its conn. The edge is answered with
// everything there is to know.
type Announce struct {
	Edge   presence.Edge
	Places []Enter
}

// EdgeLost says that an edge process is gone.
type EdgeLost struct{ Edge presence.Edge }

// ExtendGrace lengthens every running grace to Until (storm guard).
type ExtendGrace struct{ Until time.Time }

// Handed is an occupant's place in grace that the room had on another node, which gave the shard away in good order.
// What is known here already counts more.
type Handed struct {
	Enter     Enter           // as an edge would announce it
	EnteredAt int64           // Unix ms
	Reason    presence.Reason // why it leaves when its grace is over
	Until     time.Time       // when its grace is over
}

// Settled ends settling: every edge has announced.
type Settled struct{}

// Tick ends the graces that are over; nothing else does.
type Tick struct{}

func (Enter) input()       {}
func (Leave) input()       {}
func (List) input()        {}
func (Update) input()      {}
func (Typing) input()      {}
func (Announce) input()    {}
func (EdgeLost) input()    {}
func (ExtendGrace) input() {}
func (Handed) input()      {}
func (Settled) input()     {}
func (Tick) input()        {}

// Occupant is what a room shows of a user.
type Occupant struct {
	User      string
	State     presence.State
	Version   presence.Version // of State
	Info      string
	EnteredAt int64           // Unix ms
	Reason    presence.Reason // when it left
}

// Code says how a command ended.
type Code uint8

const (
	OK Code = iota
	BadRequest
	Limit // a bound was reached; the message names it
)

// Reply answers Enter, Leave and List.
type Reply struct {
	Code      Code
	Message   string
	Version   uint64
	Occupants []Occupant // by user; not after Leave
	Count     int
}

// Change is what happened since the last one, each list by user.
type Change struct {
	Version uint64
	Enter   []Occupant
	Update  []Occupant
	Leave   []Occupant
	Count   int
	All     bool // Enter lists every occupant and replaces what was known
}

// Send is one message for each edge in To, which are in order. One of Change and
// Typing is set.
type Send struct {
	To     []presence.Edge
	Change *Change
	Typing *Typing
}

// Output is what the caller must do after a step: the sends, then the reply.
type Output struct {
	Sends []Send
	Reply *Reply
}
