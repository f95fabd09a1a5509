package presence

import "time"

// GatewayInput is one message to a Gateway: Deliver, Stepped, Dropped, Passivate,
// Loaded, Interest, Query, Typing, Announce, EdgeUp, EdgeDown, EdgeDead, EdgeDraining, Cluster or
// Tick.
type GatewayInput interface{ gatewayInput() }

// Deliver routes an input to a user's activation. All inputs except Tick take this way:
// the Gateway counts them and remembers which edge may hold the user.
type Deliver struct {
	Key  Key
	Edge Edge // who sent it; zero: the HTTP API
	In   Input
}

// Stepped reports that a user's activation handled inputs. Seen is User.Seen after the
// step. It must follow every Step of an input that the Gateway sent, and a Tick that
// published.
type Stepped struct {
	Key     Key
	Seen    uint32
	Publish *Shown // nil: nothing changed
}

// Dropped reports that an activation is gone without having been asked: a panic. The
// edges are asked to announce the user again; until then it is presumed online if it was.
type Dropped struct{ Key Key }

// Loaded is what the stored state of a user without activation shows, for an answer that
// is to follow: what NewUser, Restore and a first Tick publish. See Gateway.Known.
type Loaded struct {
	Key     Key
	Publish *Shown // nil: nothing is stored
}

// Passivate asks whether an activation that is Idle and has seen so many inputs may
// stop. The answer is in Output.Stop, or nothing if more inputs are on their way.
type Passivate struct {
	Key  Key
	Seen uint32
}

// Interest adds and removes rows (edge incarnation, watcher, watched). It is answered by
// Views with a row for each added user.
type Interest struct {
	Call    uint64
	Edge    Edge
	App     string
	Watcher Watcher
	Add     []string
	Remove  []string
}

// Query is answered once by Views. An empty watcher sees everything, exactly (the HTTP
// API).
type Query struct {
	Call    uint64
	Edge    Edge
	App     string
	Watcher Watcher
	Users   []string
}

// Typing is shown to one watcher if it has a row with FieldTyping and the typist is not
// offline to others; otherwise nothing happens.
type Typing struct {
	App  string
	User string // who types
	To   string // the watcher
	Kind string
	Stop bool
}

// Announce is a chunk of the complete set that an edge holds of this shard: sessions
// first, then watches. Chunks of one announcement share an ID. What the edge held and
// did not announce is gone when the done flags come. Ignored if Term is not the
// gateway's.
type Announce struct {
	Edge         Edge
	ID           uint64
	Term         uint64
	Sessions     []UserAttach
	SessionsDone bool
	Watches      []Interest // Remove, Call and Edge are not read
	Seen         []Key      // watched users whose last view at the edge was not offline
	Done         bool
	Only         Key // not zero: only this user's sessions are announced again
}

// UserAttach is an announced session.
type UserAttach struct {
	Key    Key
	Attach Attach
}

// EdgeUp starts a link to an edge, new or known. A newer incarnation means that the
// older one is dead; an older one is ignored.
type EdgeUp struct{ Edge Edge }

// EdgeDown says that the link is lost: what the edge held is kept for
// Config.Unreachable and nothing is sent to it.
type EdgeDown struct{ Edge Edge }

// EdgeDead says that the edge process is known to be gone, and older incarnations with it.
type EdgeDead struct{ Edge Edge }

// EdgeDraining says that the edge is going down in good order (or no longer is).
type EdgeDraining struct {
	Edge Edge
	On   bool
}

// Cluster carries the cluster-wide counts of the storm guard, once a second.
type Cluster struct {
	Sessions uint64
	Lost     uint64 // detached without a goodbye within 5 s
}

func (Deliver) gatewayInput()      {}
func (Stepped) gatewayInput()      {}
func (Dropped) gatewayInput()      {}
func (Passivate) gatewayInput()    {}
func (Loaded) gatewayInput()       {}
func (Interest) gatewayInput()     {}
func (Query) gatewayInput()        {}
func (Typing) gatewayInput()       {}
func (Announce) gatewayInput()     {}
func (EdgeUp) gatewayInput()       {}
func (EdgeDown) gatewayInput()     {}
func (EdgeDead) gatewayInput()     {}
func (EdgeDraining) gatewayInput() {}
func (Cluster) gatewayInput()      {}
func (Tick) gatewayInput()         {}

// Effects is what the caller of Gateway.Step must do, each list in its order.
type Effects struct {
	Edges []ToEdge
	Users []ToUser
	Stop  []Key // activations that may stop now
}

// ToEdge is a message to an edge. A message is never changed after it left the core, and
// its views may be shared with other messages.
type ToEdge struct {
	Edge    Edge
	Message Message
}

// ToUser is an input for a user's activation, which is created if there is none
// (LastSeen, at that moment: Gateway.LastSeen).
type ToUser struct {
	Key Key
	In  Input
}

// Message to an edge: *Views, *Change, *Remask, *SelfView, *TypingOut or *AnnounceAgain.
type Message interface{ toEdge() }

// Views answers Interest and Query, and follows an announcement (Call 0).
type Views struct {
	Call    uint64
	App     string
	Watcher string
	Rows    []Row // in the order asked for
}

// Row is what a watcher sees of one user.
type Row struct {
	User    string
	Mask    Mask
	Version uint64
	Pending bool  // nobody knows yet; a Change will follow
	View    *View // nil: offline with nothing to show
}

// MaskedView is what those with the mask see. View is never nil.
type MaskedView struct {
	Mask Mask
	View *View
}

// Change is a visible change of one user: one view per distinct mask among the edge's
// rows whose view changed.
type Change struct {
	App     string
	User    string
	Version uint64
	Views   []MaskedView // by mask
}

// Remask tells new masks of rows together with what they now show.
type Remask struct {
	App      string
	User     string
	Version  uint64
	Watchers []string // sorted
	Masks    []Mask   // of the watchers
	Views    []MaskedView
}

// SelfView is the user's own view; it goes to edges with conns of the user. Version is
// that of what others see and need not rise.
type SelfView struct {
	App     string
	User    string
	Version uint64
	Self    *Self
}

// TypingOut is for the sessions of a watcher (To) that see the typist.
type TypingOut struct {
	App  string
	User string
	To   string
	Kind string
	Stop bool
}

// AnnounceAgain asks for an announcement: of one user.
type AnnounceAgain struct{ Key Key }

func (*Views) toEdge()         {}
func (*Change) toEdge()        {}
func (*Remask) toEdge()        {}
func (*SelfView) toEdge()      {}
func (*TypingOut) toEdge()     {}
func (*AnnounceAgain) toEdge() {}

// Open says how a Gateway starts.
type Open struct {
	At       time.Time
	Term     uint64
	Barrier  []Edge // edges that must announce before offline may be said
	Draining bool   // an edge is or was draining within Config.PresumeDrain
	Online   []Key  // users whose durable marker says online
	Version  uint64 // the counter goes on after it: of a shard that opens again under its term
}
