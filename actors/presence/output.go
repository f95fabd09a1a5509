package presence

import "time"

// Output is what the caller of User.Step must do, in this order: make Records durable,
// deliver Sends, answer with Reply; Publish goes to the Gateway (Stepped).
type Output struct {
	Records  []Record
	Publish  *Shown // nil if nothing changed
	Sends    []CloseConn
	Deliver  []Delivery    // after Reply
	Contacts []RelationRow // changed, sorted; to the edges with conns of the user (Publish.Edges, never nil then)
	Reply    Reply
}

// Reply answers the input. Code OK or why not; Message is for humans. Session to Outbox are set
// for an accepted Attach, Published for Publish, Relation for Contact.
type Reply struct {
	Code    Code
	Message string
	Session string
	Resumed bool // the session continued
	Hidden  Mask // reciprocity: fields that the user hides from everyone
	Self    *Self
	Outbox  *Delivery // if Attach named a position; more may follow in Output.Deliver

	Published *Published
	Relation  *RelationRow
}

// CloseConn orders an edge to close a conn. The edge must answer with Detach (Kicked), as
// after a refused Attach: an announcement that still names the conn may have crossed it.
type CloseConn struct {
	Conn   Conn
	Code   uint32 // close code
	Reason string
}

// Shown is what a user shows now, complete, for its Gateway. Immutable.
type Shown struct {
	View     *View
	Audience *Audience // nil: the application's
	Presumed bool      // nothing but a presumed session: View is a guess
	Self     *Self     // nil when no conn is live
	Edges    []Edge    // that hold live conns, sorted, each once
	Live     int       // sessions with a conn
	Detached int       // sessions without one, in grace
	Lost     int       // sessions that this step detached without a goodbye
	LostAt   time.Time // when the last session in grace was lost; zero if none is
	Until    time.Time // when View or Audience end by themselves; zero: never
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
