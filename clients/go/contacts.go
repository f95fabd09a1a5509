package muster

import (
	"context"
	"time"

	"muster/clients/wire"
)

// ContactAction is one step of the handshake of two users.
type ContactAction string

const (
	Subscribe   ContactAction = "subscribe"   // ask to see the user
	Approve     ContactAction = "approve"     // let the user see this one; before being asked, in advance
	Deny        ContactAction = "deny"        // refuse a request, or end what was approved
	Unsubscribe ContactAction = "unsubscribe" // see the user no longer
	Remove      ContactAction = "remove"      // both, and forget the user
)

// Contact is the relation to one user. With User alone there is none any more.
type Contact struct {
	User       string
	To         bool // this user may see the contact
	From       bool // the contact may see this user
	PendingOut bool // this user has asked and awaits an answer
	PendingIn  bool // the contact has asked and awaits an answer
	Approved   bool // a request of the contact will be approved without asking
	Blocked    bool // this user has blocked the other
}

func contact(r *wire.ContactRow) Contact {
	both := r.GetSubscription() == "both"
	return Contact{
		User: r.GetUser(), To: both || r.GetSubscription() == "to", From: both || r.GetSubscription() == "from",
		PendingOut: r.GetPendingOut(), PendingIn: r.GetPendingIn(), Approved: r.GetApproved(), Blocked: r.GetBlocked(),
	}
}

// Contact takes one step of the handshake with a user, and returns how the two stand then. It may be repeated.
func (c *Client) Contact(ctx context.Context, user string, action ContactAction) (Contact, error) {
	var row Contact
	cmd := &wire.Command{Method: &wire.Command_Contact{Contact: &wire.Contact{User: user, Action: string(action)}}}
	err := c.call(ctx, cmd, func(r *wire.Reply) bool {
		row = contact(r.GetContact().GetContact())
		return true
	})
	if err != nil {
		return Contact{}, err
	}
	return row, nil
}

// Contacts lists all relations, in the order of their ids; also mere requests and blocks. Options.OnContact tells what
// changes later, while the connection is up: list them again after each connect.
func (c *Client) Contacts(ctx context.Context) ([]Contact, error) {
	var all []Contact
	for after := ""; ; after = all[len(all)-1].User {
		var page *wire.ContactsReply
		cmd := &wire.Command{Method: &wire.Command_Contacts{Contacts: &wire.Contacts{After: after}}}
		err := c.call(ctx, cmd, func(r *wire.Reply) bool {
			page = r.GetContacts()
			return true
		})
		if err != nil {
			return nil, err
		}
		for _, row := range page.GetContacts() {
			all = append(all, contact(row))
		}
		if !page.GetMore() || len(page.GetContacts()) == 0 {
			return all, nil
		}
	}
}

// Block hides this user and the others from each other, above all rules. They cannot tell.
func (c *Client) Block(ctx context.Context, users ...string) error {
	return c.block(ctx, users, func(part []string) *wire.Block { return &wire.Block{Add: part} })
}

// Unblock ends blocks.
func (c *Client) Unblock(ctx context.Context, users ...string) error {
	return c.block(ctx, users, func(part []string) *wire.Block { return &wire.Block{Remove: part} })
}

func (c *Client) block(ctx context.Context, users []string, change func([]string) *wire.Block) error {
	if err := checkIDs(users); err != nil {
		return err
	}
	for len(users) > 0 {
		part := users[:min(len(users), wire.MaxBlock)]
		users = users[len(part):]
		if err := c.call(ctx, &wire.Command{Method: &wire.Command_Block{Block: change(part)}}, complete); err != nil {
			return err
		}
	}
	return nil
}

// NotifyWhen asks for one entry in this user's outbox, of the type notify_when, when a
// user next comes online. ttl is 10 s to 30 days, 0: 7 days.
func (c *Client) NotifyWhen(ctx context.Context, user string, ttl time.Duration) error {
	m := &wire.NotifyWhen{User: user, TtlMs: uint64(max(ttl, 0).Milliseconds())}
	return c.call(ctx, &wire.Command{Method: &wire.Command_NotifyWhen{NotifyWhen: m}}, complete)
}

// EndNotifyWhen waits for a user no longer.
func (c *Client) EndNotifyWhen(ctx context.Context, user string) error {
	m := &wire.NotifyWhen{User: user, End: true}
	return c.call(ctx, &wire.Command{Method: &wire.Command_NotifyWhen{NotifyWhen: m}}, complete)
}

// RegisterPush says how a push service (fcm, apns, webpush or the application's own, at most
// 32 bytes) reaches this device: by token, at most 4 KiB. With "" it does not any more.
func (c *Client) RegisterPush(ctx context.Context, provider, token string) error {
	return c.call(ctx, &wire.Command{Method: &wire.Command_Device{Device: &wire.Device{Provider: provider, Token: token}}}, complete)
}

// ForgetDevice ends what is kept for this device: push, and its place in the outbox, so that entries do not wait for
// it. Call it before Bye when the user signs out; the next connect that reads the outbox registers the device again.
func (c *Client) ForgetDevice(ctx context.Context) error {
	if c.outbox != nil {
		c.outbox.ack() // what only this device has is done with
	}
	return c.call(ctx, &wire.Command{Method: &wire.Command_Device{Device: &wire.Device{Forget: true}}}, complete)
}
