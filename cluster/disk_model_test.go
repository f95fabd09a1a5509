package cluster

import (
	"errors"
	"hash/crc32"
	"hash/maphash"
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"muster/persistence"
)

// modelDisk keeps the contract of persistence.Store in memory: batches are atomic and
// visible at once, a sync makes every batch so far durable, and a crash keeps a prefix of
// those that no sync covered. Entries, values and states are immutable once written.
type modelDisk struct {
	seen, safe modelImage             // with all batches · with the synced ones
	unsynced   [][]persistence.Update // in seen, not in safe
	broken     error                  // every write fails
	bugs       *simBugs
}

type modelImage struct {
	groups     map[uint32]*modelGroup
	tombstones map[uint32]uint64
}

type modelGroup struct {
	hard  *raftpb.HardState
	state persistence.State
	log   []*raftpb.Entry // index state.Truncated+1 onwards, dense
	rows  map[string][]byte
	sum   uint64 // of the rows, in any order
	tail  []*raftpb.Entry
}

var errDisk = errors.New("disk error")

func newModelDisk(b *simBugs) *modelDisk {
	return &modelDisk{seen: newImage(), safe: newImage(), bugs: b}
}

func newImage() modelImage {
	return modelImage{groups: map[uint32]*modelGroup{}, tombstones: map[uint32]uint64{}}
}

func (im modelImage) clone() modelImage {
	c := modelImage{groups: map[uint32]*modelGroup{}, tombstones: maps.Clone(im.tombstones)}
	for id, g := range im.groups {
		cg := *g
		cg.log = slices.Clone(g.log)
		cg.tail = slices.Clone(g.tail)
		cg.rows = maps.Clone(g.rows)
		c.groups[id] = &cg
	}
	return c
}

// put makes a batch visible, as the memtable does; sync, later, makes it safe.
func (d *modelDisk) put(us []persistence.Update) error {
	if d.broken == nil && len(us) > 0 {
		d.seen.apply(us, d.bugs)
		d.unsynced = append(d.unsynced, us)
	}
	return d.broken
}

func (d *modelDisk) breakDown() { d.broken = errDisk }
func (d *modelDisk) close()     {}

// freeze copies a group's rows: what Pebble's snapshot does.
func (d *modelDisk) freeze(group uint32) (any, error) {
	return maps.Clone(d.group(group).rows), d.broken
}

// ingest replaces a group and is safe when it returns, with all batches before it.
func (d *modelDisk) ingest(in Ingest, rows any) error {
	if err := d.sync(); err != nil {
		return err
	}
	for _, im := range []modelImage{d.seen, d.safe} {
		g := &modelGroup{hard: in.Update.Hard, state: *in.Update.State, rows: map[string][]byte{}}
		for k, v := range rows.(map[string][]byte) {
			g.set(k, v)
		}
		im.groups[in.Update.Group] = g
	}
	return nil
}

func (d *modelDisk) sync() error {
	if d.broken != nil {
		return d.broken
	}
	for _, us := range d.unsynced {
		d.safe.apply(us, d.bugs)
	}
	d.unsynced = nil
	return nil
}

// crash forgets all but the first keep percent of the unsynced batches.
func (d *modelDisk) crash(keep int) error {
	n := len(d.unsynced) * keep / 100
	for _, us := range d.unsynced[:n] {
		d.safe.apply(us, d.bugs)
	}
	d.unsynced = nil
	for _, g := range d.safe.groups {
		g.resurrect()
	}
	d.seen = d.safe.clone()
	d.broken = nil
	return nil
}

func (im modelImage) apply(us []persistence.Update, bugs *simBugs) {
	for i := range us {
		u := &us[i]
		if u.Destroy != 0 {
			delete(im.groups, u.Group)
			im.tombstones[u.Group] = max(im.tombstones[u.Group], u.Destroy)
			continue
		}
		g := im.groups[u.Group]
		if g == nil {
			g = &modelGroup{rows: map[string][]byte{}}
			im.groups[u.Group] = g
		}
		g.apply(u, bugs)
	}
}

func (g *modelGroup) apply(u *persistence.Update, bugs *simBugs) {
	if u.Hard != nil {
		g.hard = u.Hard
	}
	if u.State != nil {
		g.setState(*u.State)
	}
	if len(u.Entries) > 0 {
		g.replace(u.Entries, bugs)
	}
	for _, op := range u.Ops {
		if bugs.loseOp && g.state.Replica%3 == 0 && crc32.ChecksumIEEE(op.Value)%40 == 0 {
			continue
		}
		g.op(op)
	}
	if u.Truncate != 0 {
		g.truncate(u.Truncate)
	}
}

