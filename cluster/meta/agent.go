package meta

import (
	"context"
	"log/slog"
	"time"

	"muster/cluster"
	"muster/persistence"
)

// Engine is a *cluster.Engine.
type Engine interface {
	Propose(shard uint32, term, seq uint64, at int64, ops []persistence.Op) error
	ReadIndex(shard uint32, done func(error))
	Leader(shard uint32) (node, term uint64)
	Statuses() (map[uint32]cluster.Status, error)
	Change(group uint32, c cluster.Change) error
	Transfer(shard uint32, node uint64) error
	Create(group uint32, replica uint64) error
	Destroy(group uint32, min uint64) error
}

// Rows is a *persistence.Store.
type Rows interface {
	Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error
}

// Net calls other nodes. An error of the other side may come as any error with its text.
type Net interface {
	Call(ctx context.Context, node uint64, method string, req []byte) ([]byte, error)
}

// Config of an Agent.
type Config struct {
	Self   Node    // State and what follows it are ignored
	Birth  Cluster // of a cluster that is born on this node: recorded when group 0 opens without rows
	Rows   Rows
	Net    Net
	Logger *slog.Logger       // default: discards
	Peers  func() []uint64    // cores that may be asked who leads group 0; default: the nodes as told last
	Told   func(nodes []Node) // the node table, whenever it was told; must not block. May be nil
	Now    func() time.Time   // default: time.Now
	Every  time.Duration      // between rounds; default 1 s, and a tenth of it while something moves
}

// Agent of a core. All methods may be called by any goroutine.
type Agent struct{ cfg Config }

var _ cluster.Leading = (*Agent)(nil)

// NewAgent makes an agent that answers nothing until Run.
func NewAgent(cfg Config) *Agent { return &Agent{cfg: cfg} }

// Run works until ctx ends.
func (a *Agent) Run(ctx context.Context, engine Engine) {}

// Handle answers a call of another node: see Methods.
func (a *Agent) Handle(ctx context.Context, method string, from uint64, req []byte) ([]byte, error) {
	return nil, nil
}

// Opened, Closed and Committed are group 0's cluster.Leading.
func (a *Agent) Opened(shard uint32, term, generation uint64, at int64) {}

// Closed implements cluster.Leading.
func (a *Agent) Closed(shard uint32, term uint64) {}

// Committed implements cluster.Leading.
func (a *Agent) Committed(shard uint32, term, seq, index uint64) {}

// View is the cluster as the leader of group 0 sees it. Any core may be asked.
func (a *Agent) View(ctx context.Context) (View, error) { return View{}, nil }

// Drain empties a node, by name. reduce: even if fewer voters remain.
func (a *Agent) Drain(ctx context.Context, name string, reduce bool) error { return nil }

// Undrain ends Drain.
func (a *Agent) Undrain(ctx context.Context, name string) error { return nil }

// Remove declares a node that is down lost for good, by name.
func (a *Agent) Remove(ctx context.Context, name string) error { return nil }

// Leader is a hint who leads a shard; 0: unknown.
func (a *Agent) Leader(shard uint32) (node uint64) { return 0 }

// NotReady says why the cluster may not serve yet: a birth with Expect is not whole. Empty: it may.
func (a *Agent) NotReady() []string { return nil }
