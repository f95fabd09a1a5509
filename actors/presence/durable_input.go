package presence

import "time"

// Publish puts an entry into the user's outbox. Answered by Reply.Published; refused with
// BadRequest, IDExpired, IDReused, OutboxFull or Blocked (the sender blocked the user). A
// sender whom the user blocked is answered as if it were stored.
//
// ID is looked up by the shell, by (sender, id), and Known is what it found; a row whose
// commit is still under way need not be found, the activation remembers it.
type Publish struct {
	Type      EntryType // MessageEntry unless transferred
	Sender    string    // user id; "": the application
	ID        ID
	ClientID  string // as the client wrote it; at most 64 bytes
	Body      string // a JSON value, at most 16 KiB
	Digest    uint64 // of what must not differ under one id
	Class     Urgency
	TTL       time.Duration // 10 s–30 d; 0: Config.OutboxTTL
	Collapse  string        // at most 64 bytes
	AnyDevice bool          // the first ack is enough
	Fresh     uint64        // random, not 0: the epoch if there is no stream yet
	Known     *Known        // nil: the id is not known
	Oldest    ID            // if User.NeedsOldest asked for it; zero: there is none
}

// AckOutbox says how far a device has processed the outbox. An ack of another epoch or of
// a conn that does not read the outbox is ignored.
type AckOutbox struct {
	Session       string
	Conn          Conn
	Epoch, Offset uint64
}

// Contact changes the relation to one user, who must not be the user itself (the caller
// checks). Answered by Reply.Relation; refused with BadRequest, Limit, Blocked (this user
// blocked the other; only for Subscribe and Approve) or NotAttached. What is so already
// succeeds and changes nothing.
type Contact struct {
	Session string // empty: the HTTP API
	Conn    Conn
	User    string
	Action  ContactAction
}

// Import sets relations without asking anybody: both sides must be imported. RelationTo,
// RelationFrom, RelationApproved and RelationBlocked are read; pending requests of those
// it names end. A row without any of them ends the relation. Blocks are only added. Limit
// refuses all of it.
type Import struct {
	Replace bool // what is not named ends, but for blocks
	Rows    []RelationRow
}

// SetGraph replaces who counts as a contact for the audience, as long as the activation
// lives: the answer of an external graph. nil: the user's own contacts again.
type SetGraph struct{ Contacts []string }

// SetDevice registers a device for push, or forgets it: entries do not wait for it then.
// NotFound to forget an unknown one; Limit if 50 are registered and all are in use.
type SetDevice struct {
	Session  string // empty: the HTTP API
	Conn     Conn
	Device   string // empty: the session's
	Provider string // at most 32 bytes
	Token    string // at most 4 KiB; empty: no push
	Forget   bool
}

// NotifyWhen, given to who asks, waits for User to come online (to the asker's eyes) and
// then puts one entry into the asker's outbox. As a transfer to User it carries the
// asker's hidden fields; User is not read then.
type NotifyWhen struct {
	User   string
	TTL    time.Duration // 10 s–30 d; 0: 7 d
	End    bool          // wait no longer
	Hidden Mask          // set by the asker's activation
}

// Received is a transfer from another user, perhaps of another shard. Transfers of one
// user to another are given in the order of their Seq. The shell does not give what has a
// TransferTaken row; what is given twice all the same changes nothing. Reply.Code is the
// outcome; all but OK are final, too.
type Received struct {
	Source     uint32 // shard
	Generation uint64 // of the source shard
	Seq        uint64
	From       string
	At         time.Time
	Fresh      uint64 // as in Publish
	What       Transferred
}

// Purge drops the outbox and begins a new one.
type Purge struct{ Epoch uint64 } // random, not 0

// Erase removes all that is stored of the user and ends its sessions. Others forget it.
type Erase struct{}

// Wake does what Tick does. The Gateway sends it when what it shows of a user without
// activation has ended by itself.
type Wake struct{}

func (Publish) userInput()    {}
func (AckOutbox) userInput()  {}
func (Contact) userInput()    {}
func (Import) userInput()     {}
func (SetGraph) userInput()   {}
func (SetDevice) userInput()  {}
func (NotifyWhen) userInput() {}
func (Received) userInput()   {}
func (Purge) userInput()      {}
func (Erase) userInput()      {}
func (Wake) userInput()       {}
