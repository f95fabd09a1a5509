package meta

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/cluster"
	"muster/persistence"
)

// Report is what a node says of its replicas.
type Report struct {
	Node        uint64          `json:"node"`
	Incarnation uint64          `json:"incarnation"`
	Asked       time.Time       `json:"-"`                // by the clock of who asked, before it asked
	UpMs        int64           `json:"up,omitempty"`     // since its process began; 0: it does not say
	Yields      bool            `json:"yields,omitempty"` // it gives away what it leads
	Replicas    []ReplicaReport `json:"replicas"`
}

// ReplicaReport is one of them. Conf is on the disk, synced.
type ReplicaReport struct {
	Group      uint32               `json:"g"`
	ID         uint64               `json:"id"`
	Term       uint64               `json:"t"`
	Leader     uint64               `json:"l,omitempty"` // node
	Open       uint64               `json:"o,omitempty"` // term in which it leads
	Applied    uint64               `json:"a,omitempty"`
	Generation uint64               `json:"n,omitempty"`
	Conf       *raftpb.ConfState    `json:"c"`
	Behind     map[uint64]uint64    `json:"b,omitempty"` // replica → entries it lacks, on the leader
	CaughtUp   []uint64             `json:"u,omitempty"` // learners that the leader would promote
	Members    []persistence.Member `json:"m,omitempty"` // of the leader alone: where the replicas of Conf are
}

// Order is what a node is to do with a group that it leads in a term.
type Order struct {
	Node   uint64          `json:"node"`
	Group  uint32          `json:"group"`
	Term   uint64          `json:"term"`
	Change *cluster.Change `json:"change,omitempty"`
	Lead   uint64          `json:"lead,omitempty"` // node to give the leadership to
}

func (Order) step() {}
