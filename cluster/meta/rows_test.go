package meta

import (
	"bytes"
	"encoding/binary"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/persistence"
)

// table is rows of group 0.
type table []persistence.Op

func (t table) Scan(_ uint32, _, _ []byte, each func(key, value []byte) bool) error {
	for _, op := range t {
		if !each(op.Key, op.Value) {
			break
		}
	}
	return nil
}

// A build reads what one that knows more fields wrote, and refuses rows of a newer form instead of misreading them.
func TestRowsOfANewerBuild(t *testing.T) {
	born := Cluster{ID: "c", Shards: 0}
	group := Group{Replicas: []Replica{{Node: 7, ID: 1, Voter: true}}}
	rows := func() table {
		return table{
			{Key: []byte{tableCluster}, Value: encode(born)},
			{Key: nodeKey(7), Value: encode(Node{ID: 7, Name: "n7"})},
			{Key: groupKey(0), Value: encode(group)},
		}
	}
	want, err := Load(rows())
	if err != nil || !want.Born() || want.Nodes[7].Name != "n7" {
		t.Fatalf("%+v, %v", want, err)
	}
	for i := range rows() {
		more := rows()
		more[i].Value = bytes.Replace(more[i].Value, []byte("{"), []byte(`{"of_a_newer_build":[1,{"x":2}],`), 1)
		if got, err := Load(more); err != nil || got.Cluster != want.Cluster || got.Nodes[7] != want.Nodes[7] || len(got.Groups) != 1 {
			t.Errorf("row %d with a field more: %+v, %v", i, got, err)
		}
		for version, say := range map[byte]string{0: "version 0 is not known", rowVersion + 1: "newer version (2, this one knows 1)"} {
			other := rows()
			other[i].Value[0] = version
			if got, err := Load(other); err == nil || !strings.Contains(err.Error(), say) || len(got.Nodes) != 0 {
				t.Errorf("row %d of version %d: %+v, %v", i, version, got, err)
			}
		}
		short := rows()
		short[i].Value = nil
		if _, err := Load(short); err == nil {
			t.Errorf("row %d is empty and taken", i)
		}
	}
}

// all writes a whole State.
func all(s State) table {
	c := change{State: s, cluster: true, nodes: map[uint64]bool{}, groups: map[uint32]bool{}}
	for id := range s.Nodes {
		c.nodes[id] = true
	}
	for i := range s.Groups {
		c.groups[uint32(i)] = true
	}
	return c.ops()
}

// pack makes one slice of rows: each is the length of its key and of its value, one and two bytes, then both.
func (t table) pack() (b []byte) {
	for _, op := range t {
		b = binary.BigEndian.AppendUint16(append(b, byte(len(op.Key))), uint16(len(op.Value)))
		b = append(append(b, op.Key...), op.Value...)
	}
	return b
}

// unpack reads what it can, as a table that a store could hold: sorted, each key once.
func unpack(b []byte) (t table) {
	rows := map[string][]byte{}
	for len(b) >= 3 {
		k, v := int(b[0]), int(binary.BigEndian.Uint16(b[1:]))
		b = b[3:]
		k = min(k, len(b))
		v = min(v, len(b)-k)
		rows[string(b[:k])] = b[k : k+v]
		b = b[k+v:]
	}
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		t = append(t, persistence.Op{Key: []byte(k), Value: rows[k]})
	}
	return t
}

// meaning takes away the difference between nothing and an empty list.
func meaning(s State) State {
	nothing := func(ids []uint64) []uint64 { return slices.Clip(append([]uint64(nil), ids...)) }
	s = s.Clone()
	for i := range s.Groups {
		g := &s.Groups[i]
		g.Replicas = append([]Replica(nil), g.Replicas...)
		if g.Move != nil {
			m := *g.Move
			m.Add, m.Remove = nothing(m.Add), nothing(m.Remove)
			g.Move = &m
		}
	}
	if len(s.Groups) == 0 {
		s.Groups = nil
	}
	return s
}

