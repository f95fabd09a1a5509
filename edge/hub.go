package edge

import (
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/edge/auth"
)

// hub is an actor that owns every shard whose number is its own modulo the count of hubs.
// Its fields belong to its turn; other goroutines only tell it things.
type hub struct {
	edge   *Edge
	bit    uint64
	pid    *actor.PID
	shards [shards]*shard // nil: another hub's

	calls   map[uint64]*call
	queues  [2]queue // calls by time-out: short, long
	openers map[uint64]*opener
	crowd   crowd

	pend     map[uint32]*pending
	spare    []*pending
	dirty    []uint32
	flushing bool
	ring     ring
	load     load
	scratch  []byte
	joined   []byte
	parts    [][]byte
	summed   []byte
	seed     maphash.Seed

	timer *time.Timer
	armed int64 // clock ms at which timer fires; 0: it does not
}

// What a hub is told, beside *link.Down.
type (
	opened struct { // connect with a good token
		s       *socket
		id      uint64
		connect *wire.Connect
		exp     uint64
	}
	commanded struct {
		s *socket
		c *wire.Command
	}
	renewed struct { // refresh with a good token of the same user
		s      *socket
		id     uint64
		claims *auth.Claims
		exp    uint64
	}
	parted struct { // the session has lost its socket
		s     *socket
		cause link.Cause
	}
	idleDue   struct{ s *socket } // no input for long enough
	busyAgain struct{ s *socket } // input of a user who was away
	woken     struct{ s *socket } // the socket takes presence again
	watching  struct {            // the part of a watch or query that is this hub's
		s           *socket
		add, remove []string
		gather      *gather
	}
	unwatched struct{ s *socket } // the socket has gone, drop its rows
	gathered  struct{ g *gather }
	rehidden  struct{ u *local } // the user's reciprocity has changed
	linked    struct {           // a shard is led with a term on a link
		shard uint32
		term  uint64
		up    link.Uplink
	}
	unlinked struct{ shard uint32 }
	lapsed   struct { // nobody is heard who leads these shards
		shards  []uint32
		asOf    []int64 // Unix ms
		unknown bool    // for so long that nothing is known any more
	}
	asked struct { // Edge.Call
		up    *link.Up
		reply chan *link.Down
	}
	minute   struct{}
	flushNow struct{}
	ticked   struct{}
)

func newHub(e *Edge, n int) *hub {
	h := &hub{
		edge: e, bit: 1 << n, seed: maphash.MakeSeed(),
		calls: make(map[uint64]*call), openers: make(map[uint64]*opener), pend: make(map[uint32]*pending),
	}
	for i := n; i < shards; i += e.cfg.Hubs {
		h.shards[i] = newShard()
	}
	h.timer = time.AfterFunc(time.Hour, func() { h.tell(ticked{}) })
	h.timer.Stop()
	h.pid = e.system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return h }))
	return h
}

func (h *hub) tell(m any) {
	if !h.edge.stopped.Load() {
		h.edge.system.Root.Send(h.pid, m)
	}
}

// pass gives m to another hub, or takes its turn at once when it is this one's.
func (h *hub) pass(to *hub, m any) {
	if to == h {
		h.take(m)
		return
	}
	to.tell(m)
}

func (h *hub) stop() {
	h.timer.Stop()
	h.edge.system.Root.StopFuture(h.pid).Wait()
}

// Receive takes one message. A panic is a bug; it costs that message, not the hub.
func (h *hub) Receive(c actor.Context) {
	m := c.Message()
	defer func() {
		if r := recover(); r != nil {
			h.edge.count.panics.Add(1)
			h.edge.cfg.Log.Error("hub: panic", "message", fmt.Sprintf("%T", m), "panic", r, "stack", string(debug.Stack()))
		}
	}()
	h.take(m)
}

