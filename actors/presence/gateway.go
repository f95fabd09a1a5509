package presence

import (
	"sync"
	"time"
)

// Gateway is the presence part of one open shard. It is not safe for concurrent use.
type Gateway struct{ term uint64 }

// Names interns user ids for the rows of all gateways of a node: a watcher's id is
// stored once, whatever it watches. It is safe for concurrent use.
type Names struct{ mu sync.Mutex }

// NewNames returns an empty table.
func NewNames() *Names { return &Names{} }

// NewGateway opens a shard.
func NewGateway(cfg *Config, names *Names, open Open) *Gateway { return &Gateway{term: open.Term} }

// Step applies one input at time now and returns what its caller must do. It never
// blocks, and equal inputs give equal effects.
func (g *Gateway) Step(now time.Time, in GatewayInput) (out Effects) { return out }

// Deadline is the earliest time at which Step must be called with Tick.
func (g *Gateway) Deadline() (at time.Time, ok bool) { return at, false }

// Close gives back the interned names; the Gateway must not be used afterwards.
func (g *Gateway) Close() {}

// Term is the shard's.
func (g *Gateway) Term() uint64 { return g.term }

// Version is the counter of visible changes.
func (g *Gateway) Version() uint64 { return 0 }

// Settling reports that edges are still expected to announce.
func (g *Gateway) Settling() bool { return false }

// LastSeen is what is known of a user without an activation, for NewUser.
func (g *Gateway) LastSeen(k Key) time.Time { return time.Time{} }

// Online returns up to limit users of app who are not offline, in id order, whose id
// begins with prefix and is greater than after. Views are exact.
func (g *Gateway) Online(app, prefix, after string, limit int) []Row { return nil }

// Counts are the totals of a shard.
type Counts struct {
	Online, Away, DND uint64 // users by what others see at best
	Sessions          uint64 // with a live conn
	Detached          uint64 // in grace
	Rows              uint64 // watches: (edge, watcher, watched)
	Watched           uint64 // users with rows
	Pending           uint64 // users nobody can answer for yet
	Presumed          uint64
	Storm             bool // the storm guard holds offline events back
}

// Counts returns the totals; of one application (users by state only) if app is not
// empty.
func (g *Gateway) Counts(app string) Counts { return Counts{} }

// Load returns the shard's part of the storm guard's counts: live sessions and sessions
// lost within 5 s. Node sums them over its gateways and sends Cluster.
func (g *Gateway) Load(now time.Time) (sessions, lost uint64) { return 0, 0 }

// Hides says which rule decides what the watcher sees of each field of a user.
func (g *Gateway) Hides(k Key, w Watcher) []Verdict { return nil }

// Verdict is the decision about one field.
type Verdict struct {
	Field string `json:"field"`
	Seen  bool   `json:"seen"`
	Why   string `json:"why"` // "rule contacts: not a contact", "blocked", "grant" …
}
