package wire

import "fmt"

// CloseCode is the status with which a WebSocket is closed. The range says what to do:
// 4000 to 4499 reconnect, 4500 to 4999 do not.
type CloseCode uint16

const (
	CloseInternal        CloseCode = 4000
	CloseUnknownCommand  CloseCode = 4001
	CloseDecode          CloseCode = 4002
	CloseBeforeConnect   CloseCode = 4003
	CloseAlready         CloseCode = 4005
	CloseRateLimited     CloseCode = 4008
	CloseSlow            CloseCode = 4010
	CloseDrain           CloseCode = 4011
	CloseNoPong          CloseCode = 4012
	CloseTokenExpired    CloseCode = 4013
	CloseNoConnect       CloseCode = 4015
	CloseCutOff          CloseCode = 4016
	CloseUnauthorized    CloseCode = 4504
	CloseRevoked         CloseCode = 4505
	CloseDeviceLimit     CloseCode = 4506
	CloseNotPermitted    CloseCode = 4507
	CloseAbuse           CloseCode = 4508
	CloseReplaced        CloseCode = 4510
	CloseVersionMismatch CloseCode = 4512
)

// Grace is what becomes of the session when its socket was closed with a code.
type Grace uint8

const (
	GraceNone    Grace = iota // there was no session, or it ends at once
	GraceSilence              // as if the client had fallen silent: 15 s
	GraceDrain                // 60 s
	GraceKept                 // the session lives on, at another socket
)

var graces = [...]string{"none", "15 s", "60 s", "session goes on"}

func (g Grace) String() string { return graces[g] }

// CloseInfo is one row of the table of close codes.
type CloseInfo struct {
	Code    CloseCode
	Reason  string // sent in the close frame and in the disconnect push
	Grace   Grace
	Meaning string
	Do      string
}

var closes = []CloseInfo{
	{CloseInternal, "internal", GraceSilence, "the server failed", "reconnect"},
	{CloseUnknownCommand, "unknown_command", GraceSilence, "a command that makes no sense to the server", "mend the client; reconnect"},
	{CloseDecode, "decode", GraceSilence, "a frame that is not valid JSON, not UTF-8, too large, of too many lines or too deep", "mend the client; reconnect"},
	{CloseBeforeConnect, "before_connect", GraceNone, "a command came before connect", "mend the client; reconnect"},
	{CloseAlready, "already_connected", GraceSilence, "a second connect on one socket", "mend the client; reconnect"},
	{CloseRateLimited, "rate_limited", GraceSilence, "three times the rate limit, in spite of error 111", "reconnect after retry_after_ms, send less"},
	{CloseSlow, "slow", GraceSilence, "the client did not read for 5 s with a full queue", "reconnect and resume"},
	{CloseDrain, "drain", GraceDrain, "the node is shutting down", "reconnect and resume, on any node"},
	{CloseNoPong, "no_pong", GraceSilence, "no answer to a ping within 10 s", "reconnect and resume"},
	{CloseTokenExpired, "token_expired", GraceSilence, "the token expired and was not refreshed", "get a new token, then reconnect; final without a way to get one"},
	{CloseNoConnect, "no_connect", GraceNone, "no connect within 5 s of the socket's opening", "reconnect"},
	{CloseCutOff, "cut_off", GraceSilence, "the node cannot reach the user's shard", "reconnect, to another node if there is one"},
	{CloseUnauthorized, "unauthorized", GraceNone, "the token was refused", "sign in again"},
	{CloseRevoked, "revoked", GraceNone, "the session was ended by the application, or the user is blocked or revoked", "do not reconnect; tell the user"},
	{CloseDeviceLimit, "device_limit", GraceNone, "the user has too many devices", "sign out elsewhere"},
	{CloseNotPermitted, "permission_denied", GraceNone, "the token does not allow to connect here", "do not reconnect"},
	{CloseAbuse, "abuse", GraceNone, "the client misbehaved too often", "do not reconnect"},
	{CloseReplaced, "replaced", GraceKept, "a newer socket of the same session has taken over", "ignore it if this client opened the newer socket; else start a new session when the page is visible again"},
	{CloseVersionMismatch, "version", GraceNone, "the client speaks a version that the server does not", "update the client"},
}

// CloseCodes is the table of close codes, by number. The caller must not change it.
func CloseCodes() []CloseInfo { return closes }

// Info is the code's row; false for a number that this version does not know.
func (c CloseCode) Info() (CloseInfo, bool) {
	for _, i := range closes {
		if i.Code == c {
			return i, true
		}
	}
	return CloseInfo{Code: c, Reason: fmt.Sprintf("code_%d", c), Grace: GraceSilence}, false
}

// Reason is the word for the close frame.
func (c CloseCode) Reason() string {
	i, _ := c.Info()
	return i.Reason
}

// Reconnect reports whether the client should come back: all codes but 4500 to 4999,
// the WebSocket standard's own (1000 to 1015) included.
func (c CloseCode) Reconnect() bool { return c < 4500 || c > 4999 }

func (c CloseCode) String() string { return fmt.Sprintf("%d %s", uint16(c), c.Reason()) }
