//go:build linux

package chaos

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"muster/actors/link"
)

// inject breaks things, holds, and heals.
func (c *campaign) inject(ctx context.Context, i injection) {
	span := faultSpan{Fault: i.fault, Nodes: i.nodes, From: c.now()}
	var nodes []*node
	for _, name := range i.nodes {
		nodes = append(nodes, c.nodes[name])
	}
	var err error
	switch i.fault {
	case killEdge:
		err = c.killEdge(ctx, nodes[0], i.hold)
	case killCore, killMajority, killAll:
		each(nodes, (*node).kill)
		pause(ctx, i.hold)
		err = c.restart(nodes)
	case pauseCore, pauseEdge:
		each(nodes, func(n *node) { n.signal(syscall.SIGSTOP) })
		pause(ctx, i.hold)
		each(nodes, func(n *node) { n.signal(syscall.SIGCONT) })
	case partition, oneWay, bridge, gossipOnly, raftOnly:
		for _, k := range i.cuts {
			if err == nil {
				err = c.net.cut(cut{from: c.top.place(k[0]), to: c.top.place(k[1]), only: i.only})
			}
		}
		pause(ctx, i.hold)
		c.net.heal()
	case rolling:
		err = c.roll(ctx, nodes)
	case wipe:
		each(nodes, (*node).kill)
		pause(ctx, i.hold)
		err = c.wipe(nodes[0])
	case diskLow, diskFull:
		err = c.fill(ctx, nodes[0], i)
	case doubleStart:
		if problem := nodes[0].double(ctx); problem != nil {
			c.wrong("%v", problem)
		}
	case drainCore:
		err = c.drain(ctx, nodes[0])
	}
	if err != nil && ctx.Err() == nil {
		c.wrong("%v: %v", i, err)
	}
	span.To = c.now()
	c.recover(ctx, i)
	span.Whole = c.now()
	c.note(func() { c.faults = append(c.faults, span) })
}

func each(nodes []*node, f func(*node)) {
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() { f(n) })
	}
	all.Wait()
}

func (c *campaign) restart(nodes []*node) error {
	for _, n := range nodes {
		if n.running() {
			continue
		}
		if err := n.start(); err != nil {
			return err
		}
	}
	return nil
}

// roll restarts one node after the other, each when the one before is well again.
func (c *campaign) roll(ctx context.Context, nodes []*node) error {
	for _, n := range nodes {
		if ctx.Err() != nil {
			return nil
		}
		if err := n.stop(stopPatience); err != nil {
			c.wrong("%v", err)
		}
		if err := n.start(); err != nil {
			return err
		}
		if err := c.whole(ctx, c.opt.Settle); err != nil && ctx.Err() == nil {
			c.wrong("after the restart of %s: %v", n.name, err)
		}
	}
	return nil
}

// wipe empties the node's directory and lets it join again.
func (c *campaign) wipe(n *node) error {
	entries, err := os.ReadDir(n.data) // the directory may be a disk of its own
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(n.data, e.Name())); err != nil {
			return err
		}
	}
	return n.start()
}

// fill leaves little of a node's disk free. The server may end by itself when a write fails.
func (c *campaign) fill(ctx context.Context, n *node, i injection) error {
	n.allow(true)
	if err := c.net.shrink(n.data, i.amount); err != nil {
		return err
	}
	pause(ctx, i.hold)
	if err := c.net.shrink(n.data, -1); err != nil {
		return err
	}
	pause(ctx, poll) // one that is about to end
	n.allow(false)
	return c.restart([]*node{n})
}

// drain moves everything away from a node, stops it, and lets it come back as a new one.
func (c *campaign) drain(ctx context.Context, n *node) error {
	if err := c.empty(ctx, n); err != nil {
		return err
	}
	return c.wipe(n)
}

