package muster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"muster/clients/wire"
)

// Message is what Publish puts into a user's outbox.
type Message struct {
	Body        any           // encoded as JSON, at most 16 KiB; a json.RawMessage as it is
	Class       string        // critical, normal (default), presence
	TTL         time.Duration // 10 s to 30 days; 0: 7 days
	CollapseKey string        // replaces an older entry of this user's with this key that no device has acked; at most 64 bytes
	AnyDevice   bool          // the first device's ack is enough
	// ID is a UUIDv7 or ULID. Set it to go on with a message whose fate an earlier Publish
	// could not learn. Default: a new one, with the server's time of the first attempt.
	ID string
}

// Receipt says what became of a message.
type Receipt struct {
	ID string    // the message's; also with an error, once there was an attempt
	At time.Time // when it was stored
}

// publishPatience is how long to wait for an answer before the same id is sent again.
const publishPatience = 15 * time.Second

// Publish puts a message into the outbox of a user and returns when it is stored for
// good. Until then it sends the same id again and again, on new sockets too, so that the message is stored once
// whatever fails. It gives up when ctx ends (then the message may have been stored or not: to go on later, set Message.ID
// to the receipt's), or when the server refuses for a reason that waiting cannot mend, or with OUTBOX_FULL.
func (c *Client) Publish(ctx context.Context, user string, m Message) (Receipt, error) {
	if err := checkIDs([]string{user}); err != nil {
		return Receipt{}, err
	}
	body, err := rawJSON(m.Body)
	if err != nil {
		return Receipt{}, fmt.Errorf("muster: the body: %w", err)
	}
	if len(body) > wire.MaxBody {
		return Receipt{}, fmt.Errorf("muster: the body is larger than %d bytes", wire.MaxBody)
	}
	p := &wire.Publish{
		User: user, ClientId: m.ID, Body: body, Class: m.Class, TtlMs: uint64(max(m.TTL, 0).Milliseconds()), CollapseKey: m.CollapseKey,
	}
	if m.AnyDevice {
		p.AckMode = "any_device"
	}
	for n := 0; ; n++ {
		if _, err := c.live(ctx); err != nil {
			return Receipt{ID: p.ClientId}, err
		}
		if p.ClientId == "" {
			p.ClientId = newID(c.serverTime())
		}
		at, err := c.publish(ctx, p)
		if !again(ctx, err) {
			return Receipt{ID: p.ClientId, At: at}, err
		}
		c.o.Logger.Info("muster: publishing again", "id", p.ClientId, "error", err)
		if !sleep(ctx, c.o.Backoff.random(n, retryAfter(err)), c.closed) {
			return Receipt{ID: p.ClientId}, errors.Join(ctx.Err(), err)
		}
	}
}

// publish makes one attempt, which may span several sockets.
func (c *Client) publish(ctx context.Context, p *wire.Publish) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, publishPatience)
	defer cancel()
	var at time.Time
	err := c.call(ctx, &wire.Command{Method: &wire.Command_Publish{Publish: p}}, func(r *wire.Reply) bool {
		at = instant(r.GetPublish().GetAt())
		return true
	})
	if err != nil {
		return time.Time{}, err // at may yet be written
	}
	return at, nil
}

// again tells whether a publish that ended with err should be repeated.
func again(ctx context.Context, err error) bool {
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Retryable && refused.Code != wire.CodeOutboxFull
	}
	return errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
}

// serverTime is the server's clock, as it said when the socket was made; without that, our own.
func (c *Client) serverTime() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clock.IsZero() {
		return time.Now()
	}
	return c.clock.Add(time.Since(c.learned))
}

// newID is a UUIDv7.
func newID(at time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	random := binary.BigEndian.Uint16(b[6:])
	binary.BigEndian.PutUint64(b[:], uint64(at.UnixMilli())<<16|uint64(7)<<12|uint64(random&0x0fff))
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}
