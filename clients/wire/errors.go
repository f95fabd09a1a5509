package wire

import (
	"fmt"
	"time"
)

// Code is the number of an error. Numbers and names are append-only; 100 to 112 are Centrifugo's.
type Code uint32

const (
	CodeInternal              Code = 100
	CodeUnauthorized          Code = 101
	CodeUnknownTarget         Code = 102
	CodePermissionDenied      Code = 103
	CodeMethodNotFound        Code = 104
	CodeAlready               Code = 105
	CodeLimitExceeded         Code = 106
	CodeBadRequest            Code = 107
	CodeNotAvailable          Code = 108
	CodeTokenExpired          Code = 109
	CodeExpired               Code = 110
	CodeRateLimited           Code = 111
	CodeUnrecoverablePosition Code = 112
	CodeConflict              Code = 120
	CodeIDReused              Code = 121
	CodeCutOff                Code = 122
	CodeMoving                Code = 123
	CodeNotReady              Code = 124
	CodeTooLarge              Code = 125
	CodeIDExpired             Code = 126
	CodeOutboxFull            Code = 127
	CodeBusy                  Code = 128
	CodeBlocked               Code = 129
)

// CodeInfo is one row of the table of errors.
type CodeInfo struct {
	Code      Code
	Name      string
	Retryable bool   // the same request may succeed later, unchanged
	HTTP      int    // the status of the HTTP API's answer
	Meaning   string // default message
	Do        string // what the client should do
}

var codes = []CodeInfo{
	{CodeInternal, "INTERNAL", true, 500, "the server failed", "try again with back-off; report it if it stays"},
	{CodeUnauthorized, "UNAUTHORIZED", false, 401, "no token, or one that is not valid here", "get a new token, sign in again"},
	{CodeUnknownTarget, "UNKNOWN_TARGET", false, 404, "the user, room or claim named does not exist", "drop the reference"},
	{CodePermissionDenied, "PERMISSION_DENIED", false, 403, "the token does not allow this", "do not ask again with this token"},
	{CodeMethodNotFound, "METHOD_NOT_FOUND", false, 404, "the server does not know this method", "use a server of a newer version, or do without"},
	{CodeAlready, "ALREADY", false, 409, "it is so already", "take it as done"},
	{CodeLimitExceeded, "LIMIT_EXCEEDED", false, 422, "a count is over its limit", "ask for less, remove something first"},
	{CodeBadRequest, "BAD_REQUEST", false, 400, "a field is missing or not valid; the message names it", "mend the request"},
	{CodeNotAvailable, "NOT_AVAILABLE", false, 501, "this server does not offer it", "do without"},
	{CodeTokenExpired, "TOKEN_EXPIRED", false, 401, "the token has expired", "get a new token and send it with refresh or connect"},
	{CodeExpired, "EXPIRED", false, 410, "the thing named has expired", "start over"},
	{CodeRateLimited, "RATE_LIMITED", true, 429, "too many requests", "wait retry_after_ms"},
	{CodeUnrecoverablePosition, "UNRECOVERABLE_POSITION", false, 410, "the position asked for is no longer kept", "fetch the present state and go on from there"},
	{CodeConflict, "CONFLICT", false, 409, "it was changed by someone else meanwhile", "read it again, then decide"},
	{CodeIDReused, "ID_REUSED", false, 409, "the client id was used before with another body", "use a new id for another message; the first one stands"},
	{CodeCutOff, "CUT_OFF", true, 503, "this node cannot reach the majority of the cluster", "try again; the socket is moved if it lasts"},
	{CodeMoving, "MOVING", true, 503, "the owner is moving to another node", "try again after retry_after_ms; a publish with the same client id"},
	{CodeNotReady, "NOT_READY", true, 503, "the server is starting or settling", "try again after retry_after_ms"},
	{CodeTooLarge, "TOO_LARGE", false, 413, "a body or a field is larger than its limit", "send less"},
	{CodeIDExpired, "ID_EXPIRED", false, 410, "the time in the client id is more than 24 h old, or more than 10 min ahead", "if it was never sent, use a new id with the server's time; else it may have been stored: ask before sending it again"},
	{CodeOutboxFull, "OUTBOX_FULL", true, 507, "the receiver's outbox is full", "nothing was stored; try again later with the same id"},
	{CodeBusy, "BUSY", true, 503, "the server has more work than it can take", "try again after retry_after_ms"},
	{CodeBlocked, "BLOCKED", false, 403, "one of the two users has blocked the other", "do not ask again"},
}

// Codes is the table of errors, by number. The caller must not change it.
func Codes() []CodeInfo { return codes }

// Info is the code's row; false for a number that this version does not know.
func (c Code) Info() (CodeInfo, bool) {
	for _, i := range codes {
		if i.Code == c {
			return i, true
		}
	}
	return CodeInfo{Code: c, HTTP: 500, Meaning: "unknown error"}, false
}

// String is the code's name, or its number.
func (c Code) String() string {
	if i, ok := c.Info(); ok {
		return i.Name
	}
	return fmt.Sprintf("CODE_%d", uint32(c))
}

// Error makes the message for an error reply. An empty message is the code's meaning;
// retryAfter is sent in whole milliseconds, 0 is left out.
func (c Code) Error(message string, retryAfter time.Duration) *Error {
	i, _ := c.Info()
	if message == "" {
		message = i.Meaning
	}
	return &Error{
		Code: uint32(c), Name: c.String(), Message: message, Retryable: i.Retryable,
		RetryAfterMs: uint64(max(retryAfter, 0).Milliseconds()),
	}
}
