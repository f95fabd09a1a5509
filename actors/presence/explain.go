package presence

import (
	"slices"
	"time"
)

// logSize is how many transitions a user remembers.
const logSize = 64

type logEntry struct {
	at    int64 // Unix ms
	what  event
	cause Cause
	from  State
	to    State
}

type event uint8

const (
	didAttach event = iota
	didResume
	didTakeOver
	didReplace
	didAdopt
	didDetach
	didOffline
	didForget
	didEnd
	didPresume
	didClaim
	didExpireClaim
	didHide
	didReveal
	didRules
	didTakeHand
)

var (
	eventNames = [...]string{"attach", "resume", "takeover", "replace", "adopt", "detach", "grace over", "forget", "end",
		"presume", "claim", "claim expired", "invisible", "visible again", "rules", "handed over"}
	stateNames = [...]string{"offline", "away", "dnd", "online"}
	classNames = [...]string{"", "desktop", "mobile", "web", "tv", "bot"}
	causeNames = [...]string{"", "bye", "gone", "silence", "drain", "kicked", "revoked", "node_lost", "replaced", "expired"}
	phaseNames = [...]string{"live", "grace", "resumable"}
	ruleNames  = [...]string{"everyone", "contacts", "contacts_except", "only", "nobody"}
	fieldNames = [fields]string{"state", "last_seen", "status", "devices", "activity", "typing", "receipts"}
)

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "?"
}

// String returns the state's name on the wire.
func (s State) String() string { return name(stateNames[:], int(s)) }

// String returns the class's name on the wire.
func (c Class) String() string { return name(classNames[:], int(c)) }

// String returns the cause in one word; NoCause is empty.
func (c Cause) String() string { return name(causeNames[:], int(c)) }

// String returns the rule's name on the wire.
func (r Rule) String() string { return name(ruleNames[:], int(r)) }

// note logs an event of this step.
func (u *User) note(now int64, what event, cause Cause) {
	if len(u.log) == logSize {
		u.log = slices.Delete(u.log, 0, 1)
	}
	u.log = append(u.log, logEntry{at: now, what: what, cause: cause})
	u.logged = min(u.logged+1, logSize)
}

// stamp gives the events of this step the states around it.
func (u *User) stamp(from, to State) {
	for i := len(u.log) - int(u.logged); i < len(u.log); i++ {
		u.log[i].from, u.log[i].to = from, to
	}
}

// Explanation is the state of one user in words.
type Explanation struct {
	State       string             `json:"state"` // what others see at best
	Since       time.Time          `json:"since,omitzero"`
	Invisible   bool               `json:"invisible"`
	LastActive  time.Time          `json:"last_active,omitzero"`
	LastSeen    time.Time          `json:"last_seen,omitzero"` // as others may know it
	Sessions    []SessionExplained `json:"sessions"`
	Claims      []ClaimExplained   `json:"claims"`
	Rules       map[string]string  `json:"rules"`
	Contacts    int                `json:"contacts"`
	Blocked     int                `json:"blocked"`
	BlockedBy   int                `json:"blocked_by"`
	Deadline    time.Time          `json:"deadline,omitzero"` // the next timer
	Transitions []Transition       `json:"transitions"`       // the last 64, oldest first
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
	Phase      string    `json:"phase"` // live, grace, resumable or presumed
	Away       bool      `json:"away"`
	LastActive time.Time `json:"last_active,omitzero"` // to the minute
	Cause      string    `json:"cause,omitempty"`      // of the detach
	DetachedAt time.Time `json:"detached_at,omitzero"`
	GraceEnd   time.Time `json:"grace_end,omitzero"`
	ResumeEnd  time.Time `json:"resume_end,omitzero"`
}

// ClaimExplained is one claim; the winner comes first.
type ClaimExplained struct {
	ID       string    `json:"id"`
	Source   string    `json:"source"`
	State    string    `json:"state"` // offline: says nothing about the state
	Priority int       `json:"priority"`
	Session  string    `json:"session,omitempty"` // empty: the user's
	Until    time.Time `json:"until,omitzero"`
}

// Transition is one event in the life of a user.
type Transition struct {
	At    time.Time `json:"at"`
	What  string    `json:"what"`
	Cause string    `json:"cause,omitempty"`
	From  string    `json:"from"` // state as others see it at best
	To    string    `json:"to"`
}

// Explain returns the whole state, for people.
func (u *User) Explain() Explanation {
	x := Explanation{
		State: u.view.State.String(), Since: u.view.Since, Invisible: u.covered() != nil,
		LastActive: instant(u.active), LastSeen: instant(u.last), Rules: map[string]string{},
		Sessions: []SessionExplained{}, Claims: []ClaimExplained{}, Transitions: []Transition{},
	}
	x.Deadline, _ = u.Deadline()
	for i := range u.sessions {
		x.Sessions = append(x.Sessions, u.explainSession(&u.sessions[i]))
	}
	claims := slices.Clone(u.claims())
	slices.Reverse(claims)
	slices.SortStableFunc(claims, func(a, b claim) int { return b.Priority - a.Priority })
	for _, c := range claims {
		x.Claims = append(x.Claims, ClaimExplained{c.ID, c.Source, c.State.String(), c.Priority, c.session, instant(c.until)})
	}
	a := u.audience()
	for i, r := range a.rules {
		x.Rules[fieldNames[i]] = r.Rule.String()
	}
	x.Contacts, x.Blocked, x.BlockedBy = a.relations.count(relationContact), a.relations.count(RelationBlocked), a.relations.count(RelationBlockedBy)
	for _, e := range u.log {
		x.Transitions = append(x.Transitions, Transition{
			instant(e.at), name(eventNames[:], int(e.what)), e.cause.String(), e.from.String(), e.to.String(),
		})
	}
	return x
}

func (u *User) explainSession(s *session) SessionExplained {
	x := SessionExplained{
		Session: s.id, Device: s.device, Class: s.class.String(), Client: s.client, Edge: s.conn.Edge, Conn: s.conn.ID,
		Attempt: s.attempt, Phase: phaseNames[s.phase()], Away: s.flags&flagAway != 0,
		LastActive: instant(int64(s.minute) * 60000), Cause: s.cause.String(),
	}
	if s.off != 0 {
		x.DetachedAt, x.GraceEnd, x.ResumeEnd = instant(s.off), instant(s.end), instant(s.resumeEnd(u.cfg))
	}
	if s.id == "" {
		x.Phase = "presumed"
	}
	return x
}
