package meta

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"muster/persistence"
)

var handlers map[string]handler

func init() {
	handlers = map[string]handler{
		methodJoin: (*Agent).join, methodHold: (*Agent).hold, methodView: (*Agent).view, methodDrain: (*Agent).drain,
		methodRemove: (*Agent).remove, methodReport: (*Agent).answerReport, methodOrder: (*Agent).obey,
	}
}

// elsewhere adds who leads group 0 to ErrNotLeader.
func (a *Agent) elsewhere(err error) error {
	if !errors.Is(err, ErrNotLeader) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &refused{of: ErrNotLeader, text: err.Error(), leader: a.told.Leader}
	if a.engine != nil {
		if node, _ := a.engine.Leader(persistence.MetaShard); node != 0 {
			r.leader = node
		}
	}
	if r.leader == a.cfg.Self.ID {
		r.leader = 0 // it is about to
	}
	for _, n := range a.told.Nodes {
		if n.ID == r.leader {
			r.addr = n.Raft
		}
	}
	return r
}

func (a *Agent) join(ctx context.Context, _ uint64, req json.RawMessage) (any, error) {
	var n Node
	if err := request(req, &n); err != nil {
		return nil, err
	}
	if err := a.director.load(ctx); err != nil {
		return nil, err
	}
	if err := a.director.commit(ctx, Enter{Node: n}); err != nil {
		return nil, err
	}
	kick(a.opens)
	s, _, err := a.director.confirmed(ctx)
	if err != nil {
		return nil, err
	}
	nodes := slices.Collect(maps.Values(s.Nodes))
	byName(nodes)
	return Joined{Cluster: s.Cluster, Nodes: nodes}, nil
}

func (a *Agent) view(_ context.Context, _ uint64, _ json.RawMessage) (any, error) {
	now := a.cfg.Now()
	s, reports, term := a.director.snapshot(now)
	if term == 0 || !s.Born() {
		return nil, ErrNotLeader
	}
	p := newPlanner(s, reports, now)
	p.observe()
	return p.whole(a.cfg.Self.ID), nil
}

// named finds a node for an operator.
func (a *Agent) named(ctx context.Context, name string) (Node, error) {
	s, _, err := a.director.confirmed(ctx)
	if err != nil {
		return Node{}, err
	}
	n, ok := s.Find(name)
	if !ok {
		return Node{}, fmt.Errorf("%w: %q", ErrNoNode, name)
	}
	return n, nil
}

func (a *Agent) drain(ctx context.Context, _ uint64, req json.RawMessage) (any, error) {
	var r drainRequest
	if err := request(req, &r); err != nil {
		return nil, err
	}
	n, err := a.named(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	defer kick(a.opens)
	return struct{}{}, a.director.commit(ctx, Drain{Node: n.ID, Drain: r.Drain, Reduce: r.Reduce})
}

func (a *Agent) remove(ctx context.Context, _ uint64, req json.RawMessage) (any, error) {
	var name string
	if err := request(req, &name); err != nil {
		return nil, err
	}
	n, err := a.named(ctx, name)
	if err != nil {
		return nil, err
	}
	if n.State != Down && n.State != Lost {
		return nil, fmt.Errorf("%w: %s is %v", ErrAlive, name, n.State)
	}
	defer kick(a.opens)
	return struct{}{}, a.director.commit(ctx, Mark{Node: n.ID, To: Lost})
}

// answerReport is this node's heartbeat. It comes from the engine's loop: a node whose disk hangs reports nothing.
func (a *Agent) answerReport(_ context.Context, _ uint64, req json.RawMessage) (any, error) {
	var t told
	if err := request(req, &t); err != nil {
		return nil, err
	}
	a.mu.Lock()
	engine := a.engine
	if t.Term < a.told.Term {
		a.mu.Unlock()
		return nil, fmt.Errorf("%w: term %d of group 0 is over", ErrBadRequest, t.Term)
	}
	a.told = t
	a.mu.Unlock()
	a.cfg.Told(t.Cluster, slices.Clone(t.Nodes))
	all, err := engine.Statuses()
	if err != nil {
		return nil, err
	}
	r := Report{Node: a.cfg.Self.ID, Incarnation: a.cfg.Self.Incarnation, UpMs: a.cfg.Now().Sub(a.began).Milliseconds(), Yields: engine.Yields()}
	holds := map[uint32]uint64{}
	for _, group := range slices.Sorted(maps.Keys(all)) {
		s := all[group]
		holds[group] = s.State.Replica
		r.Replicas = append(r.Replicas, ReplicaReport{
			Group: group, ID: s.State.Replica, Term: s.Term, Leader: s.Leader, Open: s.Open, Generation: s.State.Generation,
			Applied: s.State.Applied, Conf: s.State.Conf, Behind: s.Behind, CaughtUp: s.CaughtUp,
		})
		if s.Open != 0 {
			r.Replicas[len(r.Replicas)-1].Members = s.State.Members
		}
	}
	if digest(holds) != t.Holds {
		kick(a.differs)
	}
	return r, nil
}

// digest of what a node holds.
func digest(holds map[uint32]uint64) uint64 {
	var b []byte
	for _, group := range slices.Sorted(maps.Keys(holds)) {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, group), holds[group])
	}
	return xxhash.Sum64(b)
}

