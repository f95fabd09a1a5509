package cluster

import (
	"errors"
	"math/rand/v2"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// MetaShard is the shard number under which Propose, Read and Transfer mean group 0.
const MetaShard = persistence.MetaShard

// Why an input was refused. The caller may try again after all but ErrTooLarge,
// ErrRetired and ErrBadPlan.
var (
	ErrNotLeader = errors.New("cluster: not the open leader of the shard in this term")
	ErrBusy      = errors.New("cluster: too much in flight")
	ErrNoRoom    = errors.New("cluster: the disk is too full")
	ErrTooLarge  = errors.New("cluster: a command holds at most 1 MiB")
	ErrNoGroup   = errors.New("cluster: no replica of the group here")
	ErrRetired   = errors.New("cluster: the replica id was used before")
	ErrStalePlan = errors.New("cluster: the plan starts from another configuration")
	ErrBadPlan   = errors.New("cluster: the plan is not a valid change")
	ErrPending   = errors.New("cluster: a configuration change is in flight")
	ErrNotCaught = errors.New("cluster: a learner has not caught up")
	ErrNoQuorum  = errors.New("cluster: no live majority in the new configuration")
	ErrNoTarget  = errors.New("cluster: no live voter to give the leadership to")
)

// Disk is what a Host reads. Get and Scan of rows are not among it: the Host never looks at them.
type Disk interface {
	Groups() ([]uint32, error)
	Tombstones() (map[uint32]uint64, error)
	Load(group uint32) (hard *raftpb.HardState, state persistence.State, first, last uint64, err error)
	Entries(group uint32, lo, hi, maxBytes uint64) ([]*raftpb.Entry, error)
	Term(group uint32, index uint64) (uint64, error)
}

// HostConfig is what a Host needs to know. Zero limits mean the defaults.
type HostConfig struct {
	Node   uint64      // own node id
	Rand   *rand.Rand  // spreads repeated campaigns
	Logger raft.Logger // nil: silent

	ShardInFlight int64         // bytes of a shard proposed and not yet applied; 4 MiB
	TotalInFlight int64         // of all shards; 64 MiB
	LogEntries    uint64        // most entries kept of a log; 4096
	LogBytes      uint64        // most bytes kept of a log; 8 MiB
	Farewell      bool          // a transfer waits for Left
	Lease         time.Duration // how long a leader serves without an answer of a quorum; 700 ms
	CompareEvery  uint64        // entries between two comparisons of the replicas' hashes; 1024

	bugs bugs
}

// Message is one Raft message between two nodes.
type Message struct {
	Group    uint32
	From, To uint64 // nodes
	Raft     *raftpb.Message
}

// Event is what a Host tells its shell.
type Event interface{ event() }

type (
	// Opened says that this node leads the shard in Term and has applied all that was
	// committed before.
	Opened struct {
		Shard            uint32
		Term, Generation uint64
		At               int64 // shard time, Unix ms
	}
	// Closed ends what Opened began: nothing of the term may leave after it.
	Closed struct {
		Shard uint32
		Term  uint64
	}
	// Committed says that all proposals of the term up to Seq are committed and applied.
	Committed struct {
		Shard            uint32
		Term, Seq, Index uint64
	}
	// ReadReady answers Read: a read of the shard's rows now is linearizable, or Err.
	ReadReady struct {
		Shard uint32
		ID    uint64
		Err   error
	}
	// LeaderChanged says what the node believes; Node 0 is nobody.
	LeaderChanged struct {
		Group      uint32
		Term, Node uint64
	}
	// Leaving says that the leadership is to be given to a node, as soon as Left says so or 100 ms are over.
	Leaving struct {
		Shard    uint32
		Term, To uint64
	}
	// Removed says that the replica is gone from here, for good.
	Removed struct {
		Group   uint32
		Replica uint64
	}
)

func (Opened) event()        {}
func (Closed) event()        {}
func (Committed) event()     {}
func (ReadReady) event()     {}
func (LeaderChanged) event() {}
func (Leaving) event()       {}
func (Removed) event()       {}

// Status is what a replica knows of itself and its group.
type Status struct {
	Term, Leader uint64 // Leader: node
	Open         uint64 // term; 0: not open here
	Commit, Last uint64
	State        persistence.State
	Behind       map[uint64]uint64 // replica → entries it lacks, on the leader
	CaughtUp     []uint64          // on the leader: learners that for 2 s answered and lacked at most 64 committed entries
}

func (cfg *HostConfig) setDefaults() {
	if cfg.Logger == nil {
		cfg.Logger = silent{}
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.New(rand.NewPCG(cfg.Node, 0))
	}
	cfg.ShardInFlight = or(cfg.ShardInFlight, 4<<20)
	cfg.TotalInFlight = or(cfg.TotalInFlight, 64<<20)
	cfg.LogEntries = or(cfg.LogEntries, 4096)
	cfg.LogBytes = or(cfg.LogBytes, 8<<20)
	cfg.Lease = or(cfg.Lease, silence)
	cfg.CompareEvery = or(cfg.CompareEvery, 1024)
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
