package cluster

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// What is kept of a log in memory, so that followers are served without the disk. A sole
// member has nobody to serve.
const (
	maxTail  = 128 << 10
	soleTail = 1 << 10
)

// log is raft's view of a group's log on the disk, with the newest entries in memory.
type log struct {
	g             *group
	before, bTerm uint64 // the log holds (before, last]
	last          uint64
	tail          []*raftpb.Entry // ends with last
	tailBytes     uint64
	dropped       int    // entries before tail that its array still holds
	bytes         uint64 // appended since the start or the last truncation
}

func newLog(g *group, last uint64) *log {
	return &log{g: g, before: g.state.Truncated, bTerm: g.state.TruncatedTerm, last: max(last, g.state.Truncated)}
}

// reset empties the log: a snapshot stands for all up to index.
func (l *log) reset(index, term uint64) {
	l.before, l.bTerm, l.last, l.tail, l.tailBytes, l.bytes = index, term, index, nil, 0, 0
}

// append replaces the log from es[0] on, as the disk did.
func (l *log) append(es []*raftpb.Entry) {
	if len(es) == 0 {
		return
	}
	first := es[0].GetIndex()
	if first <= l.before || first > l.last+1 || first <= l.g.state.Applied {
		panic(fmt.Sprintf("cluster: I2: group %d: append at %d of a log (%d, %d], applied %d",
			l.g.id, first, l.before, l.last, l.g.state.Applied))
	}
	for n := len(l.tail); n > 0 && l.tail[n-1].GetIndex() >= first; n-- {
		l.tailBytes -= size(l.tail[n-1])
		l.tail = l.tail[: n-1 : n-1] // raft may hold what is replaced
	}
	l.tail = append(l.tail, es...)
	l.last = es[len(es)-1].GetIndex()
	for _, e := range es {
		l.tailBytes += size(e)
		l.bytes += size(e)
	}
	l.trim()
}

// trim keeps of the tail what is to be applied or sent. Raft may hold parts of the slice, so
// what is dropped goes with the whole slice, when half of it is waste.
func (l *log) trim() {
	limit, n := uint64(maxTail), 0
	if sole(l.g.state.Conf) {
		limit = soleTail
	}
	for ; l.tailBytes > limit && n < len(l.tail) && l.tail[n].GetIndex() <= l.g.state.Applied; n++ {
		l.tailBytes -= size(l.tail[n])
	}
	l.drop(n)
}

func (l *log) drop(n int) {
	l.tail = l.tail[n:]
	if l.dropped += n; l.dropped > len(l.tail) {
		l.tail, l.dropped = slices.Clone(l.tail), 0
	}
}

func (l *log) truncated(index uint64) {
	if index <= l.before {
		return
	}
	if l.last > l.before {
		l.bytes -= l.bytes / (l.last - l.before) * (min(index, l.last) - l.before)
	}
	l.before, l.bTerm = index, l.g.state.TruncatedTerm
	n := 0
	for ; n < len(l.tail) && l.tail[n].GetIndex() <= index; n++ {
		l.tailBytes -= size(l.tail[n])
	}
	l.drop(n)
	l.last = max(l.last, index)
}

func size(e *raftpb.Entry) uint64 { return uint64(len(e.GetData())) + 16 }

func (l *log) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return l.g.hard, l.g.state.Conf, nil
}

func (l *log) Entries(lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo <= l.before:
		return nil, raft.ErrCompacted
	case hi > l.last+1:
		return nil, raft.ErrUnavailable
	case len(l.tail) == 0 || lo < l.tail[0].GetIndex():
		return l.g.host.disk.Entries(l.g.id, lo, hi, maxBytes)
	}
	at := lo - l.tail[0].GetIndex()
	es := l.tail[at : at+hi-lo]
	total := uint64(0)
	for i, e := range es {
		total += uint64(proto.Size(e))
		if i > 0 && total > maxBytes {
			es = es[:i]
			break
		}
	}
	return es[:len(es):len(es)], nil
}

func (l *log) Term(i uint64) (uint64, error) {
	switch {
	case i < l.before:
		return 0, raft.ErrCompacted
	case i == l.before:
		return l.bTerm, nil
	case i > l.last:
		return 0, raft.ErrUnavailable
	case len(l.tail) > 0 && i >= l.tail[0].GetIndex():
		return l.tail[i-l.tail[0].GetIndex()].GetTerm(), nil
	}
	return l.g.host.disk.Term(l.g.id, i)
}

func (l *log) LastIndex() (uint64, error)  { return l.last, nil }
func (l *log) FirstIndex() (uint64, error) { return l.before + 1, nil }

// Snapshot is made on demand, as of what is applied, with the configuration of that moment: one that lacks
// its receiver would be ignored in silence. Within a turn the rows are about to change.
func (l *log) Snapshot() (*raftpb.Snapshot, error) {
	g := l.g
	if g.host.writing != nil || g.host.refusing != "" {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	if g.state.Applied == 0 {
		return nil, errors.New("cluster: a snapshot of an empty replica")
	}
	conf := g.state.Conf
	if g.host.cfg.bugs.oldConfState {
		conf = g.first
	}
	return &raftpb.Snapshot{
		Data: encodeBase(&g.state),
		Metadata: &raftpb.SnapshotMetadata{
			Index: new(g.state.Applied), Term: new(g.state.AppliedTerm),
			ConfState: proto.Clone(conf).(*raftpb.ConfState),
		},
	}, nil
}
