package presence

import "time"

// Output is what the caller of User.Step must do, in this order: make Records durable,
// deliver Sends, answer with Reply; Publish goes to the Gateway (Stepped).
type Output struct {
	Records []Record
	Publish *Publish // nil if nothing changed
	Sends   []CloseConn
	Reply   Reply
}

// Reply answers the input. Code OK or why not; Message is for humans. The rest is set
// for an accepted Attach.
type Reply struct {
	Code    Code
	Message string
	Session string
	Resumed bool // the session continued
	Hidden  Mask // reciprocity: fields that the user hides from everyone
	Self    *Self
}

// CloseConn orders an edge to close a conn. The edge must answer with Detach (Kicked), as
// after a refused Attach: an announcement that still names the conn may have crossed it.
type CloseConn struct {
	Conn   Conn
	Code   uint32 // close code
	Reason string
}

// Publish is what a user shows now, complete, for its Gateway. Immutable.
type Publish struct {
	View     *View
	Audience *Audience // nil: the application's
	Presumed bool      // nothing but a presumed session: View is a guess
	Self     *Self     // nil when no conn is live
	Edges    []Edge    // that hold live conns, sorted, each once
	Live     int       // sessions with a conn
	Detached int       // sessions without one, in grace
	Lost     int       // sessions that this step detached without a goodbye
	LostAt   time.Time // when the last session in grace was lost; zero if none is
}

// Self is the user's own, exact view.
type Self struct {
	View      View // as if visible to everyone
	Invisible bool
	Claims    []Claim     // all, the winner first; TTL is what is left
	Rules     []FieldRule // all fields, in the order of the bits; nil: the application's
	Grants    []Grant     // TTL is what is left
	Everyone  Mask        // what a stranger may see
	Hidden    Mask        // fields whose rule is Nobody
}

// Record is a durable change of one user. Nothing stores it yet; the shell's order
// "persist, send, reply" already goes through it.
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
	// RelationsSet holds contacts and blocks, sorted.
	RelationsSet struct{ Contacts, Blocked, BlockedBy []string }
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
func (RelationsSet) record() {}
func (Revocations) record()  {}
func (Marker) record()       {}