func (a *Agent) obey(_ context.Context, _ uint64, req json.RawMessage) (any, error) {
	var o ordered
	if err := request(req, &o); err != nil {
		return nil, err
	}
	a.mu.Lock()
	engine, term := a.engine, a.told.Term
	a.mu.Unlock()
	if o.Meta < term {
		return nil, fmt.Errorf("%w: term %d of group 0 is over", ErrBadRequest, o.Meta)
	}
	if o.Order.Change != nil {
		return struct{}{}, engine.Change(o.Order.Group, *o.Order.Change)
	}
	if node, term := engine.Leader(o.Order.Group - 1); node != a.cfg.Self.ID || term != o.Order.Term {
		return nil, fmt.Errorf("%w: group %d is not led here in term %d", ErrBadRequest, o.Order.Group, o.Order.Term)
	}
	return struct{}{}, engine.Transfer(o.Order.Group-1, o.Order.Lead)
}

// held is what a node is to hold, confirmed.
type held struct {
	Replicas map[uint32]uint64 `json:"replicas"` // group → replica id
	Next     map[uint32]uint64 `json:"next"`     // group → the smallest replica id never given
}

func (a *Agent) hold(ctx context.Context, _ uint64, req json.RawMessage) (any, error) {
	var node uint64
	if err := request(req, &node); err != nil {
		return nil, err
	}
	s, _, err := a.director.confirmed(ctx)
	if err != nil {
		return nil, err
	}
	if !s.Born() || s.Nodes[node].ID == 0 {
		return nil, fmt.Errorf("%w: %d", ErrNoNode, node)
	}
	list := held{Replicas: s.Holds(node), Next: map[uint32]uint64{}}
	for i, g := range s.Groups {
		list.Next[uint32(i)] = g.Next
	}
	return list, nil
}

// holding keeps what is on this node as group 0 lists it: at the start, each minute, and when told that it differs.
func (a *Agent) holding(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	entered := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.differs:
		}
		if !entered {
			err := a.ask(ctx, methodJoin, a.cfg.Self, new(Joined))
			entered = err == nil
			a.belongs(err)
		}
		next, err := holdEvery, a.keep(ctx)
		if errors.Is(err, ErrNoNode) {
			entered = false // group 0 was recovered, and does not know of this node any more
		}
		if err != nil || !entered {
			next = holdAgain
		}
		timer.Reset(next)
	}
}

func (a *Agent) belongs(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = nil
	if errors.Is(err, ErrGone) || errors.Is(err, ErrNameInUse) || errors.Is(err, ErrVersion) {
		a.err = err
		a.log.Error("this node does not belong to the cluster", "error", err)
	}
}

// keep destroys what is not listed and creates what is.
func (a *Agent) keep(ctx context.Context) error {
	var list held
	if err := a.ask(ctx, methodHold, a.cfg.Self.ID, &list); err != nil {
		return err
	}
	a.mu.Lock()
	engine := a.engine
	a.mu.Unlock()
	all, err := engine.Statuses()
	if err != nil {
		return err
	}
	for group, s := range all {
		own := s.State.Replica
		if next, ok := list.Next[group]; ok && own >= next {
			continue // of cluster.Recover: group 0 is about to learn of it
		}
		if own < list.Replicas[group] || list.Replicas[group] == 0 {
			a.log.Info("replica destroyed: it is not listed", "group", group, "replica", own)
			err = errors.Join(err, engine.Destroy(group, own+1))
		}
	}
	for group, replica := range list.Replicas {
		if s, ok := all[group]; !ok || s.State.Replica < replica {
			err = errors.Join(err, engine.Create(group, replica))
		}
	}
	return err
}
