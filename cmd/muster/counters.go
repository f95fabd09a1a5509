package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strconv"
	"time"

	"muster/cmd/muster/durable"
)

// countersDoc is what a process has done since it started. Nodes tell it each other as JSON: fields that
// are not known are ignored.
type countersDoc struct {
	At       int64    `json:"at"`              // Unix ms, by the node's clock
	Sessions int64    `json:"sessions"`        // attached now
	Commands int64    `json:"commands"`        // of clients
	Sends    int64    `json:"sends"`           // presences and outbox entries sent to sockets
	Writes   uint64   `json:"writes"`          // durable changes proposed
	Syncs    []uint64 `json:"syncs,omitempty"` // of the write-ahead log, by how long they took: see durable.SyncBuckets
	RSS      int64    `json:"rss"`             // bytes; 0: not known

	Members int     `json:"members"` // other processes that gossip sees
	Routed  int64   `json:"routed"`  // shards whose leader is known
	Terms   uint64  `json:"terms"`   // sum of their terms: equal on all processes that know the same leaders
	Traffic traffic `json:"traffic"`
}

// traffic is the bytes that a process has put on the network for its cluster, by port.
type traffic struct {
	Gossip uint64 `json:"gossip"`
	Actor  uint64 `json:"actor"`
	Raft   uint64 `json:"raft"`
}

func (s *server) counters() countersDoc {
	e := s.edge.Stats()
	doc := countersDoc{At: time.Now().UnixMilli(), Sessions: e.Sessions, Commands: e.Commands, Sends: e.Deliveries + e.Entries, RSS: residentBytes(), Routed: e.Routed, Terms: e.Terms}
	if s.members != nil {
		doc.Members, _, _ = s.members.Connected()
		doc.Traffic.Gossip, doc.Traffic.Actor, doc.Traffic.Raft = s.members.Traffic()
	}
	if s.core != nil {
		doc.Writes = s.core.Stats().Proposals.Load()
		doc.Syncs = make([]uint64, len(durable.SyncBuckets)+1)
		for i := range doc.Syncs {
			doc.Syncs[i] = s.durable.Meter.SyncedIn[i].Load()
		}
	}
	return doc
}

func (s *server) tellCounters() []byte {
	text, _ := json.Marshal(s.counters()) // no type in it can fail
	return text
}

// count adds the counters of the nodes that tell them.
func (s *server) count(ctx context.Context, doc *clusterDoc) {
	told := map[string][]byte{}
	if s.members == nil {
		told[nodeID(s.durable.Store.Identity().Node)] = s.tellCounters()
	} else {
		for id, text := range s.members.Counters(ctx) {
			told[nodeID(id)] = text
		}
	}
	for i := range doc.Nodes {
		c := &countersDoc{}
		if text, ok := told[doc.Nodes[i].ID]; ok && json.Unmarshal(text, c) == nil {
			doc.Nodes[i].Counters = c
		}
	}
}

// residentBytes is the memory that the process has from the system, where Linux tells.
func residentBytes() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(text)
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize())
}
