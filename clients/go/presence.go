package muster

import (
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"muster/clients/wire"
)

// State is what is seen of a user.
type State string

const (
	Online    State = "online"
	Away      State = "away"
	DND       State = "dnd" // do not disturb
	Offline   State = "offline"
	Invisible State = "invisible" // only of oneself
	Unknown   State = "unknown"   // not known (yet), or not watched
)

// Present reports whether the user is there at all: online, away or dnd.
func (s State) Present() bool { return s == Online || s == Away || s == DND }

// Version orders the views of one user: term first, then number.
type Version struct{ Term, Number uint64 }

// Newer reports whether v comes after w.
func (v Version) Newer(w Version) bool {
	return v.Term > w.Term || v.Term == w.Term && v.Number > w.Number
}

// Device is the best state among the user's devices of one class.
type Device struct {
	Class string // desktop, mobile, web, tv, bot
	State State
}

// Presence is one user as this client may see it. Zero fields are not known or not shown.
type Presence struct {
	User  string
	State State
	// Stale: this was true once, and cannot be vouched for now (as of AsOf, if that is set).
	Stale    bool
	AsOf     time.Time
	Version  Version
	Since    time.Time // of the state
	LastSeen time.Time // rounded down to a minute
	// LastSeenBucket stands for LastSeen when only that may be seen: recently, week, month, long_ago.
	LastSeenBucket string
	Text           string
	Emoji          string
	Activity       json.RawMessage
	Devices        []Device // the last active first
	Reason         string   // why offline: explicit, timeout, kicked, node_lost, expired
}

func (p Presence) equal(q Presence) bool { return reflect.DeepEqual(p, q) }

func unknown(user string) Presence { return Presence{User: user, State: Unknown} }

func presence(p *wire.Presence) Presence {
	q := Presence{
		User: p.GetUser(), State: state(p.GetState()), Stale: p.GetStale(), AsOf: instant(p.GetAsOfAt()),
		Version: version(p.GetVer()), Since: instant(p.GetSinceAt()), LastSeen: instant(p.GetLastSeenAt()),
		LastSeenBucket: p.GetLastSeen().Name(), Text: p.GetText(), Emoji: p.GetEmoji(), Reason: p.GetReason().Name(),
	}
	if p.GetActivity() != "" {
		q.Activity = json.RawMessage(p.GetActivity())
	}
	for _, d := range p.GetDevices() {
		q.Devices = append(q.Devices, Device{Class: d.GetClass().Name(), State: state(d.GetState())})
	}
	return q
}

func state(s wire.State) State {
	if name := s.Name(); name != "" {
		return State(name)
	}
	return Unknown
}

func version(v []uint64) Version {
	if len(v) != 2 {
		return Version{}
	}
	return Version{Term: v[0], Number: v[1]}
}

// Kind says what a change is, seen from what the reader had before.
type Kind string

const (
	Enter  Kind = "enter"  // was not there, is there
	Update Kind = "update" // anything else that changed
	Leave  Kind = "leave"  // was there, is offline
)

// Change is one step of the view.
type Change struct {
	Kind     Kind
	User     string
	Presence Presence
	Before   Presence // Unknown the first time
}

// Session is what connect gave.
type Session struct {
	ID      string
	User    string
	Node    string
	Resumed bool      // the earlier session went on
	Expires time.Time // of the token; zero if never
}

// Claim is one source of the user's status.
type Claim struct {
	ID       string
	Source   string // manual, call, calendar, game, api
	State    State
	Text     string
	Emoji    string
	Activity any  // encoded as JSON, at most 2 KiB; a json.RawMessage as it is
	Priority *int // 0 to 100; nil: the source's
	TTL      time.Duration
}

func (c Claim) message() (*wire.Claim, error) {
	m := &wire.Claim{
		Id: c.ID, Source: c.Source, State: string(c.State), Text: c.Text, Emoji: c.Emoji,
		TtlMs: uint64(max(c.TTL, 0).Milliseconds()),
	}
	if c.Priority != nil {
		p := uint32(max(*c.Priority, 0))
		m.Priority = &p
	}
	var err error
	m.Activity, err = rawJSON(c.Activity)
	return m, err
}

func claim(c *wire.Claim) Claim {
	d := Claim{
		ID: c.GetId(), Source: c.GetSource(), State: State(c.GetState()), Text: c.GetText(), Emoji: c.GetEmoji(),
		TTL: millis(c.GetTtlMs()),
	}
	if c.GetActivity() != "" {
		d.Activity = json.RawMessage(c.GetActivity())
	}
	if c.Priority != nil {
		p := int(*c.Priority)
		d.Priority = &p
	}
	return d
}

func rawJSON(v any) (string, error) {
	if v == nil {
		return "", nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// Rule says who may see a field: everyone, contacts, contacts_except, only or nobody.
type Rule struct {
	Rule  string
	Users []string // for contacts_except and only
}

// Grant shows fields to one user for a while.
type Grant struct {
	To     string
	Fields []string
	TTL    time.Duration
}

// Audience holds the rules of the fields that are not nil.
type Audience struct {
	State, LastSeen, Status, Devices, Activity, Typing, Receipts *Rule
	Grants                                                       []Grant
}

func (a Audience) message() *wire.Audience {
	rule := func(r *Rule) *wire.Rule {
		if r == nil {
			return nil
		}
		return &wire.Rule{Rule: r.Rule, Users: r.Users}
	}
	m := &wire.Audience{
		State: rule(a.State), LastSeen: rule(a.LastSeen), Status: rule(a.Status), Devices: rule(a.Devices),
		Activity: rule(a.Activity), Typing: rule(a.Typing), Receipts: rule(a.Receipts),
	}
	for _, g := range a.Grants {
		m.Grant = append(m.Grant, &wire.Grant{To: g.To, Fields: g.Fields, TtlMs: uint64(max(g.TTL, 0).Milliseconds())})
	}
	return m
}

func audience(m *wire.Audience) Audience {
	rule := func(r *wire.Rule) *Rule {
		if r == nil {
			return nil
		}
		return &Rule{Rule: r.GetRule(), Users: slices.Clone(r.GetUsers())}
	}
	a := Audience{
		State: rule(m.GetState()), LastSeen: rule(m.GetLastSeen()), Status: rule(m.GetStatus()), Devices: rule(m.GetDevices()),
		Activity: rule(m.GetActivity()), Typing: rule(m.GetTyping()), Receipts: rule(m.GetReceipts()),
	}
	for _, g := range m.GetGrant() {
		a.Grants = append(a.Grants, Grant{To: g.GetTo(), Fields: g.GetFields(), TTL: millis(g.GetTtlMs())})
	}
	return a
}

// Self is the user's own state, with what others do not see.
type Self struct {
	Presence  Presence
	Invisible bool
	Claims    []Claim
	Audience  Audience
}

func self(m *wire.Self) Self {
	s := Self{Presence: presence(m.GetPresence()), Invisible: m.GetInvisible(), Audience: audience(m.GetAudience())}
	for _, c := range m.GetClaims() {
		s.Claims = append(s.Claims, claim(c))
	}
	return s
}

// Typing tells that a user composes something for this user or for a room.
type Typing struct {
	User string
	Room string        // "" if meant for this user
	Kind string        // text, audio, video
	Stop bool          // it ended
	TTL  time.Duration // shown so long unless renewed
}
