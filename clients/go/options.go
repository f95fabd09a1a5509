package muster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"muster/clients/wire"
)

// Options says who connects and what the session wants. Token or TokenFunc is required.
type Options struct {
	// Token is a JWT for the user.
	Token string
	// TokenFunc, if set, gives a token whenever one is needed: first, before the last
	// one expires, and after the server refused one as expired.
	TokenFunc func(ctx context.Context) (string, error)
	// DeviceID names the installation, [A-Za-z0-9._@+=-]{1,128}; keep it between runs.
	// Default: a random one.
	DeviceID string
	// Class is desktop, mobile, web, tv or bot. Default: desktop.
	Class string
	// Watch lists the users to watch from the start.
	Watch []string
	// Rooms lists the rooms to enter from the start; see Client.Room.
	Rooms []RoomOptions
	// Outbox, if not nil, makes this device read the user's outbox, from the position in
	// this store on; see Client.Outbox. Entries wait for the device from then on, until
	// Client.ForgetDevice or 30 days without it; so DeviceID should be set. new(MemoryPosition) lasts as long as the program.
	Outbox PositionStore
	// Grace asks for another grace than the server's after a lost connection, if not nil.
	Grace *time.Duration
	// Inactive starts in the background; see Client.SetInactive.
	Inactive bool
	// Idle tells how long ago the user gave input. Default: since the last call of
	// Client.Activity, or since Dial.
	Idle func() time.Duration
	// Name names the program for the server's explain, at most 64 bytes. Default: muster-go.
	Name string
	// Wait makes Dial try again, with back-off, until it is connected or its context ends.
	// Otherwise Dial makes one attempt.
	Wait bool
	// Backoff between attempts.
	Backoff Backoff
	// Timeout is for one attempt, from the dial to the answer to connect. Default: 10 s.
	Timeout time.Duration
	// Header goes along with the WebSocket handshake.
	Header http.Header
	// HTTPClient makes the WebSocket handshake; its Transport is the place for dial hooks,
	// proxies and TLS settings. Default: http.DefaultClient.
	HTTPClient *http.Client
	// Logger gets a line for each connect, loss and retry. Default: none.
	Logger *slog.Logger

	// OnConnection is told of each connect, loss and failed attempt, OnTyping of typing, OnSelf of changes of
	// the user's own state, OnContact of changed relations (by either side, on any device). They are called one at a time, in order, from one goroutine, and
	// may call all methods but Bye and Close.
	OnConnection func(Connection)
	OnTyping     func(Typing)
	OnSelf       func(Self)
	OnContact    func(Contact)
}

// Connection is what OnConnection gets.
type Connection struct {
	Up      bool
	Session Session
	Err     error         // why it was lost, or could not be made
	RetryIn time.Duration // until the next attempt, at least
}

// Backoff is full jitter: before try n a random wait of up to min(Max, Min·2ⁿ), never
// less than the server asked for.
type Backoff struct {
	Min time.Duration // default 200 ms
	Max time.Duration // default 20 s
}

// wait is the time before try n (from 0), with r in [0, 1).
func (b Backoff) wait(n int, atLeast time.Duration, r float64) time.Duration {
	most := min(float64(b.Max), float64(b.Min)*math.Pow(2, float64(n)))
	if jitter := time.Duration(r * most); atLeast == 0 {
		return jitter
	}
	// Many were told the same time: spread them behind it, never before.
	return atLeast + time.Duration(r*min(most, max(float64(b.Min)*4, float64(atLeast))))
}

func (b Backoff) random(n int, atLeast time.Duration) time.Duration {
	return b.wait(n, atLeast, mathrand.Float64())
}

func (o Options) withDefaults() (Options, error) {
	if o.DeviceID == "" {
		o.DeviceID = rand.Text()
	}
	if o.Class == "" {
		o.Class = wire.DeviceClass_DEVICE_CLASS_DESKTOP.Name()
	}
	if o.Name == "" {
		o.Name = "muster-go"
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Backoff.Min == 0 {
		o.Backoff.Min = 200 * time.Millisecond
	}
	if o.Backoff.Max == 0 {
		o.Backoff.Max = 20 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.HTTPClient == nil {
		o.HTTPClient = http.DefaultClient
	}
	switch {
	case o.Token == "" && o.TokenFunc == nil:
		return o, errors.New("muster: Options need a Token or a TokenFunc")
	case !wire.ValidID(o.DeviceID):
		return o, fmt.Errorf("muster: %q is not a valid DeviceID", o.DeviceID)
	case wire.ParseDeviceClass(o.Class) == 0:
		return o, fmt.Errorf("muster: Class %q is none of desktop, mobile, web, tv, bot", o.Class)
	case len(o.Name) > wire.MaxClient:
		return o, fmt.Errorf("muster: Name is longer than %d bytes", wire.MaxClient)
	}
	for _, r := range o.Rooms {
		if err := r.check(); err != nil {
			return o, err
		}
	}
	return o, checkIDs(o.Watch)
}

func checkIDs(ids []string) error {
	for _, id := range ids {
		if !wire.ValidID(id) {
			return fmt.Errorf("muster: %q is not a valid id", id)
		}
	}
	return nil
}

// socketURL accepts ws, wss, http and https, with or without the path.
func socketURL(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "ws", url
	}
	if !strings.Contains(rest, "/") || strings.HasSuffix(rest, "/") && strings.Count(rest, "/") == 1 {
		rest = strings.TrimSuffix(rest, "/") + wire.Path
	}
	return scheme + "://" + rest
}
