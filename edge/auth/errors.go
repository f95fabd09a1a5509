package auth

import (
	"fmt"

	"muster/clients/wire"
)

// Reason says why a token was refused, in one word for metrics and tests.
type Reason string

const (
	Malformed   Reason = "malformed"   // not three base64url segments of JSON
	TooLarge    Reason = "too_large"   // more than MaxToken bytes
	Unsigned    Reason = "unsigned"    // alg "none", or an empty signature
	Algorithm   Reason = "algorithm"   // no key of the server takes the token's algorithm
	UnknownKey  Reason = "unknown_key" // no key has the token's kid
	Signature   Reason = "signature"   // the signature is not by a key of the server
	Expired     Reason = "expired"     // exp has passed
	NotYet      Reason = "not_yet"     // nbf or iat lies ahead
	NoExpiry    Reason = "no_expiry"   // exp is missing and required
	Audience    Reason = "audience"    // aud does not name this server
	Issuer      Reason = "issuer"      // iss is another
	BadClaim    Reason = "bad_claim"   // a claim is missing, given twice, of a wrong type or out of bounds
	Unavailable Reason = "unavailable" // the JWK set could not be fetched: try again
)

// Error is a refused token. Message is for the client: it never holds key material.
type Error struct {
	Reason  Reason
	Message string
}

func (e *Error) Error() string { return e.Message }

// Code is the error's number on the wire.
func (e *Error) Code() wire.Code {
	switch e.Reason {
	case Expired:
		return wire.CodeTokenExpired
	case Unavailable:
		return wire.CodeNotReady
	}
	return wire.CodeUnauthorized
}

// wantsKey reports whether another key could make the token good.
func (e *Error) wantsKey() bool {
	return e != nil && (e.Reason == Signature || e.Reason == UnknownKey || e.Reason == Algorithm)
}

func refuse(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...)}
}