// TestRowsAsWritten holds the names of what is on disks.
func TestRowsAsWritten(t *testing.T) {
	for want, row := range map[string]any{
		`{"id":"c","born":"2023-11-14T22:13:20Z","shards":2,"expect":3,"whole":true}`: Cluster{ID: "c", Born: time.Unix(1_700_000_000, 0).UTC(), Shards: 2, Expect: 3, Whole: true},
		`{"id":1,"name":"n","zone":"a","version":"v","gossip":"g","actor":"h","raft":"r","incarnation":9,"state":3,"since":7,"drain":true,"reduce":true,"superseded":true}`: Node{
			ID: 1, Name: "n", Zone: "a", Version: "v", Gossip: "g", Actor: "h", Raft: "r", Incarnation: 9, State: Draining, Since: 7, Drain: true, Reduce: true, Superseded: true},
		`{"replicas":[{"id":4,"node":1,"voter":true}],"next":5,"term":6,"move":{"add":[2],"remove":[3],"learner":true,"since":11},"generation":8}`: Group{
			Replicas: []Replica{{4, 1, true}}, Next: 5, Term: 6, Move: &Move{Add: []uint64{2}, Remove: []uint64{3}, Learner: true, Since: 11}, Generation: 8},
	} {
		if got := string(encode(row)); got != string(rune(rowVersion))+want {
			t.Errorf("%q is not %q", got, want)
		}
		read := reflect.New(reflect.TypeOf(row))
		if err := decode(append([]byte{rowVersion}, want...), read.Interface()); err != nil || !reflect.DeepEqual(read.Elem().Interface(), row) {
			t.Errorf("%s was read as %+v, %v", want, read.Elem(), err)
		}
	}
}

// FuzzRows reads any rows: none may panic, and what they say is written and read again the same.
func FuzzRows(f *testing.F) {
	born := State{
		Cluster: Cluster{ID: "c", Born: time.Unix(1_700_000_000, 5).UTC(), Shards: 2, Expect: 3, Whole: true},
		Nodes: map[uint64]Node{
			1:       {ID: 1, Name: "n1", Zone: "a", Version: "v1", Gossip: "h:1", Actor: "h:2", Raft: "h:3", Incarnation: 9, State: Active, Since: 7},
			1 << 63: {ID: 1 << 63, Name: "n\u00fc", State: Draining, Drain: true, Reduce: true},
			3:       {ID: 3, Name: "n1", State: Lost, Superseded: true},
		},
		Groups: []Group{
			{Replicas: []Replica{{1, 1, true}}, Next: 2, Term: 5},
			{Replicas: []Replica{{1, 1, true}, {7, 3, false}}, Next: 8, Move: &Move{Add: []uint64{7}, Remove: []uint64{1}, Since: 11}},
			{Replicas: []Replica{{1 << 20, 3, true}}, Next: 1<<20 + 1, Generation: 2, Move: &Move{Add: []uint64{}, Learner: true}},
		},
	}
	for _, s := range []State{born, {}, {Cluster: Cluster{ID: "x", Shards: -1}}} {
		f.Add(all(s).pack())
	}
	f.Add(table{{Key: []byte{tableCluster}, Value: []byte("\x02{}")}, {Key: nil, Value: []byte{1}}, {Key: []byte{tableNode}, Value: nil}}.pack())
	f.Add(table{{Key: []byte{tableCluster}, Value: append([]byte{rowVersion}, `{"id":"c","born":"2024-02-30T25:61:61+99:99","shards":1e9}`...)}}.pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Load(unpack(b))
		if err != nil {
			if s.Born() || len(s.Nodes)+len(s.Groups) > 0 {
				t.Errorf("%v, and yet %+v", err, s)
			}
			return
		}
		again, err := Load(all(s))
		if err != nil || !reflect.DeepEqual(meaning(again), meaning(s)) {
			t.Errorf("%+v\nwas read again as %+v, %v", s, again, err)
		}
	})
}
