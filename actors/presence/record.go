package presence

import "time"

// Record is a durable change of one user.
type Record interface{ record() }

// HeldClaim is a claim that belongs to the user, with its end (zero: none) and order.
type HeldClaim struct {
	Claim Claim
	Until time.Time
	At    time.Time
}

// Records. Each replaces the record of the same kind (and id): Restore folds them.
type (
	// ClaimSet is a durable claim; ClaimEnded removes it.
	ClaimSet   struct{ HeldClaim }
	ClaimEnded struct{ ID string }
	// InvisibleSet is the invisible flag with what the user shows meanwhile.
	InvisibleSet struct {
		On       bool
		LastSeen time.Time
		Claims   []HeldClaim // durable ones as others may still see them
	}
	// RulesSet holds the user's rules and grants.
	RulesSet struct {
		Rules  []FieldRule
		Grants []HeldGrant
	}
	// RelationSet is the relation to one user. With the zero Relation the row goes.
	RelationSet struct {
		Other    string
		Relation Relation
		Asked    uint64 // serial of the user's last request
		Heard    uint64 // serial of the other's last request
	}
	// Revocations holds the cut and the revoked tokens.
	Revocations struct {
		Before int64
		Tokens []RevokedJTI
	}
	// Marker is lazy: it is written with the next group commit and opens no gate.
	Marker struct {
		Online        bool
		LastSeen      time.Time // last active, as others may know it
		LastConnected time.Time
		Since         time.Time // of the state with which the transition began
		Reason        Reason
	}
)

// Records of the outbox.
type (
	// OutboxSet is the stream. Entries up to Trimmed are gone, whether or not their
	// rows still are there. A new entry does not write it: the head is the last entry's
	// offset if that is higher. Nor is it firm where only acks have dropped entries.
	OutboxSet struct {
		Epoch   uint64
		Head    uint64 // the last offset given
		Trimmed uint64
		Gaps    []Gap // why offsets are gone, ascending, at most 64; the rest: GapAcked
		Lazy    bool
	}
	// EntryPut is a new entry. Body is empty when given to Restore: the core does not read
	// it. If it has hours, it stands for a SenderSet of its sender.
	EntryPut struct {
		Entry   Entry
		Body    string
		Floor   ID
		Hours   []HourCount
		Indexed bool // the user's row in the expiry index is there: another entry wakes the user at that time
	}
	// EntriesDropped removes the entries of a range, both ends included. With GapAcked
	// it is lazy.
	EntriesDropped struct {
		From, To uint64
		Reason   GapReason
	}
	// DedupeSet remembers a client id for 25 hours from the hour in the id. Restore does
	// not take it: the shell looks it up (Publish.Known).
	DedupeSet struct {
		Sender        string
		ID            ID
		Epoch, Offset uint64
		At            time.Time
		Digest        uint64
	}
	// DedupeGone removes one before its time.
	DedupeGone struct {
		Sender string
		ID     ID
	}
	// SenderSet counts the dedupe rows of a sender by the hour of their ids (Unix
	// hours, ascending). Unknown ids up to Floor are expired. Entries up to Offset say
	// nothing newer. Without hours the row goes. It is written when the last entry of the
	// sender goes, firm unless that was acked, and for what a blocked sender sends.
	SenderSet struct {
		Sender string
		Floor  ID
		Hours  []HourCount
		Offset uint64
		Lazy   bool
	}
	// DeviceSet is a registered device, with where it began to read.
	DeviceSet struct {
		Device          string
		Provider, Token string
		Epoch, Offset   uint64
		Seen            uint32 // Unix day
	}
	// DeviceGone ends a registration, and its CursorSet.
	DeviceGone struct{ Device string }
	// CursorSet is lazy: what a registered device has acked. It counts if the epoch is
	// the stream's.
	CursorSet struct {
		Device        string
		Epoch, Offset uint64
		Seen          uint32 // Unix day
	}
)

// HourCount is a count for one hour.
type HourCount struct {
	Hour uint32 // Unix hours
	Rows uint16
}

// Other records.
type (
	// NotifySet is somebody who waits for the user to come online; NotifyEnded removes it.
	NotifySet struct {
		Asker  string
		Until  time.Time
		Hidden Mask
	}
	NotifyEnded struct{ Asker string }
	// TransferOut is for the user To. The shell keeps it until the receiver has
	// answered. Restore does not take it.
	TransferOut struct {
		To   string
		What Transferred
	}
	// TransferTaken remembers a transfer that was received. Restore does not take it.
	TransferTaken struct {
		Source          uint32
		Generation, Seq uint64
	}
	// Event is a row of the event stream, with Config.Events only. It is lazy but for
	// outbox.expired. JSON is its data.
	Event struct {
		Type string // user.online, user.offline, user.state or outbox.expired
		At   time.Time
		JSON string
	}
	// Erased removes all rows of the user, also lazy ones that wait to be written, but
	// for client ids, which end with their hour. The transfers of the same step, which
	// follow it, are not the user's.
	Erased struct{}
)

// Lazy reports that a record opens no gate: it may be lost in a crash, together with all
// later lazy ones of the user. It is written before the records of any later step that are not lazy.
func Lazy(r Record) bool {
	switch r := r.(type) {
	case Marker, CursorSet:
		return true
	case EntriesDropped:
		return r.Reason == GapAcked
	case OutboxSet:
		return r.Lazy
	case SenderSet:
		return r.Lazy
	case Event:
		return r.Type != EventExpired
	}
	return false
}

// EventExpired is the type of the event that tells of entries whose ttl has ended.
const EventExpired = "outbox.expired"

// HeldGrant is a grant with its end.
type HeldGrant struct {
	To     string
	Fields Mask
	Until  time.Time
}

// RevokedJTI is a revoked token, forgotten at Until (Unix seconds).
type RevokedJTI struct {
	JTI   string
	Until int64
}

func (ClaimSet) record()     {}
func (ClaimEnded) record()   {}
func (InvisibleSet) record() {}
func (RulesSet) record()     {}
func (Revocations) record()  {}
func (Marker) record()       {}

func (OutboxSet) record()      {}
func (EntryPut) record()       {}
func (EntriesDropped) record() {}
func (DedupeSet) record()      {}
func (DedupeGone) record()     {}
func (SenderSet) record()      {}
func (DeviceSet) record()      {}
func (DeviceGone) record()     {}
func (CursorSet) record()      {}
func (NotifySet) record()      {}
func (NotifyEnded) record()    {}
func (TransferOut) record()    {}
func (TransferTaken) record()  {}
func (Event) record()          {}
func (Erased) record()         {}
func (RelationSet) record()    {}
