package meta

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const (
	callFor    = 2 * time.Second        // how long a node may take to answer
	collectFor = 500 * time.Millisecond // how long a round waits for reports
)

// told is what rides on the question for a report.
type told struct {
	Term    uint64   `json:"term"`   // of group 0
	Leader  uint64   `json:"leader"` // of group 0: node
	Cluster Cluster  `json:"cluster"`
	Nodes   []Node   `json:"nodes"`
	Leaders []uint64 `json:"leaders"` // node of each shard's leader; 0: unknown
	Holds   uint64   `json:"holds"`   // digest of what the node is to hold
}

// ordered is an Order under the term of group 0.
type ordered struct {
	Meta  uint64 `json:"meta"`
	Order Order  `json:"order"`
}

// say logs a command: what happens to nodes for operators, what happens to groups for those who look closer.
func (a *Agent) say(s *State, cmd Command) {
	if raise, ok := cmd.(Raise); ok {
		a.log.Info("meta: every node knows the next version of records, which is written from now on: no older build can join", "version", raise.Records)
		return
	}
	if mark, ok := cmd.(Mark); ok {
		a.log.Info("meta: a node's state", "node", s.Nodes[mark.Node].Name, "was", s.Nodes[mark.Node].State, "is", mark.To)
		return
	}
	a.log.Debug("meta: "+strings.TrimPrefix(fmt.Sprintf("%T", cmd), "meta."), "command", fmt.Sprintf("%+v", cmd))
}

// round asks all nodes, plans, commits and orders. busy: the next should come soon.
func (a *Agent) round(ctx context.Context) (busy bool) {
	d := &a.director
	ctx, cancel := context.WithTimeout(ctx, 2*callFor)
	defer cancel()
	if err := d.load(ctx); err != nil {
		return false
	}
	a.collect(ctx)
	now := a.cfg.Now()
	s, reports, term := d.snapshot(now)
	if term == 0 || !s.Born() {
		return true
	}
	steps := Plan(s, reports, now)
	var cmds []Command
	var orders []Order
	for _, step := range steps {
		switch step := step.(type) {
		case Command:
			cmds = append(cmds, step)
			a.say(&s, step)
		case Order:
			orders = append(orders, step)
		}
	}
	done, err := d.propose(cmds...)
	if err != nil {
		a.log.Warn("a planned step is refused", "error", err)
	}
	if done == nil || wait(ctx, done) != nil {
		return true
	}
	for _, o := range orders {
		if o.Lead == 0 || d.afford(now) {
			a.order(term, o)
		}
	}
	busy = len(steps) > 0
	for _, g := range s.Groups {
		busy = busy || g.Move != nil
	}
	return busy
}

// collect asks every node for its report and waits a little. One that has not answered yet is not asked again.
func (a *Agent) collect(ctx context.Context) {
	d := &a.director
	now := a.cfg.Now()
	s, reports, term := d.snapshot(now)
	if term == 0 {
		return
	}
	if !d.quiet() {
		s.Cluster.Records = 0 // what is written follows what is committed
	}
	p := newPlanner(s, reports, now)
	p.observe()
	t := told{Term: term, Leader: a.cfg.Self.ID, Cluster: s.Cluster, Leaders: make([]uint64, s.Cluster.Shards)}
	for i := range t.Leaders {
		t.Leaders[i] = p.groups[i+1].node
	}
	for _, id := range p.ids {
		t.Nodes = append(t.Nodes, s.Nodes[id])
	}
	byName(t.Nodes)
	answered := make(chan struct{}, len(p.ids))
	asked := 0
	for _, id := range p.ids {
		if s.Nodes[id].State == Left || !d.begin(term, id) {
			continue
		}
		asked++
		t.Holds = digest(s.Holds(id))
		req := marshal(t)
		a.running.Go(func() {
			a.report(term, id, req)
			answered <- struct{}{}
		})
	}
	limit := time.NewTimer(collectFor)
	defer limit.Stop()
	for range asked {
		select {
		case <-answered:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (d *director) begin(term, node uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term != term || d.asking[node] {
		return false
	}
	d.asking[node] = true
	return true
}

func (a *Agent) report(term, node uint64, req []byte) {
	d := &a.director
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.term == term {
			delete(d.asking, node)
		}
	}()
	asked := a.cfg.Now()
	var r Report
	if err := a.call(a.ctx, node, methodReport, req, &r); err != nil || r.Node != node {
		return
	}
	r.Asked = asked
	d.heard(term, r)
}

// order sends one to the node it is for, unless the last one for the group is still on its way.
func (a *Agent) order(term uint64, o Order) {
	d := &a.director
	d.mu.Lock()
	busy := d.term != term || d.ordering[o.Group]
	if !busy {
		d.ordering[o.Group] = true
	}
	d.mu.Unlock()
	if busy {
		return
	}
	req := marshal(ordered{Meta: term, Order: o})
	a.running.Go(func() {
		if err := a.call(a.ctx, o.Node, methodOrder, req, new(struct{})); err != nil {
			a.log.Debug("an order was not executed", "group", o.Group, "node", o.Node, "error", err)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.term == term {
			delete(d.ordering, o.Group)
		}
	})
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // no type here can fail
	}
	return b
}
