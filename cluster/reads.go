package cluster

import (
	"encoding/binary"
	"slices"

	"go.etcd.io/raft/v3"
)

// reads are linearizable reads: asked, then sent to the quorum in one round, then known to be
// at an index, then applied.
type reads struct {
	asked []uint64
	round uint64
	sent  map[uint64][]uint64
	known []knownReads
}

type knownReads struct {
	index uint64
	ids   []uint64
}

func (r *reads) ask(g *group) {
	if len(r.asked) == 0 || g.open == 0 {
		return
	}
	if r.sent == nil {
		r.sent = map[uint64][]uint64{}
	}
	r.round++ // a context is used once
	r.sent[r.round] = r.asked
	r.asked = nil
	g.raft.ReadIndex(binary.BigEndian.AppendUint64(nil, r.round))
}

func (r *reads) confirmed(s raft.ReadState) {
	round := binary.BigEndian.Uint64(s.RequestCtx)
	if ids, ok := r.sent[round]; ok {
		delete(r.sent, round)
		r.known = append(r.known, knownReads{s.Index, ids})
	}
}

func (r *reads) ready(g *group, to *[]Event) {
	n := 0
	for ; n < len(r.known) && r.known[n].index <= g.state.Applied; n++ {
		for _, id := range r.known[n].ids {
			*to = append(*to, ReadReady{Shard: g.shard(), ID: id})
		}
	}
	r.known = r.known[n:]
}

// fail answers all reads of an ended term, in order of asking.
func (r *reads) fail(g *group, to *[]Event) {
	var ids []uint64
	for _, k := range r.known {
		ids = append(ids, k.ids...)
	}
	for _, s := range r.sent {
		ids = append(ids, s...)
	}
	ids = append(ids, r.asked...)
	slices.Sort(ids)
	for _, id := range ids {
		*to = append(*to, ReadReady{Shard: g.shard(), ID: id, Err: ErrNotLeader})
	}
	r.asked, r.sent, r.known = nil, nil, nil
}
