package muster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"muster/clients/wire"
)

// declaration is what one connect asks for.
type declaration struct {
	watch    []string // all of it
	first    int      // how many of watch go into connect itself
	rooms    []*Room
	inactive bool
	snapshot *snapshot
	claims   []*wire.Claim // to set again, as the session began anew
}

// connect opens a socket and declares the session on it. When it returns without error
// the socket is in use.
func (c *Client) connect(ctx context.Context) (*socket, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, errors.New("muster: no answer to connect in time"))
	defer cancel()
	token, err := c.credential(ctx)
	if err != nil {
		return nil, err
	}
	s, err := dial(ctx, c.url, c.o, c.pushed, c.pong)
	if err != nil {
		return nil, err
	}
	d, cmd := c.declare(token)
	adopted := false
	err = s.start(ctx, cmd, func(r *wire.Reply) bool {
		answer := r.GetConnect()
		if !adopted {
			adopted = true
			c.adopt(s, d, answer)
		}
		d.snapshot.part(answer.GetPresences(), answer.GetPending(), answer.GetDone())
		c.roomAnswers(s, answer.GetRooms())
		if c.outbox != nil {
			c.outbox.take(answer.GetOutbox())
		}
		return answer.GetDone() || d.first == 0
	}).wait(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		s.drop(err)
		<-s.done
		c.lost(s)
		if errors.Is(err, errLost) {
			err = s.err
		}
		return nil, err
	}
	c.catchUp(s, d)
	c.tell(Connection{Up: true, Session: c.Session()})
	if c.mu.Lock(); c.renewable() && !c.expires.IsZero() {
		c.helpers.Go(func() { c.keep(s) })
	}
	c.mu.Unlock()
	return s, nil
}

func (c *Client) declare(token string) (*declaration, *wire.Command) {
	d := &declaration{watch: c.view.watched()}
	d.first = len(chunk(d.watch))
	d.snapshot = c.view.snapshot(d.watch[:d.first])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempt = max(c.attempt+1, uint64(time.Now().UnixMilli()))
	d.inactive = c.inactive
	connect := &wire.Connect{
		Token: token, DeviceId: c.o.DeviceID, Class: wire.ParseDeviceClass(c.o.Class), SessionId: c.session.ID,
		Attempt: c.attempt, IdleMs: uint64(max(c.idle(), 0).Milliseconds()), Watch: d.watch[:d.first],
		Inactive: c.inactive, Client: c.o.Name,
	}
	if c.o.Grace != nil {
		ms := uint64(max(*c.o.Grace, 0).Milliseconds())
		connect.GraceMs = &ms
	}
	if c.outbox != nil {
		connect.Outbox = c.outbox.declare()
	}
	for _, name := range slices.Sorted(maps.Keys(c.rooms)) {
		d.rooms = append(d.rooms, c.rooms[name])
		connect.Rooms = append(connect.Rooms, c.rooms[name].enter())
	}
	return d, &wire.Command{Method: &wire.Command_Connect{Connect: connect}}
}

func (c *Client) idle() time.Duration {
	if c.o.Idle != nil {
		return c.o.Idle()
	}
	return time.Since(c.active)
}

// adopt makes s the client's socket; s's reading goroutine calls it before anything that
// follows connect's answer is looked at.
func (c *Client) adopt(s *socket, d *declaration, answer *wire.ConnectReply) {
	s.believe(millis(answer.GetPingMs()) + pongSlack)
	c.mu.Lock()
	old := c.cur
	c.cur = s
	if old != nil {
		close(old.left)
	} else {
		close(c.up)
	}
	if c.session.ID != "" && !answer.GetResumed() {
		d.claims = c.restore(answer.GetSelf())
	}
	c.session = Session{ID: answer.GetSessionId(), User: answer.GetUser(), Node: answer.GetNode(), Resumed: answer.GetResumed()}
	c.clock, c.learned, c.ahead = instant(answer.GetServerAt()), time.Now(), 0
	if !c.clock.IsZero() {
		c.ahead = time.Until(c.clock)
	}
	c.setExpiry(answer.GetExpAt())
	c.mu.Unlock()
	c.view.adopt(s, d.snapshot)
	if answer.GetSelf() != nil {
		c.toldSelf(answer.GetSelf())
	}
}

