package muster

import (
	"errors"
	"fmt"
	"time"

	"muster/clients/wire"
)

// ErrClosed is what calls return after Bye or Close.
var ErrClosed = errors.New("muster: the client is closed")

// ErrNotConnected is what Bye returns when there is no connection to say goodbye on:
// others see this device until its grace is over.
var ErrNotConnected = errors.New("muster: not connected")

// errLost ends the calls of a socket that went away; they go on at the next one.
var errLost = errors.New("muster: the connection was lost")

// Error is a refusal by the server; docs/errors.md has the table.
type Error struct {
	Code       wire.Code
	Name       string // such as RATE_LIMITED
	Message    string // for developers
	Retryable  bool   // the same request may succeed later
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("muster: %s (%d): %s", e.Name, e.Code, e.Message)
}

// Is makes errors.Is(err, &Error{Code: …}) compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

func refusal(e *wire.Error) *Error {
	return &Error{
		Code: wire.Code(e.GetCode()), Name: e.GetName(), Message: e.GetMessage(), Retryable: e.GetRetryable(),
		RetryAfter: millis(e.GetRetryAfterMs()),
	}
}

// CloseError says with which code the server closed the socket.
type CloseError struct {
	Code       wire.CloseCode
	Reason     string
	RetryAfter time.Duration // from the disconnect push before it
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("muster: the server closed the connection: %d %s", uint16(e.Code), e.Reason)
}

// Reconnect reports whether the code's range says to come back.
func (e *CloseError) Reconnect() bool { return e.Code.Reconnect() }

// HandshakeError is an HTTP answer in place of a WebSocket.
type HandshakeError struct {
	Status     int
	RetryAfter time.Duration // from the Retry-After header
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("muster: the server answered HTTP status %d instead of a WebSocket", e.Status)
}

// retryAfter is the wait that the server asked for, in whatever way.
func retryAfter(err error) time.Duration {
	var refused *Error
	var closed *CloseError
	var handshake *HandshakeError
	switch {
	case errors.As(err, &refused):
		return refused.RetryAfter
	case errors.As(err, &closed):
		return closed.RetryAfter
	case errors.As(err, &handshake):
		return handshake.RetryAfter
	}
	return 0
}

// tokenStale reports an error that a new token may mend.
func tokenStale(err error) bool {
	var closed *CloseError
	return errors.Is(err, &Error{Code: wire.CodeTokenExpired}) ||
		errors.As(err, &closed) && closed.Code == wire.CloseTokenExpired
}

// final reports an error after which trying again is of no use.
func final(err error, renewable bool) bool {
	var refused *Error
	var closed *CloseError
	switch {
	case tokenStale(err):
		return !renewable
	case errors.As(err, &refused):
		return !refused.Retryable
	case errors.As(err, &closed):
		return !closed.Reconnect()
	}
	return false
}

func millis(ms uint64) time.Duration {
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(ms, most)) * time.Millisecond
}

func instant(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}