// empty moves everything away from a node and stops it.
func (c *campaign) empty(ctx context.Context, n *node) error {
	var asked struct{}
	other := c.top.place(rest(c.top.cores(), []string{n.name})[0])
	if err := c.load.call(ctx, other, 4*callPatience, http.MethodPost, "/v1/nodes/"+n.name+"/drain", "{}", &asked); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, growPatience)
	defer cancel()
	for {
		state, err := c.clusterState(limited)
		if err == nil && state.replicas(n.name) == 0 {
			break
		}
		if !pause(limited, poll) {
			return fmt.Errorf("drain: %s still holds %d replicas after %v", n.name, state.replicas(n.name), growPatience)
		}
	}
	return n.stop(stopPatience)
}

// replicas is how many voters a shard has in a cluster that is large enough.
const replicas = 3

// clusterState is the answer of /v1/cluster.
type clusterState struct {
	Cluster string `json:"cluster"`
	Nodes   []struct {
		Name  string `json:"name"`
		Role  string `json:"role"`
		State string `json:"state"`
		Holds int    `json:"holds"`
		Meta  bool   `json:"meta"`
	} `json:"nodes"`
	Shards []struct {
		Shard    uint32   `json:"shard"`
		Leader   string   `json:"leader"`
		Voters   []string `json:"voters"`
		Learners []string `json:"learners"`
	} `json:"shards"`
}

// active lists the cores that are there and in use.
func (s clusterState) active() (names []string) {
	for _, n := range s.Nodes {
		if n.State == "active" && n.Role != string(edge) {
			names = append(names, n.Name)
		}
	}
	return names
}

func (s clusterState) replicas(name string) (n int) {
	for _, shard := range s.Shards {
		for _, r := range append(append([]string(nil), shard.Voters...), shard.Learners...) {
			if r == name {
				n++
			}
		}
	}
	return n
}

// lacks says what is missing until each shard has a leader and its voters, and nobody that is gone votes.
func (s clusterState) lacks(cores int) string {
	voters := 1
	if cores >= replicas {
		voters = replicas
	}
	var list []string
	for _, n := range s.Nodes { // a name is no proof: a node that lost its disk comes back as another one
		if n.State != "active" && (n.Holds > 0 || n.Meta) {
			list = append(list, fmt.Sprintf("%s, which is %s, still votes in %d shards (meta group: %v)", n.Name, n.State, n.Holds, n.Meta))
		}
	}
	for _, shard := range s.Shards {
		if shard.Leader == "" || len(shard.Voters) < voters {
			list = append(list, fmt.Sprintf("shard %d: leader %q, voters %v, learners %v", shard.Shard, shard.Leader, shard.Voters, shard.Learners))
		}
	}
	if len(list) > 5 {
		list = append(list[:5], fmt.Sprintf("and %d more", len(list)-5))
	}
	return strings.Join(list, "; ")
}

// clusterState asks one core after the other; an edge does not know.
func (c *campaign) clusterState(ctx context.Context) (s clusterState, err error) {
	for _, name := range c.top.cores() {
		if !c.joined[name] {
			continue
		}
		if err = c.load.call(ctx, c.top.place(name), callPatience, http.MethodGet, "/v1/cluster", "", &s); err == nil {
			return s, nil
		}
	}
	return s, err
}

// whole waits until every server that was started is ready and, in a cluster, every shard has a leader and its voters.
func (c *campaign) whole(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		why := c.lacking(ctx)
		if why == "" {
			return nil
		}
		if !pause(ctx, poll) {
			return fmt.Errorf("%s", why)
		}
	}
}

func (c *campaign) lacking(ctx context.Context) string {
	cores := 0
	for name := range c.joined {
		n := c.nodes[name]
		if !n.running() {
			return name + " does not run"
		}
		var any struct{}
		if err := c.load.call(ctx, n.place, callPatience, http.MethodGet, "/readyz", "", &any); err != nil {
			return fmt.Sprintf("%s: %v", name, err)
		}
		if n.stores() {
			cores++
		}
	}
	if c.top.places[0].role == single {
		return ""
	}
	s, err := c.clusterState(ctx)
	if err != nil {
		return fmt.Sprintf("/v1/cluster: %v", err)
	}
	c.nodes[c.top.cores()[0]].belongs(s.Cluster)
	if len(s.Shards) < link.Shards {
		return fmt.Sprintf("/v1/cluster knows %d shards", len(s.Shards))
	}
	return s.lacks(cores)
}