// catchUp tells s what did not fit into connect, and what has changed since.
func (c *Client) catchUp(s *socket, d *declaration) {
	declared := map[string]bool{}
	for _, id := range d.watch[:d.first] {
		declared[id] = true
	}
	var add []string
	for _, id := range c.view.watched() {
		if !declared[id] {
			add = append(add, id)
		}
		delete(declared, id)
	}
	for len(add) > 0 {
		part := chunk(add)
		add = add[len(part):]
		c.insist(s, func() (*wire.Command, func(*wire.Reply) bool) { return c.watchCommand(c.view.still(part)) })
	}
	if len(declared) > 0 {
		s.post(s.ctx, watchRemove(slices.Sorted(maps.Keys(declared))).AppendJSON(nil))
	}
	c.mu.Lock()
	inactive := c.inactive
	var entered []*Room
	for _, name := range slices.Sorted(maps.Keys(c.rooms)) {
		if r := c.rooms[name]; !slices.Contains(d.rooms, r) {
			entered = append(entered, r)
		}
	}
	c.mu.Unlock()
	for _, r := range entered {
		c.insist(s, r.command)
	}
	for _, claim := range d.claims {
		c.insist(s, func() (*wire.Command, func(*wire.Reply) bool) {
			return &wire.Command{Method: &wire.Command_Claim{Claim: claim}}, complete
		})
	}
	for _, r := range d.rooms {
		if r.isLeft() {
			s.post(s.ctx, (&wire.Command{Method: &wire.Command_RoomLeave{RoomLeave: &wire.RoomLeave{Room: r.o.Room}}}).AppendJSON(nil))
		}
	}
	if inactive != d.inactive {
		s.post(s.ctx, (&wire.Command{Method: &wire.Command_ClientState{ClientState: &wire.ClientState{Inactive: inactive}}}).AppendJSON(nil))
	}
}

// chunk is the head of ids that fits into one frame.
func chunk(ids []string) []string {
	const most = wire.MaxFrame - 24<<10 // the token and the rooms need room, too
	bytes := 0
	for i, id := range ids {
		if bytes += len(id) + 3; i == wire.MaxWatch || bytes > most {
			return ids[:i]
		}
	}
	return ids
}

// watchCommand asks for the users of one chunk and applies the answer.
func (c *Client) watchCommand(ids []string) (*wire.Command, func(*wire.Reply) bool) {
	if len(ids) == 0 {
		return nil, nil
	}
	snap := c.view.snapshot(ids)
	cmd := &wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Add: ids}}}
	return cmd, func(r *wire.Reply) bool {
		answer := r.GetWatch()
		snap.part(answer.GetPresences(), answer.GetPending(), answer.GetDone())
		return answer.GetDone()
	}
}

func watchRemove(ids []string) *wire.Command {
	return &wire.Command{Method: &wire.Command_Watch{Watch: &wire.Watch{Remove: ids}}}
}

// pushed takes what the server of s says by itself.
func (c *Client) pushed(s *socket, push *wire.Push) {
	c.view.push(s, push.GetPresence())
	c.mu.Lock()
	current := c.cur == s
	room := c.rooms[push.GetRoom().GetRoom()]
	c.mu.Unlock()
	if r := push.GetSessionRevoked(); r != nil {
		c.o.Logger.Warn("muster: the session was revoked", "reason", r.GetReason())
	}
	if !current {
		return
	}
	if room != nil {
		room.push(push.GetRoom())
	}
	if push.GetSelf() != nil {
		c.stillSet(push.GetSelf())
		c.toldSelf(push.GetSelf())
	}
	if c.outbox != nil {
		c.outbox.take(push.GetOutbox())
	}
	if f := c.o.OnContact; f != nil {
		for _, row := range push.GetContact() {
			changed := contact(row)
			c.told.tell(func() { f(changed) })
		}
	}
	if f := c.o.OnTyping; f != nil {
		for _, t := range push.GetTyping() {
			typing := Typing{User: t.GetUser(), Room: t.GetRoom(), Kind: t.GetKind(), Stop: t.GetStop(), TTL: millis(t.GetTtlMs())}
			c.told.tell(func() { f(typing) })
		}
	}
}

func (c *Client) toldSelf(m *wire.Self) {
	if f := c.o.OnSelf; f != nil {
		me := self(m)
		c.told.tell(func() { f(me) })
	}
}

func (c *Client) roomAnswers(s *socket, list []*wire.RoomEnterReply) {
	for _, answer := range list {
		room := c.Room(answer.GetRoom())
		if room == nil {
			continue
		}
		if room.answer(answer); answer.GetError() == nil {
			continue
		}
		if answer.GetError().GetRetryable() {
			c.insist(s, room.command)
		} else {
			c.o.Logger.Warn("muster: could not enter", "room", answer.GetRoom(), "error", refusal(answer.GetError()))
		}
	}
}

// insist gives a command of the client's own, in the background, until the server takes
// it, refuses it for good, or s is no longer in use. command returns nil when it is not
// wanted any more.
func (c *Client) insist(s *socket, command func() (*wire.Command, func(*wire.Reply) bool)) {
	cmd, on := command()
	if cmd == nil {
		return
	}
	asked := s.start(s.ctx, cmd, on) // now, so that commands keep their order
	c.helpers.Go(func() {
		for n := 0; ; n++ {
			err := asked.wait(s.ctx)
			var refused *Error
			if !errors.As(err, &refused) {
				return
			}
			if !refused.Retryable {
				c.o.Logger.Warn("muster: refused", "error", err)
				return
			}
			if !sleep(s.ctx, c.o.Backoff.random(n, refused.RetryAfter), s.left) {
				return
			}
			if cmd, on = command(); cmd == nil {
				return
			}
			asked = s.start(s.ctx, cmd, on)
		}
	})
}