func (h *hub) take(m any) {
	switch m := m.(type) {
	case *link.Down:
		h.down(m)
	case flushNow:
		h.flushing = false
		h.flush()
	case ticked:
		h.armed = 0
		h.tick()
	case *commanded:
		h.command(m.s, m.c)
	case *opened:
		h.open(m)
	case *parted:
		h.part(m.s, m.cause)
	case *renewed:
		h.renew(m)
	case *watching:
		h.watch(m)
	case *unwatched:
		h.unwatchAll(m.s)
		m.s.unref()
	case *gathered:
		m.g.done(h)
	case *woken:
		h.wake(m.s)
	case *idleDue:
		h.goneIdle(m.s)
	case *busyAgain:
		h.backAgain(m.s)
	case *linked:
		h.linked(m)
	case *unlinked:
		h.unlinked(m.shard)
	case *lapsed:
		h.lapsed(m)
	case *asked:
		h.ask(m)
	case minute:
		h.reportMinute()
	default:
		h.takeRelayed(m)
	}
	if h.armed == 0 {
		h.arm()
	}
}

// takeRelayed takes what hubs ask each other for a session.
func (h *hub) takeRelayed(m any) {
	switch m := m.(type) {
	case *relayed:
		h.up(m.shard, m.up)
	case *typingAsked:
		if m.watched {
			h.startTyping(m.s, m.c, m.c.GetTyping())
		} else {
			h.checkTyping(m)
		}
	case *entering:
		h.enterHere(m)
	case *leaving:
		h.leaveHere(m)
	case *listing:
		h.listHere(m)
	case *showing:
		h.showHere(m)
	case *rehidden:
		h.renewRows(m.u)
	case *publishing:
		h.publishHere(m)
	}
}

// down takes one message of a core. What is of another term than the one that was announced is of a leader that
// is none any more, or not yet.
func (h *hub) down(m *link.Down) {
	sh := h.shards[m.Shard]
	if m.Term != sh.term || !sh.open {
		h.edge.count.stale.Add(1)
		return
	}
	switch b := m.Body.(type) {
	case *link.Down_Change:
		h.change(m.Shard, b.Change)
	case *link.Down_Views:
		h.views(m, b.Views)
	case *link.Down_Self:
		h.self(m.Term, b.Self)
	case *link.Down_Attached:
		h.answered(b.Attached.Call, m)
	case *link.Down_Acted:
		h.answered(b.Acted.Call, m)
	case *link.Down_Answer:
		h.answered(b.Answer.Call, m)
	case *link.Down_Remask:
		h.remask(m.Shard, b.Remask)
	case *link.Down_Typing:
		h.typingOut(m.Shard, b.Typing)
	case *link.Down_Close:
		h.closeConn(b.Close)
	case *link.Down_Again:
		h.announceAgain(m.Shard, b.Again)
	case *link.Down_Room:
		h.answered(b.Room.Call, m)
	case *link.Down_RoomChange:
		h.roomChange(m.Shard, m.Term, b.RoomChange)
	case *link.Down_Outbox:
		h.outboxBatch(b.Outbox)
	case *link.Down_Contacts:
		h.contactsChanged(b.Contacts)
	default:
		h.edge.count.unknown.Add(1)
	}
}

// up sends a message of a shard to its core; false when the shard cannot be reached now.
func (h *hub) up(n uint32, m *link.Up) bool {
	sh := h.shards[n]
	if !sh.open {
		return false
	}
	m.Shard = n
	return sh.link.Up(m) == nil
}

// tick does what is due.
func (h *hub) tick() {
	now := h.edge.clock()
	h.expire(now)
	h.letIn(now)
	h.ring.due(now, func(i uint32) {
		p := h.pend[i]
		switch {
		case p == nil || p.due == 0:
		case p.due > now:
			h.ring.add(i, p.due, now)
		default:
			h.soil(i, p)
		}
	})
	h.flush()
}

// arm sets the timer for the next thing that is due, if any. It wakes early rather than being set again.
func (h *hub) arm() {
	next := h.ring.next()
	if at := h.nextExpiry(); at != 0 && (next == 0 || at < next) {
		next = at
	}
	if at := h.crowd.next(); at != 0 && (next == 0 || at < next) {
		next = at
	}
	if next == 0 {
		return
	}
	h.armed = next
	h.timer.Reset(time.Duration(max(next-h.edge.clock(), 0)) * time.Millisecond)
}
