package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"muster/persistence"
)

const (
	termLeap    = 1 << 20 // the old group, if some of it still runs, does not get there by elections
	replicaLeap = 1 << 20 // nor is so large an id planned for it already
)

// Why a replica cannot be recovered, or need not.
var (
	ErrEmpty = errors.New("cluster: it is empty and waits for its first snapshot")
	ErrSole  = errors.New("cluster: it is the only voter already")
)

// recoveryKey begins the inner keys of the records that Recover leaves; no table of rows begins with it.
const recoveryKey = "\x00recovered"

// Recovery is the record of a group that was made to go on with one survivor.
type Recovery struct {
	Group      uint32   `json:"group"`
	At         int64    `json:"at"` // Unix ms
	Node       uint64   `json:"node"`
	Replica    uint64   `json:"replica"` // new
	Was        uint64   `json:"was"`     // replica id before
	Voters     []uint64 `json:"voters"`  // replica ids before
	Applied    uint64   `json:"applied"` // index
	Last       uint64   `json:"last"`    // index; entries from Applied on become valid, whether they had been committed or not
	WasTerm    uint64   `json:"was_term"`
	Term       uint64   `json:"term"`
	Generation uint64   `json:"generation"` // new
}

// Recover makes this store's replica the only one of its group, for when a majority of the voters is lost for
// good. What only the lost ones had committed is lost with them. No process may run on the data directory: opening the
// store has seen to that, and no Engine may have been started on it.
//
// The replica gets an id that no old message can name, a term that no old election reaches, and the next
// generation, which is part of every stream's epoch. Its log stays, without the configuration changes that
// it had not applied. Replicas of the old group must never run again as such: group 0 has them destroyed.
//
// ErrEmpty: the replica never received its rows. ErrSole: it is the only voter already.
func Recover(store *persistence.Store, group uint32, at time.Time) (Recovery, error) {
	hard, state, _, last, err := store.Load(group)
	if err != nil {
		return Recovery{}, fmt.Errorf("cluster: group %d: %w", group, err)
	}
	conf := state.Conf
	switch {
	case state.Applied == 0:
		return Recovery{}, fmt.Errorf("group %d: replica %d: %w", group, state.Replica, ErrEmpty)
	case len(conf.GetVoters()) == 1 && conf.GetVoters()[0] == state.Replica && !joint(conf):
		return Recovery{}, fmt.Errorf("group %d: replica %d: %w", group, state.Replica, ErrSole)
	}
	entries, err := survive(store, group, state.Applied, last)
	if err != nil {
		return Recovery{}, fmt.Errorf("cluster: group %d: %w", group, err)
	}
	r := Recovery{
		Group: group, At: at.UnixMilli(), Node: store.Identity().Node, Replica: highest(&state) + replicaLeap, Was: state.Replica, Voters: conf.GetVoters(),
		Applied: state.Applied, Last: last, WasTerm: hard.GetTerm(), Term: max(hard.GetTerm()+termLeap, uint64(at.Unix())), Generation: state.Generation + 1,
	}
	record, err := json.Marshal(r)
	if err != nil {
		return Recovery{}, err
	}
	state.Replica, state.Generation = r.Replica, r.Generation
	state.Conf = &raftpb.ConfState{Voters: []uint64{r.Replica}}
	state.Members = []persistence.Member{{Replica: r.Replica, Node: r.Node}}
	return r, store.Write([]persistence.Update{{
		Group: group, Entries: entries, State: &state,
		Hard: &raftpb.HardState{Term: new(r.Term), Vote: new(uint64(0)), Commit: new(max(hard.GetCommit(), state.Applied))},
		Ops:  []persistence.Op{{Key: binary.BigEndian.AppendUint64([]byte(recoveryKey), r.Generation), Value: record}},
	}}, true)
}

// survive is the log after applied, with empty entries in the place of configuration changes, and so without the
// hashes that the leader had for comparison.
func survive(store *persistence.Store, group uint32, applied, last uint64) ([]*raftpb.Entry, error) {
	if last == applied {
		return nil, nil
	}
	entries, err := store.Entries(group, applied+1, last+1, 1<<62)
	if err != nil {
		return nil, err
	}
	for i, e := range entries {
		entries[i] = &raftpb.Entry{Index: e.Index, Term: e.Term}
		if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
			continue
		}
		c, err := decodeCommand(e.GetData())
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		c.mark = mark{}
		entries[i].Data = c.encode()
	}
	return entries, nil
}

// highest is the largest replica id that the group has had, as far as its state knows.
func highest(s *persistence.State) uint64 {
	id := s.Replica
	for _, m := range s.Members {
		id = max(id, m.Replica)
	}
	return id
}

// Recoveries are the records of a group, oldest first.
func Recoveries(store *persistence.Store, group uint32) (all []Recovery, err error) {
	var bad error
	err = store.Scan(group-1, []byte(recoveryKey), []byte(recoveryKey+"\xff\xff\xff\xff\xff\xff\xff\xff\xff"), func(_, value []byte) bool {
		var r Recovery
		bad = json.Unmarshal(value, &r)
		all = append(all, r)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return all, err
}
