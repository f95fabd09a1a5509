package chaos

import (
	"fmt"
	"time"
)

// send is one durable message to a user.
type send struct {
	id, user, body string
	call, back     time.Duration // back: of the answer
	acked          bool
	offset         uint64 // that the sender was told; 0: none
}

// device reads a user's outbox from its first entry on.
type device struct{ user, name string }

// step is what a device was given: an entry, a gap or a reset.
type step struct {
	device
	epoch    string
	at       time.Duration
	from, to uint64 // offsets; equal for an entry
	id, body string // of an entry
	reason   string // of a gap
	reset    bool
}

func (s step) entry() bool { return !s.reset && s.reason == "" }

// statusOp is one write or read of a user's status text.
type statusOp struct {
	user       string
	write      bool
	value      string
	call, back time.Duration
	unknown    bool // a write without an answer
	fresh      bool // a read that was asked to be linearizable
}

// acknowledged is one line of a server's audit file.
type acknowledged struct {
	Shard    uint32 `json:"shard"`
	Term     uint64 `json:"term"`
	Index    uint64 `json:"index"`
	ClientID string `json:"client_id"`
	Node     string `json:"node"`
	At       int64  `json:"at"` // Unix ns
}

// seen is one view of a user that came over one socket of a watcher.
type seen struct {
	watcher, user string
	socket        int
	over          string // the server that it came over
	at            time.Duration
	term, number  uint64
	state         string
	stale         bool
}

// presentSpan is a time during which a user's only client was connected.
type presentSpan struct {
	user, node string // node: the server it was connected to
	from, to   time.Duration
}

// expected is how a watcher must see a user in the end.
type expected struct {
	watcher, user string
	present       bool
	text          string
}

// viewed is how a watcher does see a user.
type viewed struct {
	present, stale bool
	state, text    string
	over           string // which version, over which server
}

// probe is one attempt to write to a shard.
type probe struct {
	shard      uint32
	call, back time.Duration
	ok         bool
}

// sample is what one process used at one quiet moment.
type sample struct {
	Node       string        `json:"node"`
	PID        int           `json:"pid"`
	At         time.Duration `json:"at"`
	RSS        float64       `json:"rss"`
	Files      float64       `json:"files"` // without clients' sockets
	Goroutines float64       `json:"goroutines"`
	Ahead      float64       `json:"resume_ahead"` // devices that had read what is lost
	Panics     float64       `json:"panics"`
}

// maxDetails bounds how many violations of one kind are told in full.
const maxDetails = 20

// verdict is what one checker says.
type verdict struct {
	Checker    string   `json:"checker"`
	Examined   int      `json:"examined"`
	Of         string   `json:"of"` // what was examined
	Violations []string `json:"violations,omitempty"`
	More       int      `json:"more,omitempty"` // violations not told in full
	Note       string   `json:"note,omitempty"`
}

func (v *verdict) fail(format string, args ...any) {
	if len(v.Violations) == maxDetails {
		v.More++
		return
	}
	v.Violations = append(v.Violations, fmt.Sprintf(format, args...))
}

// done is red when there was nothing to examine.
func (v *verdict) done() verdict {
	if v.Examined == 0 {
		v.fail("nothing was examined: there were no %s", v.Of)
	}
	return *v
}

// faultSpan is a fault on the report's timeline.
type faultSpan struct {
	Fault fault         `json:"fault"`
	Nodes []string      `json:"nodes"`
	From  time.Duration `json:"from"`
	To    time.Duration `json:"to"`    // healed
	Whole time.Duration `json:"whole"` // all servers ready, all replicas there
}
