// Package actorstest has what tests of package actors and of its users need.
package actorstest

import (
	"bytes"
	"slices"
	"sync"

	"muster/actors/link"
	"muster/actors/row"
)

// Rows are the rows of one shard, in memory. Safe for concurrent use.
type Rows struct {
	mu   sync.RWMutex
	keys [][]byte // sorted
	rows map[string][]byte
}

// Write makes changes, all at once.
func (s *Rows) Write(writes ...row.Write) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range writes {
		s.write(w)
	}
}

func (s *Rows) at(key []byte) (int, bool) { return slices.BinarySearchFunc(s.keys, key, bytes.Compare) }

func (s *Rows) write(w row.Write) {
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

// Get reads one row.
func (s *Rows) Get(key []byte) ([]byte, bool, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	v, ok := s.rows[string(key)]
	return bytes.Clone(v), ok, nil
}

// Scan visits the rows in [from, to). What it gives is only lent.
func (s *Rows) Scan(from, to []byte, visit func(key, value []byte) bool) error {
	s.mu.RLock()
	i, _ := s.at(from)
	j, _ := s.at(to)
	keys := slices.Clone(s.keys[i:max(i, j)])
	s.mu.RUnlock()
	for _, k := range keys {
		key, v, ok := bytes.Clone(k), []byte(nil), false
		if v, ok, _ = s.Get(k); !ok {
			continue
		}
		more := visit(key, v)
		clear(key)
		clear(v)
		if !more {
			break
		}
	}
	return nil
}

// Memory is a Store for tests of what is not durable: rows live as long as it does. Like
// every Store it commits after Propose has returned.
type Memory struct {
	node   Opener
	shards [link.Shards]struct {
		Rows
		mu    sync.Mutex
		index uint64
	}
}

// Opener is the node whose rows they are.
type Opener interface {
	Opened(shard uint32, term, generation uint64, at int64)
	Committed(shard uint32, term, seq, index uint64)
}

// Open opens all shards of a started node under a term.
func (m *Memory) Open(node Opener, term uint64) {
	m.node = node
	for n := range uint32(link.Shards) {
		node.Opened(n, term, 1, 0)
	}
}

// Propose implements actors.Store.
func (m *Memory) Propose(shard uint32, term, seq uint64, _ int64, writes []row.Write) error {
	s := &m.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Write(writes...)
	s.index++
	m.node.Committed(shard, term, seq, s.index)
	return nil
}

// Get implements actors.Store.
func (m *Memory) Get(shard uint32, key []byte) ([]byte, bool, error) { return m.shards[shard].Get(key) }

// Confirm implements actors.Store: nobody else has the rows.
func (m *Memory) Confirm(_ uint32, done func(error)) { done(nil) }

// Scan implements actors.Store.
func (m *Memory) Scan(shard uint32, from, to []byte, visit func(key, value []byte) bool) error {
	return m.shards[shard].Scan(from, to, visit)
}
