package meta

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"muster/persistence"
)

// Rows of group 0. A value is a version byte and JSON, of which fields that are not known are ignored.
//
//	01           Cluster
//	02 node(8)   Node
//	03 group(4)  Group
const (
	tableCluster = iota + 1
	tableNode
	tableGroup
	tableEnd
	rowVersion = 1
)

func nodeKey(id uint64) []byte  { return binary.BigEndian.AppendUint64([]byte{tableNode}, id) }
func groupKey(id uint32) []byte { return binary.BigEndian.AppendUint32([]byte{tableGroup}, id) }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // no type here can fail
	}
	return append([]byte{rowVersion}, b...)
}

func decode(b []byte, v any) error {
	switch {
	case len(b) == 0:
		return errors.New("meta: an empty row")
	case b[0] > rowVersion:
		return fmt.Errorf("meta: a row was written by a newer version (%d, this one knows %d): start the newer muster", b[0], rowVersion)
	case b[0] != rowVersion:
		return fmt.Errorf("meta: a row of version %d is not known", b[0])
	}
	if err := json.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	return nil
}

// ops writes what the commands changed, in key order.
func (c *change) ops() (ops []persistence.Op) {
	if c.bear {
		ops = append(ops, persistence.Op{Key: []byte{tableCluster}, End: []byte{tableEnd}})
	}
	if c.cluster {
		ops = append(ops, persistence.Op{Key: []byte{tableCluster}, Value: encode(c.Cluster)})
	}
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		ops = append(ops, persistence.Op{Key: nodeKey(id), Value: encode(c.Nodes[id])})
	}
	for _, id := range slices.Sorted(maps.Keys(c.groups)) {
		ops = append(ops, persistence.Op{Key: groupKey(id), Value: encode(c.Groups[id])})
	}
	return ops
}

// Load reads the State; none is born when there are no rows.
func Load(rows Rows) (State, error) {
	s := State{Nodes: map[uint64]Node{}}
	var bad error
	err := rows.Scan(persistence.MetaShard, []byte{tableCluster}, []byte{tableEnd}, func(key, value []byte) bool {
		bad = s.row(key, value)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if err == nil && s.Born() && len(s.Groups) != s.Cluster.Shards+1 {
		err = fmt.Errorf("meta: %d groups are recorded for %d shards", len(s.Groups), s.Cluster.Shards)
	}
	if err != nil {
		return State{}, err
	}
	return s, nil
}

func (s *State) row(key, value []byte) error {
	switch {
	case len(key) == 0:
		return errors.New("meta: a row without a key")
	case key[0] == tableCluster && len(key) == 1:
		return decode(value, &s.Cluster)
	case key[0] == tableNode && len(key) == 9:
		var n Node
		if err := decode(value, &n); err != nil {
			return err
		}
		if n.ID != binary.BigEndian.Uint64(key[1:]) {
			return fmt.Errorf("meta: row %x is of node %d", key, n.ID)
		}
		s.Nodes[n.ID] = n
	case key[0] == tableGroup && len(key) == 5:
		var g Group
		if err := decode(value, &g); err != nil {
			return err
		}
		if id := binary.BigEndian.Uint32(key[1:]); int(id) != len(s.Groups) {
			return fmt.Errorf("meta: row of group %d follows %d groups", id, len(s.Groups))
		}
		s.Groups = append(s.Groups, g)
	default:
		return fmt.Errorf("meta: row %x is not known", key)
	}
	return nil
}
