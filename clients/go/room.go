package muster

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"muster/clients/wire"
)

// RoomOptions names a room and says what to be in it.
type RoomOptions struct {
	Room string
	// Info is shown to the other occupants; encoded as JSON, at most 1 KiB.
	Info any
	// SubscribeOnly: see the occupants without being one. EnterOnly: be one without
	// being told of the others' changes.
	SubscribeOnly, EnterOnly bool
}

func (o RoomOptions) check() error {
	if !wire.ValidID(o.Room) {
		return fmt.Errorf("muster: %q is not a valid room", o.Room)
	}
	info, err := rawJSON(o.Info)
	if err != nil {
		return err
	}
	if len(info) > wire.MaxInfo {
		return fmt.Errorf("muster: the info for room %s is larger than %d bytes", o.Room, wire.MaxInfo)
	}
	return nil
}

// Occupant is a user in a room.
type Occupant struct {
	User    string
	State   State
	Info    json.RawMessage
	Entered time.Time
}

// RoomChange is one step of a room's occupancy.
type RoomChange struct {
	Kind     Kind
	Occupant Occupant // as it was last, for Leave
	Reason   string   // of Leave: explicit, timeout, kicked, node_lost, expired; "" if not known
}

// Room is a room that the client is in. It is entered again after a reconnect.
type Room struct {
	c *Client
	o RoomOptions

	mu      sync.Mutex
	version Version
	users   map[string]Occupant
	reasons map[string]string // of those who left, for the feeds
	count   int
	err     error
	left    bool
	feeds   map[*feed[Occupant]]struct{}
}

func newRoom(c *Client, o RoomOptions) *Room {
	return &Room{c: c, o: o, users: map[string]Occupant{}, reasons: map[string]string{}, feeds: map[*feed[Occupant]]struct{}{}}
}

// Name is the room's id.
func (r *Room) Name() string { return r.o.Room }

// Occupants lists who is there, by user.
func (r *Room) Occupants() []Occupant {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Occupant, 0, len(r.users))
	for _, user := range slices.Sorted(maps.Keys(r.users)) {
		list = append(list, r.users[user])
	}
	return list
}

// Count is how many occupants the room has.
func (r *Room) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// Err says why the room could not be entered at the last connect; nil if it was.
func (r *Room) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Leave leaves the room.
func (r *Room) Leave(ctx context.Context) error { return r.c.LeaveRoom(ctx, r.o.Room) }

// Changes goes over the room's changes until ctx or the client ends, beginning with an
// Enter for each occupant. Changes of one user that were not read yet are joined.
func (r *Room) Changes(ctx context.Context) iter.Seq[RoomChange] {
	return func(yield func(RoomChange) bool) {
		f := newFeed[Occupant]()
		r.mu.Lock()
		for _, user := range slices.Sorted(maps.Keys(r.users)) {
			f.add(user)
		}
		r.feeds[f] = struct{}{}
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			delete(r.feeds, f)
			r.mu.Unlock()
		}()
		for {
			change, ok := r.next(f)
			if ok && (ctx.Err() != nil || !yield(change)) {
				return
			}
			if !ok && !f.await(ctx, r.c.closed) {
				return
			}
		}
	}
}

func (r *Room) next(f *feed[Occupant]) (RoomChange, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		user, ok := f.pop()
		if !ok {
			return RoomChange{}, false
		}
		before, was := f.seen[user]
		now, is := r.users[user]
		switch {
		case is && !was:
			f.seen[user] = now
			return RoomChange{Kind: Enter, Occupant: now}, true
		case is && !same(before, now):
			f.seen[user] = now
			return RoomChange{Kind: Update, Occupant: now}, true
		case was && !is:
			delete(f.seen, user)
			return RoomChange{Kind: Leave, Occupant: before, Reason: r.reasons[user]}, true
		}
	}
}

func same(a, b Occupant) bool {
	return a.User == b.User && a.State == b.State && string(a.Info) == string(b.Info) && a.Entered.Equal(b.Entered)
}

func (r *Room) enter() *wire.RoomEnter {
	info, _ := rawJSON(r.o.Info) // checked before
	return &wire.RoomEnter{Room: r.o.Room, SubscribeOnly: r.o.SubscribeOnly, EnterOnly: r.o.EnterOnly, Info: info}
}