func (g *modelGroup) setState(s persistence.State) {
	g.state = s
	g.truncate(s.Truncated)
}

func (g *modelGroup) truncate(upTo uint64) {
	n := 0
	for n < len(g.log) && g.log[n].GetIndex() <= upTo {
		n++
	}
	g.log = g.log[n:]
}

// replace is DeleteRange [first, ∞) and Set in one batch. Without the DeleteRange the
// old tail is on the disk, hidden until a restart finds it.
func (g *modelGroup) replace(es []*raftpb.Entry, bugs *simBugs) {
	first, last := es[0].GetIndex(), es[len(es)-1].GetIndex()
	cut := slices.IndexFunc(g.log, func(e *raftpb.Entry) bool { return e.GetIndex() >= first })
	if cut < 0 {
		cut = len(g.log)
	}
	if bugs.keepTail {
		old := slices.Concat(g.log[cut:], g.tail)
		g.tail = slices.DeleteFunc(old, func(e *raftpb.Entry) bool { return e.GetIndex() <= last })
	}
	g.log = append(g.log[:cut:cut], es...)
}

func (g *modelGroup) resurrect() {
	for _, e := range g.tail {
		if len(g.log) > 0 && e.GetIndex() == g.log[len(g.log)-1].GetIndex()+1 {
			g.log = append(g.log, e)
		}
	}
	g.tail = nil
}

func (g *modelGroup) op(op persistence.Op) {
	if op.End != nil {
		for k := range g.rows {
			if k >= string(op.Key) && k < string(op.End) {
				g.set(k, nil)
			}
		}
		return
	}
	g.set(string(op.Key), op.Value)
}

var rowSeed = maphash.MakeSeed()

func rowSum(key string, value []byte) uint64 {
	return maphash.String(rowSeed, key)*3 + maphash.Bytes(rowSeed, value)
}

func (g *modelGroup) set(key string, value []byte) {
	if old, ok := g.rows[key]; ok {
		g.sum -= rowSum(key, old)
		delete(g.rows, key)
	}
	if value != nil {
		g.rows[key] = value
		g.sum += rowSum(key, value)
	}
}

func (g *modelGroup) last() uint64 {
	if n := len(g.log); n > 0 {
		return g.log[n-1].GetIndex()
	}
	return g.state.Truncated
}

func (g *modelGroup) term(i uint64) (uint64, error) {
	switch {
	case i == g.state.Truncated:
		return g.state.TruncatedTerm, nil
	case i < g.state.Truncated:
		return 0, raft.ErrCompacted
	case i > g.last():
		return 0, raft.ErrUnavailable
	}
	return g.log[i-g.state.Truncated-1].GetTerm(), nil
}

func (d *modelDisk) group(id uint32) *modelGroup {
	if g := d.seen.groups[id]; g != nil {
		return g
	}
	return &modelGroup{}
}

func (d *modelDisk) Groups() ([]uint32, error) {
	return slices.Sorted(maps.Keys(d.seen.groups)), nil
}

func (d *modelDisk) Tombstones() (map[uint32]uint64, error) {
	return maps.Clone(d.seen.tombstones), nil
}

func (d *modelDisk) Load(group uint32) (*raftpb.HardState, persistence.State, uint64, uint64, error) {
	g := d.group(group)
	return g.hard, g.state, g.state.Truncated + 1, g.last(), nil
}

func (d *modelDisk) Entries(group uint32, lo, hi, maxBytes uint64) ([]*raftpb.Entry, error) {
	g := d.group(group)
	if lo <= g.state.Truncated {
		return nil, raft.ErrCompacted
	}
	if hi > g.last()+1 {
		return nil, raft.ErrUnavailable
	}
	es := g.log[lo-g.state.Truncated-1 : hi-g.state.Truncated-1]
	size := uint64(0)
	for i, e := range es {
		size += uint64(proto.Size(e))
		if i > 0 && size > maxBytes {
			return es[:i:i], nil
		}
	}
	return slices.Clone(es), nil
}

func (d *modelDisk) Term(group uint32, i uint64) (uint64, error) { return d.group(group).term(i) }

func (d *modelDisk) Get(shard uint32, key []byte) ([]byte, bool, error) {
	v, ok := d.group(shard + 1).rows[string(key)]
	return v, ok, nil
}

func (d *modelDisk) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	rows := d.group(shard + 1).rows
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		if k >= string(from) && (to == nil || k < string(to)) && !visit([]byte(k), rows[k]) {
			break
		}
	}
	return nil
}
