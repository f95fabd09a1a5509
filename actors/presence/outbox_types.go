package presence

import "time"

// ID is a client id: a UUIDv7 or ULID, which both begin with a time.
type ID [16]byte

// Time is when the id was made.
func (id ID) Time() time.Time {
	var ms int64
	for _, b := range id[:6] {
		ms = ms<<8 | int64(b)
	}
	return time.UnixMilli(ms).UTC()
}

// Position is how far a device has read: every entry of the epoch up to Offset. Epoch 0:
// it has read nothing yet.
type Position struct{ Epoch, Offset uint64 }

// Urgency is the class of an outbox entry. The core only carries it.
type Urgency uint8

const (
	Normal Urgency = iota
	Critical
	LowUrgency // "presence" on the wire
	urgencies
)

// EntryType says what an outbox entry is.
type EntryType uint8

const (
	MessageEntry EntryType = iota
	NotifyEntry            // the answer to NotifyWhen: body is {"user","state"}
	entryTypes
)

// GapReason says why offsets are not delivered.
type GapReason uint8

const (
	GapAcked     GapReason = iota // by all devices that were registered, or by the first
	GapExpired                    // ttl
	GapCollapsed                  // replaced by a newer entry with its collapse key
	GapOverflow                   // the bound was reached and another device had acked it
	GapPurged
	gapReasons
)

// Gap is a range of offsets, both ends included, that will not be delivered.
type Gap struct {
	From, To uint64
	Reason   GapReason
}

// Entry is one message to a user, as stored.
type Entry struct {
	Offset    uint64
	Type      EntryType
	Class     Urgency
	AnyDevice bool // the first ack is enough
	At, Until time.Time
	Sender    string // user id; "": the application
	ClientID  string // as the client wrote it
	Collapse  string // at most 64 bytes
	Size      int    // of Body, bytes
}

// Wakes is when the entry's user is woken at the latest to drop it: its end, rounded up to a minute, or to
// an hour if it lives for a day or longer, so that entries share a row of the expiry index.
func (e *Entry) Wakes() time.Time {
	grain := time.Minute
	if e.Until.Sub(e.At) >= 24*time.Hour {
		grain = time.Hour
	}
	return instant(ceil(e.Until.UnixMilli(), grain.Milliseconds()))
}

func ceil(n, grain int64) int64 { return (n + grain - 1) / grain * grain }

// Published is where a publish ended up. Epoch and Offset are zero if the sender is a
// user: a blocked sender gets the same answer.
type Published struct {
	Epoch, Offset uint64
	At            time.Time
	Duplicate     bool // the id was known
}

// Known is what a shell found of a client id: the fields of DedupeSet.
type Known struct {
	Epoch, Offset uint64
	At            time.Time
	Digest        uint64
}

// Delivery is a part of an outbox for one conn that reads it. The shell reads the rows
// From to To when its gate has released the step. Rows of the range that are gone by then
// were dropped by a later step: it says a gap in their place (User.Gone knows the reason).
// Deliveries of one conn are in order, each begins after what the one before ended with;
// a redelivery begins earlier, and the client drops what it has. What does not follow what
// a conn has got (a part was lost with a link), or is of another epoch without Reset, is
// dropped as well: it comes again after the edge's announcement.
type Delivery struct {
	Conn     Conn
	Epoch    uint64 // 0: there is no outbox yet
	Head     uint64 // last offset given so far
	From, To uint64 // To 0: no entries
	Gap      *Gap   // comes before From
	Reset    bool   // the position was of another epoch, of a device not registered any more, or ahead
	Ahead    bool   // with Reset: the position lay behind the head; acknowledged data was lost
}
