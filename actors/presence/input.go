package presence

import "time"

// Input is one message to a User: Attach, Detach, Active, SetClaim, EndClaim,
// SetInvisible, SetAudience, SetRelations, Contact, Import, SetGraph, Publish, AckOutbox,
// SetDevice, NotifyWhen, Received, Purge, Erase, Kick, Revoke, EdgeLost, ExtendGrace,
// Presume, Announced, Wake or Tick.
type Input interface{ userInput() }

// Attach binds a conn to the session of a device: a connect, a resume or a takeover.
// Answered by Reply; refused with BadRequest, DeviceLimit, RevokedToken or StaleAttempt.
type Attach struct {
	Conn     Conn
	Session  string // the session to resume, or the fresh id to use
	Resume   bool   // the client named the session
	Device   string
	Class    Class
	Attempt  uint64 // the highest of a session wins, equal ones by arrival
	Away     bool
	Inactive bool          // the application is in the background
	ActiveAt time.Time     // last user input; zero: now
	Grace    time.Duration // what the client asks for; negative: the server's
	IssuedAt int64         // of the token, Unix seconds; 0: unknown
	JTI      string        // of the token
	Client   string        // free text for Explain
	Claims   []Claim       // the session's own, when announced
	NoRoom   bool          // nothing can be made durable: who would have to be registered does not read
	Outbox   *Position     // the device reads the outbox from after this; nil: it does not
}

// Detach ends a conn. It is ignored (NotAttached) unless it names the session's current
// conn.
type Detach struct {
	Conn     Conn
	Session  string
	Attempt  uint64
	Cause    Cause
	Inactive bool
	Away     bool
	ActiveAt time.Time // zero: as known
}

// Active reports a session's away flag and last user input. Ignored like Detach.
type Active struct {
	Conn     Conn
	Session  string
	Away     bool
	ActiveAt time.Time
}

// Claim is one source's word on what the user does. See SetClaim.
type Claim struct {
	ID       string        // at most 64 bytes; "manual" is what the user set by hand
	Source   string        // manual, call, calendar, game or api; decides the priority
	State    State         // Offline: says nothing about the state
	Text     string        // at most 128 characters
	Emoji    string        // at most 32 bytes
	Activity string        // JSON, at most 2 KiB
	Priority int           // 0–100; negative: the source's
	TTL      time.Duration // 10 s–30 d; 0: none
	Durable  bool          // belongs to the user, not to a session
}

// SetClaim sets or replaces a claim. The winner is the highest priority, then the
// newest; when it ends the next one shows. A claim belongs to the session that set it
// unless it is durable, lasts longer than Config.DurableTTL or Session is empty. The
// manual claim with state Online ends it, or keeps its text only. Refused with
// BadRequest, Limit or NotAttached.
type SetClaim struct {
	Session string // empty: the HTTP API
	Conn    Conn
	Claim   Claim
}

// EndClaim ends a claim by its id; NotFound if there is none.
type EndClaim struct {
	Session string
	Conn    Conn
	ID      string
}

// SetInvisible hides the user from everybody else, or ends that.
type SetInvisible struct {
	Session string
	Conn    Conn
	On      bool
}

// FieldRule is who may see a field. Users is the exception list of ContactsExcept or the
// list of Only.
type FieldRule struct {
	Field Mask // exactly one bit
	Rule  Rule
	Users []string
}

// Grant shows fields to one user for some time, whatever the rules say. TTL 0 ends it.
type Grant struct {
	To     string
	Fields Mask
	TTL    time.Duration // at most Config.MaxGrantTTL
}

// SetAudience replaces the rules of the fields it names and adds grants. BadRequest or
// Limit refuses all of it.
type SetAudience struct {
	Rules  []FieldRule
	Grants []Grant
}

// SetRelations blocks users and ends that. Limit refuses all of it.
type SetRelations struct{ Block, Unblock []string }

// Kick ends sessions at once: of a device, one by its id, or all. NotFound if none.
type Kick struct {
	Device  string
	Session string
	Reason  string // for the client; default "kicked"
	Close   uint32 // default CloseRevoked
}

// Revoke refuses tokens from now on and ends the sessions that came with them. A token
// without iat counts as issued before every cut.
type Revoke struct {
	Before int64  // tokens issued before this Unix second; 0: no cut
	JTI    string // one token
	Until  int64  // forget the jti at this Unix second
}

// EdgeLost says that an edge process died: every session it held is detached.
type EdgeLost struct{ Edge Edge }

// ExtendGrace raises the end of the graces of lost sessions; it never lowers one.
type ExtendGrace struct{ Until time.Time }

// Presume says that the user was online before this activation and that nobody has
// announced it: it counts as online, in grace, until then. Ignored with a live session.
type Presume struct{ Until time.Time }

// Announced is all that an edge holds of this user; it replaces what the edge held.
type Announced struct {
	Edge     Edge
	Sessions []Attach
}

// Tick fires what is due. Nothing else does: an input that arrives before the Tick of a
// deadline that has passed still finds the state as it was.
type Tick struct{}

func (Attach) userInput()       {}
func (Detach) userInput()       {}
func (Active) userInput()       {}
func (SetClaim) userInput()     {}
func (EndClaim) userInput()     {}
func (SetInvisible) userInput() {}
func (SetAudience) userInput()  {}
func (SetRelations) userInput() {}
func (Kick) userInput()         {}
func (Revoke) userInput()       {}
func (EdgeLost) userInput()     {}
func (ExtendGrace) userInput()  {}
func (Presume) userInput()      {}
func (Announced) userInput()    {}
func (Tick) userInput()         {}
