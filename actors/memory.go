package actors

import (
	"bytes"
	"slices"
	"sync"

	"muster/actors/link"
)

// memory is the Store of a node without one: rows live as long as the process. Like every
// Store it commits after Propose has returned.
type memory struct {
	node   *Node
	shards [link.Shards]memoryShard
}

type memoryShard struct {
	mu   sync.RWMutex
	keys [][]byte // sorted
	rows map[string][]byte
	last uint64 // proposal
}

func (m *memory) Propose(shard uint32, term, seq uint64, _ int64, writes []Write) error {
	s := &m.shards[shard]
	s.mu.Lock()
	for _, w := range writes {
		s.write(w)
	}
	s.last++
	index := s.last
	s.mu.Unlock()
	m.node.Committed(shard, term, seq, index)
	return nil
}

func (s *memoryShard) at(key []byte) (int, bool) {
	return slices.BinarySearchFunc(s.keys, key, bytes.Compare)
}

func (s *memoryShard) write(w Write) {
	from, found := s.at(w.Key)
	switch {
	case w.End != nil:
		to, _ := s.at(w.End)
		for _, k := range s.keys[from:max(from, to)] {
			delete(s.rows, string(k))
		}
		s.keys = slices.Delete(s.keys, from, max(from, to))
	case w.Value == nil && found:
		delete(s.rows, string(w.Key))
		s.keys = slices.Delete(s.keys, from, from+1)
	case w.Value == nil:
	default:
		if !found {
			s.keys = slices.Insert(s.keys, from, w.Key)
		}
		if s.rows == nil {
			s.rows = map[string][]byte{}
		}
		s.rows[string(w.Key)] = w.Value
	}
}

func (m *memory) Get(shard uint32, key []byte) ([]byte, bool, error) {
	s := &m.shards[shard]
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.rows[string(key)]
	return v, ok, nil
}

func (m *memory) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	s := &m.shards[shard]
	s.mu.RLock()
	i, _ := s.at(from)
	j, _ := s.at(to)
	keys := slices.Clone(s.keys[i:max(i, j)])
	s.mu.RUnlock()
	for _, k := range keys {
		if v, ok, _ := m.Get(shard, k); ok && !visit(k, v) {
			break
		}
	}
	return nil
}