// command enters the room and applies the answer.
func (r *Room) command() (*wire.Command, func(*wire.Reply) bool) {
	if r.isLeft() {
		return nil, nil
	}
	cmd := &wire.Command{Method: &wire.Command_RoomEnter{RoomEnter: r.enter()}}
	return cmd, func(reply *wire.Reply) bool {
		r.answer(reply.GetRoomEnter())
		return true
	}
}

// answer replaces the occupants by those of a snapshot, unless a push was newer.
func (r *Room) answer(m *wire.RoomEnterReply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err = nil; m.GetError() != nil {
		r.err = refusal(m.GetError())
		return
	}
	if r.version.Newer(version(m.GetVer())) {
		return
	}
	r.version, r.count = version(m.GetVer()), int(m.GetCount())
	r.replace(m.GetOccupants())
}

// replace takes a whole list: whoever is not in it has left.
func (r *Room) replace(occupants []*wire.Occupant) {
	gone := maps.Clone(r.users)
	for _, o := range occupants {
		delete(gone, o.GetUser())
		r.set(o)
	}
	for _, user := range slices.Sorted(maps.Keys(gone)) {
		r.remove(user, "")
	}
}

func (r *Room) push(m *wire.RoomPush) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := version(m.GetVer())
	if !v.Newer(r.version) {
		return
	}
	r.version, r.count = v, int(m.GetCount())
	if m.GetAll() {
		r.replace(m.GetEnter())
		return
	}
	for _, o := range m.GetEnter() {
		r.set(o)
	}
	for _, o := range m.GetUpdate() {
		r.set(o)
	}
	for _, l := range m.GetLeave() {
		r.remove(l.GetUser(), l.GetReason().Name())
	}
}

func (r *Room) set(m *wire.Occupant) {
	o := occupant(m)
	r.users[o.User] = o
	delete(r.reasons, o.User)
	r.changed(o.User)
}

func (r *Room) remove(user, reason string) {
	delete(r.users, user)
	if len(r.feeds) > 0 {
		r.reasons[user] = reason
	} else {
		clear(r.reasons)
	}
	r.changed(user)
}

func (r *Room) changed(user string) {
	for f := range r.feeds {
		f.add(user)
	}
}

func (r *Room) isLeft() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

func occupant(m *wire.Occupant) Occupant {
	o := Occupant{User: m.GetUser(), State: state(m.GetState()), Entered: instant(m.GetEnteredAt())}
	if m.GetInfo() != "" {
		o.Info = json.RawMessage(m.GetInfo())
	}
	return o
}

// EnterRoom enters a room, and again after each reconnect until LeaveRoom. Entering a room
// that the client is in already replaces its options.
func (c *Client) EnterRoom(ctx context.Context, o RoomOptions) (*Room, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r := newRoom(c, o)
	c.mu.Lock()
	before := c.rooms[o.Room]
	c.rooms[o.Room] = r
	c.mu.Unlock()
	cmd, on := r.command()
	if err := c.call(ctx, cmd, on); err != nil {
		c.mu.Lock()
		if c.rooms[o.Room] == r {
			delete(c.rooms, o.Room)
			if before != nil {
				c.rooms[o.Room] = before
			}
		}
		c.mu.Unlock()
		return nil, err
	}
	return r, nil
}

// Room is the handle of a room that was entered by Options.Rooms or EnterRoom; nil if none.
func (c *Client) Room(name string) *Room {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms[name]
}

// LeaveRoom leaves a room.
func (c *Client) LeaveRoom(ctx context.Context, name string) error {
	c.mu.Lock()
	if r := c.rooms[name]; r != nil {
		r.mu.Lock()
		r.left = true
		r.mu.Unlock()
		delete(c.rooms, name)
	}
	c.mu.Unlock()
	cmd := &wire.Command{Method: &wire.Command_RoomLeave{RoomLeave: &wire.RoomLeave{Room: name}}}
	return c.call(ctx, cmd, complete)
}

// ListRoom lists a room's occupants without entering it, and how many there are in all.
func (c *Client) ListRoom(ctx context.Context, name string) (list []Occupant, count int, err error) {
	cmd := &wire.Command{Method: &wire.Command_RoomWindow{RoomWindow: &wire.RoomWindow{Room: name}}}
	err = c.call(ctx, cmd, func(r *wire.Reply) bool {
		list, count = nil, int(r.GetRoomWindow().GetCount())
		for _, o := range r.GetRoomWindow().GetOccupants() {
			list = append(list, occupant(o))
		}
		return true
	})
	return list, count, err
}
