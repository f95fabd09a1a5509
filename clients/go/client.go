package muster

import (
	"context"
	"errors"
	"sync"
	"time"

	"muster/clients/wire"
)

// Client is one session: a device of a user. Make it with Dial.
type Client struct {
	url  string
	o    Options
	view *View
	told *teller

	outbox *Outbox // nil if it is not read

	ctx    context.Context // ends with the client
	stop   context.CancelFunc
	done   chan struct{} // closed when nothing of the client runs any more
	closed chan struct{} // closed when the client has begun to end

	mu       sync.Mutex
	err      error
	cur      *socket       // nil while there is none
	up       chan struct{} // closed when cur is set
	session  Session
	attempt  uint64
	token    string
	rooms    map[string]*Room
	inactive bool
	active   time.Time     // the user's last input
	reported time.Time     // last activity command
	expires  time.Time     // of the token, by the local clock; zero if never or not known
	ahead    time.Duration // how far the server's clock is ahead
	clock    time.Time     // the server's when the socket was made, which was at learned
	learned  time.Time
	kept     map[string]kept // claims of this session, by id
	leaving  bool            // bye was called

	tries   int // of connecting in a row, run's own
	helpers sync.WaitGroup
}

// Dial connects and starts a session. url is ws(s)://host[:port][/v1/ws]. When it returns, the
// view holds the first answer for up to 1,000 watched users; the rest follows. ctx is for
// Dial alone. Errors: *Error, *CloseError, *HandshakeError, or one of the network.
func Dial(ctx context.Context, url string, options Options) (*Client, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		url: socketURL(url), o: o, done: make(chan struct{}), closed: make(chan struct{}), up: make(chan struct{}),
		token: o.Token, rooms: map[string]*Room{}, kept: map[string]kept{}, inactive: o.Inactive, active: time.Now(),
	}
	if o.Outbox != nil {
		if c.outbox, err = newOutbox(ctx, c, o.Outbox); err != nil {
			return nil, err
		}
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.view = newView(c.closed)
	c.view.watch(o.Watch)
	for _, r := range o.Rooms {
		c.rooms[r.Room] = newRoom(c, r)
	}
	c.told = newTeller()
	s, err := c.first(ctx)
	if err != nil {
		c.end(err)
		c.told.stop()
		close(c.done)
		return nil, err
	}
	go c.run(s)
	return c, nil
}

// View is the state of the watched users.
func (c *Client) View() *View { return c.view }

// Outbox is the user's outbox; nil without Options.Outbox.
func (c *Client) Outbox() *Outbox { return c.outbox }

// Session is the session as the last connect gave it.
func (c *Client) Session() Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// Connected reports whether a socket is up now.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur != nil
}

// Done is closed when the client has ended for good.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the client ended: ErrClosed after Bye or Close, nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Bye ends the session at once, so that others see this device gone without a grace, and
// closes the client. It waits for the server until ctx ends; the client is closed in any
// case. ErrNotConnected: the server could not be told.
func (c *Client) Bye(ctx context.Context) error {
	c.mu.Lock()
	s := c.cur
	c.leaving = true
	c.mu.Unlock()
	err := ErrNotConnected
	if s != nil {
		if c.outbox != nil {
			c.outbox.ack()
		}
		err = s.start(ctx, &wire.Command{Method: &wire.Command_Bye{Bye: &wire.Bye{}}}, complete).wait(ctx)
		if errors.Is(err, errLost) {
			err = nil // the server may close instead of answering
		}
	}
	c.Close()
	return err
}

// Close closes the socket without a goodbye: others see this device until its grace is
// over. It returns when everything has stopped.
func (c *Client) Close() {
	c.end(ErrClosed)
	<-c.done
}

// end begins the end of the client; the first cause counts.
func (c *Client) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = cause
	c.stop()
	close(c.closed)
}

// live waits for a socket.
func (c *Client) live(ctx context.Context) (*socket, error) {
	for {
		c.mu.Lock()
		s, up := c.cur, c.up
		c.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.closed:
			return nil, c.Err()
		}
	}
}

// call sends a command and waits for its reply, at the next socket if this one is lost.
func (c *Client) call(ctx context.Context, cmd *wire.Command, on func(*wire.Reply) bool) error {
	for {
		s, err := c.live(ctx)
		if err != nil {
			return err
		}
		if err = s.start(ctx, cmd, on).wait(ctx); !errors.Is(err, errLost) {
			return err
		}
		select { // until the client has noticed, too
		case <-c.gone(s):
		case <-ctx.Done():
			return ctx.Err()
		case <-c.closed:
			return c.Err()
		}
	}
}

// gone is closed as soon as s is no longer the client's socket.
func (c *Client) gone(s *socket) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cur != s {
		past := make(chan struct{})
		close(past)
		return past
	}
	return s.left
}

// send sends a command without reply, if the socket is up.
func (c *Client) send(cmd *wire.Command) { c.offer(cmd.AppendJSON(nil)) }

// offer sends a frame if the socket is up and the server reads: what is of the moment is not worth waiting.
func (c *Client) offer(frame []byte) bool {
	c.mu.Lock()
	s := c.cur
	c.mu.Unlock()
	if s == nil {
		return false
	}
	select {
	case s.out <- frame:
		return true
	default:
		return false
	}
}

// pong answers a ping of s: with an ack if one is due, as any frame will do.
func (c *Client) pong(s *socket) []byte {
	c.mu.Lock()
	current := c.cur == s
	c.mu.Unlock()
	if current && c.outbox != nil {
		if frame := c.outbox.owed(); frame != nil {
			return frame
		}
	}
	return []byte(wire.PingFrame)
}

// complete is for replies that say nothing.
func complete(*wire.Reply) bool { return true }
