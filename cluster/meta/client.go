package meta

import (
	"context"
	"errors"
)

// Why the leader of group 0 refused.
var (
	ErrNotLeader  = errors.New("meta: this node does not lead group 0")
	ErrNoLeader   = errors.New("meta: nobody is known to lead group 0")
	ErrNameInUse  = errors.New("meta: another live node has this name")
	ErrGone       = errors.New("meta: the node was removed from the cluster; it needs an empty data directory")
	ErrNoNode     = errors.New("meta: no such node")
	ErrAlive      = errors.New("meta: the node is alive: drain it instead")
	ErrBadRequest = errors.New("meta: not a valid request")
)

// Method is one that Handle answers.
type Method struct {
	Name string
	Open bool // also for a node that does not belong yet
}

// Methods are all that Handle answers.
func Methods() []Method {
	return []Method{{"meta.join", true}, {"meta.report", false}, {"meta.order", false}, {"meta.ask", false},
		{"meta.hold", false}, {"meta.view", false}, {"meta.drain", false}, {"meta.remove", false}}
}

// Joined is the answer to Join.
type Joined struct {
	Cluster Cluster `json:"cluster"`
	Nodes   []Node  `json:"nodes"`
}

// Join asks the nodes at addrs, one after the other, to let self belong to their cluster. It is repeated at each start.
//
// ErrNameInUse, ErrGone: final. All else may be tried again.
func Join(ctx context.Context, call func(ctx context.Context, addr, method string, req []byte) ([]byte, error), addrs []string, self Node) (Joined, error) {
	return Joined{}, nil
}

// View is the cluster as its leader sees it.
type View struct {
	Cluster Cluster     `json:"cluster"`
	Leader  uint64      `json:"leader"` // node
	Nodes   []Node      `json:"nodes"`  // by name
	Shards  []ShardView `json:"shards"` // by number
}

// ShardView is a shard in a View; Shard -1 is group 0.
type ShardView struct {
	Shard    int      `json:"shard"`
	Leader   uint64   `json:"leader"` // node; 0: unknown
	Term     uint64   `json:"term"`
	Voters   []uint64 `json:"voters"`   // nodes
	Learners []uint64 `json:"learners"` // nodes
	Lag      uint64   `json:"lag"`      // entries that the slowest voter lacks
	Move     *Move    `json:"move,omitempty"`
}
