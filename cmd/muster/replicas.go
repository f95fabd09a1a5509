package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"muster/actors/link"
	"muster/clients/wire"
	"muster/persistence"
)

const replicasPath = "/v1/cluster/replicas"

// replicasDoc is what GET /v1/cluster/replicas answers: the replicas that this node holds. At an equal generation and applied
// index, the rows of all replicas of a group are equal, and so are their hashes.
type replicasDoc struct {
	Node     string       `json:"node"`
	Replicas []replicaDoc `json:"replicas"`
}

type replicaDoc struct {
	Group      uint32   `json:"group"` // 0: the meta group; shard s is group s+1
	Replica    uint64   `json:"replica"`
	Voters     []uint64 `json:"voters"`   // replica ids, as of Applied
	Learners   []uint64 `json:"learners"` // likewise
	Generation uint64   `json:"generation"`
	Applied    uint64   `json:"applied"` // index of the last entry that is in the rows
	Rows       int64    `json:"rows"`
	Hash       string   `json:"hash"` // of the rows at Applied: 16 hex digits
}

// sendReplicas answers GET /v1/cluster/replicas. It reads all rows of what is asked for, so one request at a time.
func (s *server) sendReplicas(w http.ResponseWriter, r *http.Request) {
	if s.durable == nil {
		refuse(w, wire.CodeNotAvailable, "an edge stores nothing: ask a core")
		return
	}
	groups, err := s.groupsOf(r.URL.Query().Get("shard"))
	if err != nil {
		refuse(w, wire.CodeBadRequest, err.Error())
		return
	}
	if !s.comparing.TryLock() {
		refuse(w, wire.CodeBusy, "another request reads the replicas")
		return
	}
	defer s.comparing.Unlock()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	doc := replicasDoc{Node: s.cfg.NodeName, Replicas: []replicaDoc{}}
	for _, group := range groups {
		d, err := s.replica(r, group)
		var e *persistence.Error
		if errors.As(err, &e) && e.Code == persistence.ErrNoGroup {
			continue // removed meanwhile, or never here
		}
		if err != nil {
			refuse(w, wire.CodeInternal, fmt.Sprintf("group %d: %v", group, err))
			return
		}
		doc.Replicas = append(doc.Replicas, d)
	}
	answer(w, http.StatusOK, doc)
}

// groupsOf are the groups that ?shard= means: a number, "meta", or all that are here.
func (s *server) groupsOf(shard string) ([]uint32, error) {
	switch shard {
	case "":
		return s.durable.Store.Groups()
	case "meta":
		return []uint32{0}, nil
	}
	n, err := strconv.ParseUint(shard, 10, 32)
	if err != nil || n >= link.Shards {
		return nil, fmt.Errorf("shard: want 0 to %d, or meta", link.Shards-1)
	}
	return []uint32{uint32(n) + 1}, nil
}

// replica reads one replica as of one moment.
func (s *server) replica(r *http.Request, group uint32) (replicaDoc, error) {
	snap, err := s.durable.Store.Snapshot(group)
	if err != nil {
		return replicaDoc{}, err
	}
	hash, rows, err := snap.Digest(r.Context())
	if err = errors.Join(err, snap.Close()); err != nil {
		return replicaDoc{}, err
	}
	st := snap.State
	return replicaDoc{
		Group: group, Replica: st.Replica, Voters: append([]uint64{}, st.Conf.GetVoters()...), Learners: append([]uint64{}, st.Conf.GetLearners()...),
		Generation: st.Generation, Applied: st.Applied, Rows: rows, Hash: fmt.Sprintf("%016x", hash),
	}, nil
}
