package persistence

import "go.etcd.io/raft/v3/raftpb"

// MetaShard is the shard number under which Get and Scan read the rows of group 0.
const MetaShard = ^uint32(0)

// Identity says whose a data directory is. It is written once, when the directory is born.
type Identity struct {
	Format  int    `json:"format"`           // of the directory; set by Open
	Cluster string `json:"cluster"`          // id of the cluster; Open makes one up when empty
	Node    uint64 `json:"node"`             // node id, never 0, never reused
	Name    string `json:"name"`             // node name, for people
	Store   string `json:"store"`            // uuid of this directory; set by Open when empty
	BornAt  int64  `json:"born_at"`          // Unix ms; set by Open when 0
	Joined  bool   `json:"joined,omitempty"` // joined a cluster: never gives birth to its groups
}

// Op is one write to a row of a shard. Key and End are inner keys: what stands before
// them in the store is the group's prefix.
type Op struct {
	Key   []byte
	End   []byte // not nil: delete [Key, End); Value is ignored
	Value []byte // nil: delete Key; else put (an empty value is a value)
}

// Member says which node holds a replica of a group.
type Member struct{ Replica, Node uint64 }

// State is a group's own row. It changes in one batch with the ops it covers.
type State struct {
	Applied, AppliedTerm     uint64 // the last entry whose ops are in the rows
	Truncated, TruncatedTerm uint64 // the log holds (Truncated, last]
	Conf                     *raftpb.ConfState
	Members                  []Member
	Replica                  uint64 // own replica id in the group, never 0
	Hash                     uint64 // rolling hash of the applied entries
	At                       int64  // shard time, Unix ms
	Generation               uint64 // grows when history is knowingly lost
}

// Update is what one batch changes in one group.
type Update struct {
	Group    uint32
	Hard     *raftpb.HardState // nil: unchanged
	Entries  []*raftpb.Entry   // replaces the log from Entries[0].Index on; dense
	Ops      []Op              // applied in order
	State    *State            // nil: unchanged
	Truncate uint64            // != 0: drop log entries up to and with it; State.Truncated says the same
	Destroy  uint64            // != 0: delete the replica and remember the smallest id it may come back with
}
