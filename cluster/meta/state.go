package meta

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// NodeState is what the cluster holds of a node.
type NodeState uint8

// A node joins, is active when it has reported, draining when an operator said so, down after 10 s without
// a report, lost after 5 min more, and left when it was drained or removed. Lost and left nodes hold nothing; a lost one may
// come back unless another took its name, one that left may not.
const (
	Joining NodeState = iota + 1
	Active
	Draining
	Down
	Lost
	Left
)

func (s NodeState) String() string {
	if s == 0 || int(s) > len(stateNames) {
		return "unknown"
	}
	return stateNames[s-1]
}

var stateNames = [...]string{"joining", "active", "draining", "down", "lost", "left"}

// Node is a core of the cluster.
type Node struct {
	ID          uint64    `json:"id"` // random, never 0, never reused
	Name        string    `json:"name"`
	Zone        string    `json:"zone,omitempty"`
	Version     string    `json:"version,omitempty"`
	Gossip      string    `json:"gossip,omitempty"` // host:port, as are the next two
	Actor       string    `json:"actor,omitempty"`
	Raft        string    `json:"raft,omitempty"`
	Incarnation uint64    `json:"incarnation,omitempty"` // Unix ns of its process's start
	State       NodeState `json:"state"`
	Since       int64     `json:"since"`                // of State, Unix ms
	Drain       bool      `json:"drain,omitempty"`      // an operator wants it empty; outlives Down
	Reduce      bool      `json:"reduce,omitempty"`     // even if that lowers the number of voters
	Superseded  bool      `json:"superseded,omitempty"` // lost, and another node has its name
	Records     Versions  `json:"records,omitzero"`
}

// Replica is one of a group's, as meta lists it.
type Replica struct {
	ID    uint64 `json:"id"` // never reused in its group
	Node  uint64 `json:"node"`
	Voter bool   `json:"voter"`
}

// Move changes a group's configuration.
type Move struct {
	Add     []uint64 `json:"add,omitempty"`     // replica ids, listed as learners until it is over
	Remove  []uint64 `json:"remove,omitempty"`  // replica ids
	Learner bool     `json:"learner,omitempty"` // Add stay learners
	Since   int64    `json:"since"`             // Unix ms
}

// Group is where a shard's replicas are, or those of group 0.
type Group struct {
	Replicas []Replica `json:"replicas"`
	Next     uint64    `json:"next"` // the smallest replica id never given
	Term     uint64    `json:"term"` // of the leader whose configuration was adopted last
	Move     *Move     `json:"move,omitempty"`

	Generation uint64 `json:"generation,omitempty"` // of the replicas: cluster.Recover raises it
}

// Versions of records that a build can write: the oldest and the newest. It reads the newest and all before. Those of a build
// that says nothing are 1 and 1.
type Versions [2]uint8

// Newest is the newest version.
func (v Versions) Newest() uint8 { return max(v[1], 1) }

// Check says why a build of these versions cannot work where records are written in a version.
func (v Versions) Check(written uint8) error {
	oldest := max(v[0], 1)
	switch {
	case written > v.Newest():
		return fmt.Errorf("%w: records are written in version %d, and this build knows them up to %d: start the newer one again", ErrVersion, written, v.Newest())
	case written < oldest:
		return fmt.Errorf("%w: records are written in version %d, and this build writes %d to %d: upgrade all nodes to the minor version before it first",
			ErrVersion, written, oldest, v.Newest())
	}
	return nil
}

// Cluster is what was fixed at the birth, but for Whole and Records.
type Cluster struct {
	ID     string    `json:"id"`
	Born   time.Time `json:"born"`
	Shards int       `json:"shards"`
	Expect int       `json:"expect,omitempty"` // of a birth with --expect
	Whole  bool      `json:"whole,omitempty"`  // every shard has had min(Expect, 3) voters: latched

	Records uint8 `json:"records,omitempty"` // version in which all nodes write records; only rises. 0: 1
}

// Writes is the version in which all nodes write records.
func (c *Cluster) Writes() uint8 { return max(c.Records, 1) }

// State is all that group 0's rows say. Groups[0] is group 0, Groups[s+1] shard s.
type State struct {
	Cluster Cluster
	Nodes   map[uint64]Node
	Groups  []Group
}

// Born says that a cluster is recorded.
func (s *State) Born() bool { return s.Cluster.ID != "" }

// Clone shares nothing that commands change.
func (s *State) Clone() State {
	c := State{Cluster: s.Cluster, Nodes: maps.Clone(s.Nodes), Groups: slices.Clone(s.Groups)}
	for i, g := range c.Groups {
		c.Groups[i].Replicas = slices.Clone(g.Replicas)
	}
	return c
}

// Holds lists what a node is to hold: group → replica id.
func (s *State) Holds(node uint64) map[uint32]uint64 {
	held := map[uint32]uint64{}
	for i, g := range s.Groups {
		for _, r := range g.Replicas {
			if r.Node == node {
				held[uint32(i)] = max(held[uint32(i)], r.ID)
			}
		}
	}
	return held
}

// Find is the newest node of a name that is not superseded.
func (s *State) Find(name string) (Node, bool) {
	var found Node
	for _, n := range s.Nodes {
		if n.Name == name && !n.Superseded && (found.ID == 0 || found.Since < n.Since || found.Since == n.Since && found.ID < n.ID) {
			found = n
		}
	}
	return found, found.ID != 0
}

func (g *Group) find(id uint64) *Replica {
	for i := range g.Replicas {
		if g.Replicas[i].ID == id {
			return &g.Replicas[i]
		}
	}
	return nil
}

func (g *Group) on(node uint64) *Replica {
	for i := range g.Replicas {
		if g.Replicas[i].Node == node {
			return &g.Replicas[i]
		}
	}
	return nil
}

func (g *Group) voters() (ids []uint64) {
	for _, r := range g.Replicas {
		if r.Voter {
			ids = append(ids, r.ID)
		}
	}
	return ids
}
