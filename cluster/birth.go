package cluster

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

// Birth creates the replicas of a new cluster's groups on this store: group 0 and one for each shard,
// with the members as voters. The first term is later than the birth's Unix second. All stores of one
// birth must be given the same members and time. A store with replicas is refused (I7).
func Birth(store *persistence.Store, shards int, members []persistence.Member, at time.Time) error {
	if groups, err := store.Groups(); err != nil || len(groups) > 0 {
		return fmt.Errorf("cluster: the store has %d replicas already, or cannot be read: %w", len(groups), err)
	}
	own := uint64(0)
	conf := &raftpb.ConfState{}
	for _, m := range members {
		conf.Voters = append(conf.Voters, m.Replica)
		if m.Node == store.Identity().Node {
			own = m.Replica
		}
	}
	if own == 0 {
		return fmt.Errorf("cluster: node %d is not among the members of the birth", store.Identity().Node)
	}
	term := uint64(at.Unix())
	us := make([]persistence.Update, shards+1)
	for group := range us {
		us[group] = persistence.Update{
			Group: uint32(group),
			Hard:  &raftpb.HardState{Term: new(term), Vote: new(uint64(0)), Commit: new(uint64(1))},
			State: &persistence.State{
				Applied: 1, AppliedTerm: term, Truncated: 1, TruncatedTerm: term, // a new member begins with a snapshot
				Conf: conf, Members: members, Replica: own, At: at.UnixMilli(), Generation: 1,
			},
		}
	}
	return store.Write(us, true)
}
