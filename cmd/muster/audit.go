package main

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// acknowledged is one line of the file of --audit.
type acknowledged struct {
	Shard    uint32 `json:"shard"`
	Term     uint64 `json:"term"`
	Index    uint64 `json:"index"`
	ClientID string `json:"client_id"`
	Node     string `json:"node"`
	At       int64  `json:"at"` // Unix ns
}

// openAudit opens the file of --audit, and returns what writes to it; nil without one.
// A line is in the kernel before the sender is told, so that it outlives a kill.
func (s *server) openAudit() (func(shard uint32, term, index uint64, clientID string), error) {
	if s.cfg.Audit == "" {
		return nil, nil
	}
	f, err := os.OpenFile(s.cfg.Audit, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, faultf("audit: %w", err)
	}
	var mu sync.Mutex
	return func(shard uint32, term, index uint64, clientID string) {
		line, _ := json.Marshal(acknowledged{shard, term, index, clientID, s.cfg.NodeName, time.Now().UnixNano()})
		mu.Lock()
		defer mu.Unlock()
		if _, err := f.Write(append(line, '\n')); err != nil {
			s.log.Error("the audit file cannot be written", "file", s.cfg.Audit, "err", err)
		}
	}, nil
}
