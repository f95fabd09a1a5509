package presence

import "time"

// State is what a user or a device shows. Public states are Offline, Away, DND and Online.
type State uint8

const (
	Offline State = iota
	Away
	DND
	Online
)

// Class is a kind of device.
type Class uint8

const (
	NoClass Class = iota
	Desktop
	Mobile
	Web
	TV
	Bot
	classes
)

// Mask is a set of fields, the things that audience rules decide about.
type Mask uint8

const (
	FieldState Mask = 1 << iota
	FieldLastSeen
	FieldStatus
	FieldDevices
	FieldActivity
	FieldTyping
	FieldReceipts

	NoFields  Mask = 0
	AllFields Mask = 1<<7 - 1

	// FieldBucket stands in a row's mask in place of FieldLastSeen when the server
	// gives strangers a coarse last seen. No rule names it.
	FieldBucket Mask = 1 << 7

	fields = 7
)

// Rule says who may see a field.
type Rule uint8

const (
	Everyone Rule = iota
	Contacts
	ContactsExcept
	Only
	Nobody
)

// Cause says why a conn ended; it decides the grace.
type Cause uint8

const (
	NoCause  Cause = iota
	Bye            // goodbye or close code 1000
	Gone           // close code 1001, or TCP closed without a goodbye
	Silence        // no answer to a ping; slow, rate limited, cut off
	Drain          // the edge is going down in good order
	Kicked         // ended by the application or another device
	Revoked        // its token was revoked
	NodeLost       // its edge died
	Replaced       // a newer conn of the session took over
	Expired        // its token expired
)

// Reason is what watchers are told about going offline.
type Reason uint8

const (
	NoReason Reason = iota
	ReasonExplicit
	ReasonTimeout
	ReasonKicked
	ReasonNodeLost
	ReasonExpired
)

// Bucket is a coarse last seen.
type Bucket uint8

const (
	NoBucket Bucket = iota
	Recently        // less than 3 days
	Week
	Month
	LongAgo
)

// Key names a user: its application (tenant) and its id there.
type Key struct{ App, User string }

// Conn names one live socket: the edge process that holds it and its number there.
type Conn struct {
	Edge        string
	Incarnation uint64
	ID          uint64
}

// Edge names one edge process. A restarted edge is a new incarnation.
type Edge struct {
	Name        string
	Incarnation uint64
}

// Holder is the edge that holds the conn.
func (c Conn) Holder() Edge { return Edge{c.Edge, c.Incarnation} }

// Version orders what a user shows. Term is the shard's; Number comes from the shard's counter.
type Version struct {
	Term   uint64
	Number uint64
}

// Less reports whether v is older than w.
func (v Version) Less(w Version) bool {
	return v.Term < w.Term || v.Term == w.Term && v.Number < w.Number
}

// View is what a user shows to those who may see the fields in a mask. Views are
// immutable after they left the core; the zero View is offline with nothing to show.
type View struct {
	State    State
	Reason   Reason // with Offline
	Bucket   Bucket // only in masked views, in place of LastSeen
	Text     string
	Emoji    string
	Activity string      // JSON
	Devices  []DeviceRow // by class, the last active first
	LastSeen time.Time   // with Offline; exact here, Masked rounds it
	Since    time.Time   // when State began
}

// DeviceRow is the best state among the devices of one class.
type DeviceRow struct {
	Class Class
	State State
}

// Watcher is who wants to see, with the fields it hides from everyone itself
// (reciprocity). The zero Watcher is a stranger.
type Watcher struct {
	User   string
	Hidden Mask
}

// Code says how an input ended. The numbers are those of the link's schema.
type Code uint8

const (
	OK           Code = 0
	BadRequest   Code = 1
	Limit        Code = 2 // a bound was reached; the message names it
	DeviceLimit  Code = 3
	RevokedToken Code = 4
	NotFound     Code = 5
	StaleAttempt Code = 9  // a newer socket of the session is attached
	NotAttached  Code = 10 // the conn is not the session's current one
	OutboxFull   Code = 12
	IDExpired    Code = 13 // the client id is older than the dedupe window, or too far ahead
	IDReused     Code = 14 // the client id came with another body
	Blocked      Code = 15 // by the one who is refused
)

// Close codes of the conns that a user's activation orders closed.
const (
	CloseRevoked     = 4505 // kicked or revoked
	CloseDeviceLimit = 4506
	CloseReplaced    = 4510 // a newer conn of the same device took over
)
