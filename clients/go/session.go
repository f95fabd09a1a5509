package muster

import (
	"context"
	"errors"
	"time"

	"muster/clients/wire"
)

// steady is how long a socket must have lived for the back-off to begin anew.
const steady = 10 * time.Second

// first makes the connection for Dial.
func (c *Client) first(ctx context.Context) (*socket, error) {
	for n := 0; ; n++ {
		s, err := c.connect(ctx)
		if n == 0 && tokenStale(err) && c.renewable() { // the one in Options was old
			c.mu.Lock()
			c.token = ""
			c.mu.Unlock()
			s, err = c.connect(ctx)
		}
		if err == nil || !c.o.Wait || ctx.Err() != nil || final(err, c.renewable()) {
			return s, err
		}
		wait := c.o.Backoff.random(n, retryAfter(err))
		c.o.Logger.Info("muster: no connection", "error", err, "retry_in", wait)
		if !sleep(ctx, wait, nil) {
			return nil, err
		}
	}
}

// run keeps the session alive until the client ends.
func (c *Client) run(s *socket) {
	for s != nil {
		select {
		case <-c.ctx.Done():
			s.drop(ErrClosed)
			<-s.done
			c.lost(s)
			s = nil
		case <-s.done:
			s = c.redial(s, 0)
		case move := <-s.moving:
			c.o.Logger.Info("muster: asked to move", "reason", move.GetReason())
			s = c.redial(s, max(millis(move.GetRetryAfterMs()), 1))
		}
	}
	c.helpers.Wait()
	c.told.stop()
	close(c.done)
}

// redial opens the next socket and returns it, or nil when the client ends. With a wait the old one is
// still good and stays in use until the new one is there; if it dies meanwhile, that is
// as if it had died before.
func (c *Client) redial(old *socket, wait time.Duration) *socket {
	asked := false // a newer socket has been tried since
	for {
		if old != nil && isDone(old.done) {
			if c.over(old.err, asked) {
				c.lost(old)
				return nil
			}
			if c.tries++; time.Since(old.born) >= steady {
				c.tries = 0
			}
			wait = max(wait, c.o.Backoff.random(c.tries, retryAfter(old.err)))
			c.lost(old)
			c.tell(Connection{Err: old.err, RetryIn: wait})
			old = nil
		}
		if !c.pause(wait, old) {
			continue // the old one died
		}
		if c.ctx.Err() != nil {
			return c.abandon(old)
		}
		s, err := c.connect(c.ctx)
		if err == nil {
			if old != nil {
				old.drop(errLost)
				<-old.done
			}
			return s
		}
		asked = true
		if c.ctx.Err() != nil || c.over(err, false) {
			return c.abandon(old)
		}
		wait = c.o.Backoff.random(c.tries, retryAfter(err))
		c.tries++
		if old == nil {
			c.tell(Connection{Err: err, RetryIn: wait})
		} else {
			c.o.Logger.Info("muster: could not move yet", "error", err, "retry_in", wait)
		}
	}
}

// pause waits; false when old died meanwhile. The end of the client ends it, too.
func (c *Client) pause(wait time.Duration, old *socket) bool {
	var died <-chan struct{}
	if old != nil {
		died = old.done
	}
	return sleep(c.ctx, wait, died) || c.ctx.Err() != nil
}

func (c *Client) abandon(old *socket) *socket {
	if old != nil {
		old.drop(ErrClosed)
		<-old.done
		c.lost(old)
	}
	return nil
}

// over ends the client if there is no use in going on after err.
func (c *Client) over(err error, newer bool) bool {
	var closed *CloseError
	if newer && errors.As(err, &closed) && closed.Code == wire.CloseReplaced {
		return false // by the newer socket of this very client
	}
	c.mu.Lock()
	if tokenStale(err) {
		c.token = ""
	}
	leaving := c.leaving
	c.mu.Unlock()
	if leaving {
		<-c.ctx.Done() // Bye is about to close the client
		return true
	}
	if final(err, c.renewable()) {
		c.o.Logger.Warn("muster: gave up", "error", err)
		c.end(err)
		return true
	}
	return c.ctx.Err() != nil
}

// lost takes s out of use.
func (c *Client) lost(s *socket) {
	c.mu.Lock()
	if c.cur == s {
		c.cur = nil
		c.up = make(chan struct{})
		close(s.left)
	}
	c.mu.Unlock()
	c.view.lost(s)
}

func (c *Client) tell(e Connection) {
	if e.Up {
		c.o.Logger.Info("muster: connected", "user", e.Session.User, "node", e.Session.Node, "resumed", e.Session.Resumed)
	} else {
		c.o.Logger.Info("muster: no connection", "error", e.Err, "retry_in", e.RetryIn)
	}
	if f := c.o.OnConnection; f != nil {
		c.told.tell(func() { f(e) })
	}
}

func (c *Client) renewable() bool { return c.o.TokenFunc != nil }

// credential gives the token for the next connect.
func (c *Client) credential(ctx context.Context) (string, error) {
	c.mu.Lock()
	token, expires := c.token, c.expires
	c.mu.Unlock()
	if c.renewable() && (token == "" || !expires.IsZero() && time.Until(expires) < time.Second) {
		return c.renew(ctx)
	}
	if token == "" {
		token = c.o.Token
	}
	return token, nil
}

func (c *Client) renew(ctx context.Context) (string, error) {
	token, err := c.o.TokenFunc(ctx)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.token, c.expires = token, time.Time{}
	c.mu.Unlock()
	return token, nil
}

// keep renews the token at s in time: at nine tenths of its life, at most a minute before its end.
func (c *Client) keep(s *socket) {
	for n := 0; ; {
		c.mu.Lock()
		expires := c.expires
		c.mu.Unlock()
		left := time.Until(expires)
		wait := max(left-min(left/10, time.Minute), time.Second)
		if n > 0 {
			wait = c.o.Backoff.random(n, time.Second)
		}
		if expires.IsZero() || !sleep(s.ctx, wait, s.left) {
			return
		}
		token, err := c.o.TokenFunc(s.ctx)
		if err == nil {
			err = c.refresh(s.ctx, s, token)
		}
		if n++; err == nil {
			n = 0
		} else if s.ctx.Err() == nil {
			c.o.Logger.Warn("muster: could not renew the token", "error", err)
		}
	}
}

func (c *Client) refresh(ctx context.Context, s *socket, token string) error {
	cmd := &wire.Command{Method: &wire.Command_Refresh{Refresh: &wire.Refresh{Token: token}}}
	return s.start(ctx, cmd, func(r *wire.Reply) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.token = token
		c.setExpiry(r.GetRefresh().GetExpAt())
		return true
	}).wait(ctx)
}

// setExpiry notes when the token ends, by the local clock. c.mu is held.
func (c *Client) setExpiry(at uint64) {
	c.expires, c.session.Expires = time.Time{}, instant(at)
	if at != 0 {
		c.expires = instant(at).Add(-c.ahead)
	}
}

func isDone(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// sleep waits; false when ctx or stop ended it.
func sleep(ctx context.Context, d time.Duration, stop <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	}
}
