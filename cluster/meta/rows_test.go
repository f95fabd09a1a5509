package meta

import (
	"bytes"
	"strings"
	"testing"

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
