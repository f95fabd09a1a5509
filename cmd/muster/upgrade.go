package main

import (
	"muster/actors/row"
	"muster/cluster/meta"
	"muster/cluster/stream"
)

// Two builds that are one minor version apart work in one cluster: each speaks its own version of envelopes and the one before,
// and writes records in the version that all nodes know, which the meta group raises when the last one has been upgraded.

// wire are the versions of envelopes that this process speaks.
func (c *Config) wire() [2]uint8 { return c.claim(stream.OldestWire, stream.NewestWire) }

// records are the versions in which this process can write records.
func (c *Config) records() meta.Versions { return c.claim(row.Oldest, row.Version) }

// claim is what a build that is so many minor versions newer would say.
func (c *Config) claim(oldest, newest uint8) [2]uint8 {
	if c.Newer > 0 {
		newest += uint8(c.Newer)
		oldest = newest - 1
	}
	return [2]uint8{oldest, newest}
}

// written learns that all nodes know a version of records. It never falls.
func (s *server) written(version uint8) {
	for {
		was := s.writes.Load()
		if uint32(version) <= was || s.writes.CompareAndSwap(was, uint32(version)) {
			return
		}
	}
}

// checkRecords refuses a directory whose cluster has gone on to records that this build cannot write, or has not come so far. Only
// replicas of the meta group know; of other directories the cluster says it when the node has found it.
func (s *server) checkRecords() error {
	versions := s.cfg.records()
	s.written(versions[0])
	state, err := meta.Load(s.durable.Store)
	if err != nil || !state.Born() {
		return fault(err)
	}
	if err := versions.Check(state.Cluster.Writes()); err != nil {
		return faultf("data directory %s: %w", s.cfg.Data, err)
	}
	s.written(state.Cluster.Writes())
	return nil
}

// cannotBelong ends the process: see members.Config.
func (s *server) cannotBelong(err error) {
	select {
	case s.failed <- err:
	default:
	}
}
