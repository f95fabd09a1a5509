package persistence

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/bits"

	"go.etcd.io/raft/v3/raftpb"
)

// Every value begins with the version of its codec. A version this code does not know
// is refused with ErrNewer, never guessed at.
const (
	stateVersion = 1
	hardVersion  = 1
	entryVersion = 1
)

// Bounds of what a decoder accepts, so that damaged lengths allocate nothing large.
const (
	maxMembers = 1 << 10
	maxVoters  = 1 << 10
)

func encodeState(s *State) []byte {
	b := append(make([]byte, 0, 96), stateVersion)
	for _, v := range []uint64{s.Applied, s.AppliedTerm, s.Truncated, s.TruncatedTerm, s.Replica, s.Generation} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.BigEndian.AppendUint64(b, s.Hash)
	b = binary.AppendVarint(b, s.At)
	b = binary.AppendUvarint(b, uint64(len(s.Members)))
	for _, m := range s.Members {
		b = binary.AppendUvarint(b, m.Replica)
		b = binary.AppendUvarint(b, m.Node)
	}
	return appendConf(b, s.Conf)
}

func appendConf(b []byte, c *raftpb.ConfState) []byte {
	for _, ids := range [][]uint64{c.GetVoters(), c.GetLearners(), c.GetVotersOutgoing(), c.GetLearnersNext()} {
		b = binary.AppendUvarint(b, uint64(len(ids)))
		for _, id := range ids {
			b = binary.AppendUvarint(b, id)
		}
	}
	if c.GetAutoLeave() {
		return append(b, 1)
	}
	return append(b, 0)
}

func decodeState(b []byte) (s State, err error) {
	d, err := decode(b, stateVersion, "state row")
	if err != nil {
		return State{}, err
	}
	for _, v := range []*uint64{&s.Applied, &s.AppliedTerm, &s.Truncated, &s.TruncatedTerm, &s.Replica, &s.Generation} {
		*v = d.uvarint()
	}
	s.Hash = d.fixed64()
	s.At = d.varint()
	if n := d.count(maxMembers); n > 0 {
		s.Members = make([]Member, n)
		for i := range s.Members {
			s.Members[i] = Member{Replica: d.uvarint(), Node: d.uvarint()}
		}
	}
	s.Conf = &raftpb.ConfState{}
	for _, ids := range []*[]uint64{&s.Conf.Voters, &s.Conf.Learners, &s.Conf.VotersOutgoing, &s.Conf.LearnersNext} {
		if n := d.count(maxVoters); n > 0 {
			*ids = make([]uint64, n)
			for i := range *ids {
				(*ids)[i] = d.uvarint()
			}
		}
	}
	leave := d.octet()
	if leave > 1 {
		d.bad = true
	}
	autoLeave := leave == 1
	s.Conf.AutoLeave = &autoLeave
	return s, d.end()
}

func encodeHard(h *raftpb.HardState) []byte {
	b := append(make([]byte, 0, 24), hardVersion)
	for _, v := range []uint64{h.GetTerm(), h.GetVote(), h.GetCommit()} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeHard(b []byte) (*raftpb.HardState, error) {
	d, err := decode(b, hardVersion, "hard state")
	if err != nil {
		return nil, err
	}
	h := hardState(d.uvarint(), d.uvarint(), d.uvarint())
	return h, d.end()
}

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// appendEntry appends a log entry's value; its index is in the key.
func appendEntry(b []byte, e *raftpb.Entry) []byte {
	b = append(b, entryVersion, byte(e.GetType()))
	b = binary.AppendUvarint(b, e.GetTerm())
	return append(b, e.GetData()...)
}

// entrySize is the length of what appendEntry appends.
func entrySize(e *raftpb.Entry) int {
	return 2 + (bits.Len64(e.GetTerm()|1)+6)/7 + len(e.GetData())
}

// decodeEntry copies what it keeps of b.
func decodeEntry(index uint64, b []byte) (*raftpb.Entry, error) {
	d, err := decode(b, entryVersion, "log entry")
	if err != nil {
		return nil, err
	}
	kind, term := raftpb.EntryType(d.octet()), d.uvarint()
	if d.bad || kind < raftpb.EntryNormal || kind > raftpb.EntryConfChangeV2 {
		return nil, fail(ErrCorrupt, nil, "log entry %d cannot be read", index)
	}
	e := &raftpb.Entry{Index: &index, Term: &term, Type: &kind}
	if len(d.b) > 0 {
		e.Data = append([]byte(nil), d.b...)
	}
	return e, nil
}

func encodeIdentity(id Identity) ([]byte, error) { return json.Marshal(id) }

func decodeIdentity(b []byte) (id Identity, err error) {
	if err := json.Unmarshal(b, &id); err != nil {
		return Identity{}, fail(ErrCorrupt, err, "the identity cannot be read")
	}
	if id.Format > formatVersion {
		return Identity{}, newer(id.Format)
	}
	if id.Format < 1 || id.Cluster == "" || id.Node == 0 || id.Store == "" {
		return Identity{}, fail(ErrCorrupt, nil, "the identity is not complete")
	}
	return id, nil
}

func encodeTombstone(next uint64) []byte { return binary.AppendUvarint([]byte{1}, next) }

func decodeTombstone(b []byte) (uint64, error) {
	d, err := decode(b, 1, "tombstone")
	if err != nil {
		return 0, err
	}
	next := d.uvarint()
	return next, d.end()
}

// decoder reads a value front to back; after the first failure everything reads as 0.
type decoder struct {
	b    []byte
	what string
	bad  bool
}

func decode(b []byte, version byte, what string) (*decoder, error) {
	if len(b) == 0 || b[0] == 0 {
		return nil, fail(ErrCorrupt, nil, "a %s cannot be read", what)
	}
	if b[0] > version {
		return nil, fail(ErrNewer, nil, "a %s was written by a newer version (%d, this one knows %d)", what, b[0], version)
	}
	return &decoder{b: b[1:], what: what}, nil
}

func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return fail(ErrCorrupt, nil, "a %s cannot be read", d.what)
	}
	return nil
}

// take returns the next n bytes, a view.
func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) octet() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) fixed64() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a length of at most max.
func (d *decoder) count(limit uint64) int {
	n := d.uvarint()
	if n > limit || n > math.MaxInt32 {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}
