package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Options of one call.
type Options struct {
	Scenarios []string      // none: all that can run here
	Seed      uint64        // of plan and workload; 0: a random one
	Length    time.Duration // of the faults of each scenario; 0: 2 min
	Faults    int           // end after so many instead, whatever the length; 0: by the length
	Hold      time.Duration // how long each fault lasts; 0: chosen by the seed
	Cores     int           // nodes with the role core; 1 without edges: one plain server
	Edges     int           // nodes with the role edge
	Both      int           // nodes with both roles
	Sessions  int           // users who come, go and watch each other
	Watches   int           // users whom each of them watches
	Changes   int           // of status, coming and going: a second, by all of them together
	Sends     int           // durable sends a second, with those that probe the shards
	Settle    time.Duration // within which all must be well after the last fault; 0: 45 s
	Loopback  bool          // no network namespaces, even as root
	JSON      bool          // the report on Out, instead of a table
	Report    string        // directory of the report, the servers' logs and audit files
	Serve     []string      // more flags for each server
	Out       io.Writer     // results
	Progress  io.Writer     // progress and notes
	Terminal  bool          // Progress is a terminal
}

// Scenario is a named choice of faults.
type Scenario struct {
	Name, Help string
	faults     []fault // one of them at a time, chosen by the seed
	grow       bool    // begins with one core; the others join under load
	birth      bool    // a new cluster for each fault, and no load
}

// Scenarios in the order in which they are documented and run.
var Scenarios = []Scenario{
	{Name: "kill-core", Help: "kill -9 of one core", faults: []fault{killCore}},
	{Name: "kill-majority", Help: "kill -9 of a majority of the cores at once", faults: []fault{killMajority}},
	{Name: "kill-all", Help: "kill -9 of every core at once", faults: []fault{killAll}},
	{Name: "kill-edge", Help: "kill -9 of an edge: its clients go elsewhere", faults: []fault{killEdge}},
	{Name: "pause", Help: "SIGSTOP of a core or an edge for 1 to 30 s", faults: []fault{pauseCore, pauseEdge}},
	{Name: "partition", Help: "a core, or a minority with an edge, cut off on all ports", faults: []fault{partition}},
	{Name: "partition-one-way", Help: "one core is heard and does not hear, or the reverse", faults: []fault{oneWay}},
	{Name: "partition-bridge", Help: "two halves that only one core connects", faults: []fault{bridge}},
	{Name: "partition-gossip", Help: "gossip is cut, Raft is not", faults: []fault{gossipOnly}},
	{Name: "partition-raft", Help: "Raft is cut, gossip is not", faults: []fault{raftOnly}},
	{Name: "rolling", Help: "SIGTERM and restart of one node after the other", faults: []fault{rolling}},
	{Name: "wipe", Help: "a core loses its disk and joins again under its name", faults: []fault{wipe}},
	{Name: "disk-full", Help: "the disk of a core fills up: to its reserve, or to the last byte", faults: []fault{diskLow, diskFull}},
	{Name: "double-start", Help: "a second process on one data directory", faults: []fault{doubleStart}},
	{Name: "growth", Help: "1 core, then all of them; drains and returns, kills", faults: []fault{drainCore, killCore}, grow: true},
	{Name: "birth", Help: "empty servers become one cluster; one is late, killed or cut off meanwhile", faults: []fault{lateStart, killStarting, cutStarting}, birth: true},
	{Name: "random", Help: "any of the above, one after the other"},
}

// everyFault lists the faults that a running cluster can have, each once.
func everyFault() (list []fault) {
	for _, s := range Scenarios {
		for _, f := range s.faults {
			if !s.birth && !slices.Contains(list, f) {
				list = append(list, f)
			}
		}
	}
	return list
}

// Names of all scenarios.
func Names() []string {
	names := make([]string, len(Scenarios))
	for i, s := range Scenarios {
		names[i] = s.Name
	}
	return names
}

const (
	defaultLength = 2 * time.Minute
	defaultSettle = 45 * time.Second
	maxNodes      = 60 // each is a subnet
)

// Check completes o; its errors are bad usage.
func (o *Options) Check() error {
	for _, name := range o.Scenarios {
		if !slices.Contains(Names(), name) {
			return fmt.Errorf("no scenario %q; there are %s", name, strings.Join(Names(), ", "))
		}
	}
	if o.Length == 0 {
		o.Length = defaultLength
	}
	if o.Settle == 0 {
		o.Settle = defaultSettle
	}
	switch n := o.Cores + o.Edges + o.Both; {
	case o.Cores < 0 || o.Edges < 0 || o.Both < 0 || o.Cores+o.Both < 1:
		return fmt.Errorf("--cores, --edges, --both: there must be a core, or a node that is both")
	case n > maxNodes:
		return fmt.Errorf("--cores, --edges, --both: %d nodes; at most %d", n, maxNodes)
	case n > 1 && o.Edges+o.Both == 0:
		return fmt.Errorf("--edges, --both: clients need an edge to connect to")
	case o.Sessions < 2 || o.Sessions > 5000:
		return fmt.Errorf("--sessions: %d; write 2 to 5000", o.Sessions)
	case o.Sends < 1 || o.Sends > 10000:
		return fmt.Errorf("--sends: %d a second; write 1 to 10000", o.Sends)
	case o.Watches < 1 || o.Watches > 1000:
		return fmt.Errorf("--watches: %d; write 1 to 1000", o.Watches)
	case o.Changes < 1 || o.Changes > 10000:
		return fmt.Errorf("--changes: %d a second; write 1 to 10000", o.Changes)
	case o.Faults < 0 || o.Hold < 0:
		return fmt.Errorf("--faults, --hold: must not be negative")
	case o.Length < time.Second:
		return fmt.Errorf("--minutes: too short")
	}
	return nil
}
