package muster

import (
	"context"
	"time"

	"muster/clients/wire"
)

// Watch adds users to the view, and returns when their state is known or pending. They
// stay watched across reconnects. If the server refuses, those not accepted yet are taken out again.
func (c *Client) Watch(ctx context.Context, users ...string) error {
	if err := checkIDs(users); err != nil {
		return err
	}
	added := c.view.watch(users)
	for len(added) > 0 {
		part := chunk(added)
		cmd, on := c.watchCommand(part)
		if err := c.call(ctx, cmd, on); err != nil {
			if _, refused := err.(*Error); refused {
				c.view.unwatch(added)
			}
			return err
		}
		added = added[len(part):]
	}
	return nil
}

// Unwatch takes users out of the view, at once; View.Changes gives no Leave for them.
func (c *Client) Unwatch(ctx context.Context, users ...string) error {
	removed := c.view.unwatch(users)
	for len(removed) > 0 {
		part := chunk(removed)
		if err := c.call(ctx, watchRemove(part), complete); err != nil {
			return err
		}
		removed = removed[len(part):]
	}
	return nil
}

// Query asks for users once, without watching them, and answers in the same order. Those
// the cluster cannot answer for are Unknown.
func (c *Client) Query(ctx context.Context, users ...string) ([]Presence, error) {
	if err := checkIDs(users); err != nil {
		return nil, err
	}
	answers := make([]Presence, 0, len(users))
	for len(users) > 0 {
		part := chunk(users)
		users = users[len(part):]
		known := map[string]Presence{}
		cmd := &wire.Command{Method: &wire.Command_Query{Query: &wire.Query{Users: part}}}
		err := c.call(ctx, cmd, func(r *wire.Reply) bool {
			for _, p := range r.GetQuery().GetPresences() {
				known[p.GetUser()] = presence(p)
			}
			for _, id := range r.GetQuery().GetPending() {
				known[id] = unknown(id)
			}
			return r.GetQuery().GetDone()
		})
		if err != nil {
			return nil, err
		}
		for _, id := range part {
			p, ok := known[id]
			if !ok {
				p = Presence{User: id, State: Offline}
			}
			answers = append(answers, p)
		}
	}
	return answers, nil
}

// Status is the user's own choice of how to be shown.
type Status struct {
	State State         // Online (ends the choice), Away, DND, Invisible
	Text  string        // at most 128 characters
	Emoji string        // at most 32 bytes
	TTL   time.Duration // 10 s to 30 days; 0: until changed
}

// SetStatus sets or, with Online, ends the status chosen by the user. One for up to 5 minutes belongs to the session, and
// is set again if the session could not be resumed; any other belongs to the user and stays.
func (c *Client) SetStatus(ctx context.Context, s Status) error {
	ttl := uint64(max(s.TTL, 0).Milliseconds())
	err := c.call(ctx, &wire.Command{Method: &wire.Command_Status{Status: &wire.Status{
		State: string(s.State), Text: s.Text, Emoji: s.Emoji, TtlMs: ttl,
	}}}, complete)
	switch {
	case err != nil || s.State == Invisible: // which leaves the status as it is
	case ttl == 0:
		c.forget(manual)
	default:
		c.hold(&wire.Claim{Id: manual, Source: manual, State: string(s.State), Text: s.Text, Emoji: s.Emoji, TtlMs: ttl})
	}
	return err
}

// SetInvisible shows the user as offline to everyone else, or ends that.
func (c *Client) SetInvisible(ctx context.Context, invisible bool) error {
	if invisible {
		return c.SetStatus(ctx, Status{State: Invisible})
	}
	return c.SetStatus(ctx, Status{State: Online})
}

// SetClaim sets one source of the user's status; the claim with the highest priority shows. One for more than 5 minutes
// belongs to the user, any other to the session; that is set again if the session could not be resumed.
func (c *Client) SetClaim(ctx context.Context, claim Claim) error {
	m, err := claim.message()
	if err != nil {
		return err
	}
	if err = c.call(ctx, &wire.Command{Method: &wire.Command_Claim{Claim: m}}, complete); err == nil {
		c.hold(m)
	}
	return err
}

// EndClaim ends a claim.
func (c *Client) EndClaim(ctx context.Context, id string) error {
	err := c.call(ctx, &wire.Command{Method: &wire.Command_ClaimEnd{ClaimEnd: &wire.ClaimEnd{Id: id}}}, complete)
	if err == nil {
		c.forget(id)
	}
	return err
}

// activityEvery is how often the server hears of input that goes on.
const activityEvery = 10 * time.Second

// Activity says that the user gave input just now. It may be called for every key press.
func (c *Client) Activity() {
	c.mu.Lock()
	now := time.Now()
	c.active = now
	due := now.Sub(c.reported) >= activityEvery
	if due {
		c.reported = now
	}
	c.mu.Unlock()
	if due {
		c.send(&wire.Command{Method: &wire.Command_Activity{Activity: &wire.Activity{}}})
	}
}

// SetAway says that the user is away from now on, until Activity.
func (c *Client) SetAway(ctx context.Context) error {
	c.mu.Lock()
	c.reported = time.Time{}
	c.mu.Unlock()
	return c.call(ctx, &wire.Command{Method: &wire.Command_Activity{Activity: &wire.Activity{Away: true}}}, complete)
}

// SetInactive says whether the application is in the background: then the server sends
// presence in batches, and no typing. Others do not see it.
func (c *Client) SetInactive(ctx context.Context, inactive bool) error {
	c.mu.Lock()
	c.inactive = inactive
	c.mu.Unlock()
	return c.call(ctx, &wire.Command{Method: &wire.Command_ClientState{ClientState: &wire.ClientState{Inactive: inactive}}}, complete)
}

// SetAudience sets who may see which fields of the user; rules that are nil stay as they are.
func (c *Client) SetAudience(ctx context.Context, a Audience) error {
	return c.call(ctx, &wire.Command{Method: &wire.Command_Audience{Audience: a.message()}}, complete)
}

// Typing tells a user, or a room, that this user composes something (kind text, audio or
// video; "" is text) or has stopped. It is sent if the connection is up, and never again.
func (c *Client) Typing(t Typing) {
	c.send(&wire.Command{Method: &wire.Command_Typing{Typing: &wire.Typing{
		User: t.User, Room: t.Room, Kind: t.Kind, Stop: t.Stop,
	}}})
}

// Refresh renews the token now, by TokenFunc.
func (c *Client) Refresh(ctx context.Context) error {
	if !c.renewable() {
		return &Error{Code: wire.CodeUnauthorized, Name: wire.CodeUnauthorized.String(), Message: "Refresh needs Options.TokenFunc"}
	}
	token, err := c.o.TokenFunc(ctx)
	if err != nil {
		return err
	}
	s, err := c.live(ctx)
	if err != nil {
		return err
	}
	return c.refresh(ctx, s, token)
}
