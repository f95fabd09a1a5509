package presence

import "time"

// User is the activation of one user. It is not safe for concurrent use. The zero User
// is not valid; use NewUser.
type User struct {
	cfg      *Config
	sessions []session
	more     *extra // nil for a user with defaults only
	view     *View  // as last published, never nil
	log      []entryLog
	active   int64 // last user input, Unix ms
	last     int64 // last seen as others may know it, Unix ms; 0: never
	gone     int64 // last connected, Unix ms
	seen     uint32
}

type session struct{}
type extra struct{}
type entryLog struct{}

// NewUser returns an activation without sessions. lastSeen is what is known of it from
// before (zero: nothing); see Gateway.LastSeen.
func NewUser(cfg *Config, lastSeen time.Time) *User {
	return &User{cfg: cfg, view: &View{LastSeen: lastSeen}}
}

// Restore folds records, in the order they were made, into a fresh activation.
func (u *User) Restore(records ...Record) {}

// Step applies one input at time now and returns what its caller must do.
//
// The caller must, in this order: make out.Records durable, deliver out.Sends, answer
// with out.Reply. If persisting fails it must drop the activation and send nothing.
// Step never blocks, and equal inputs give equal outputs.
func (u *User) Step(now time.Time, in Input) (out Output) { return out }

// Deadline is the earliest time at which Step must be called with Tick even if no other
// input arrives; false when nothing is pending.
func (u *User) Deadline() (at time.Time, ok bool) { return at, false }

// Seen counts the inputs handled, without Ticks.
func (u *User) Seen() uint32 { return u.seen }

// Idle reports that the activation may passivate: no session, live, in grace or
// resumable, nothing that a durable record would hold, nothing pending.
func (u *User) Idle() bool { return len(u.sessions) == 0 }

// Explain returns the whole state, for people.
func (u *User) Explain() Explanation { return Explanation{} }

// Explanation is the state of one user in words.
type Explanation struct {
	State       string             `json:"state"` // what others see at best
	Since       time.Time          `json:"since"`
	Invisible   bool               `json:"invisible"`
	LastActive  time.Time          `json:"last_active"`
	LastSeen    time.Time          `json:"last_seen"`
	Sessions    []SessionExplained `json:"sessions"`
	Claims      []ClaimExplained   `json:"claims"`
	Rules       []string           `json:"rules"` // "last_seen: contacts"
	Deadline    time.Time          `json:"deadline"`
	Transitions []Transition       `json:"transitions"` // the last 64, oldest first
}

// SessionExplained is one session.
type SessionExplained struct {
	Session    string    `json:"session"`
	Device     string    `json:"device"`
	Class      string    `json:"class"`
	Client     string    `json:"client"`
	Edge       string    `json:"edge"`
	Conn       uint64    `json:"conn"`
	Attempt    uint64    `json:"attempt"`
	Phase      string    `json:"phase"` // live, grace, resumable, presumed
	Away       bool      `json:"away"`
	LastActive time.Time `json:"last_active"`
	Cause      string    `json:"cause"` // of the detach
	DetachedAt time.Time `json:"detached_at"`
	GraceEnd   time.Time `json:"grace_end"`
	ResumeEnd  time.Time `json:"resume_end"`
}

// ClaimExplained is one claim; the winner comes first.
type ClaimExplained struct {
	ID       string    `json:"id"`
	Source   string    `json:"source"`
	State    string    `json:"state"`
	Priority int       `json:"priority"`
	Session  string    `json:"session"` // empty: the user's
	Until    time.Time `json:"until"`
}

// Transition is one event in the life of a user.
type Transition struct {
	At    time.Time `json:"at"`
	What  string    `json:"what"`
	Cause string    `json:"cause"`
	From  string    `json:"from"` // state as others see it at best
	To    string    `json:"to"`
}
