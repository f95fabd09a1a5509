package meta

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"muster/persistence"
)

// director is the part of an agent whose node leads group 0: it holds the State of its term.
type director struct {
	cfg *Config

	mu        sync.Mutex
	engine    Engine
	term      uint64 // 0: not leader
	loaded    bool   // state is of term
	state     State  // with what is proposed and not yet committed
	seq       uint64 // proposed last
	committed uint64
	waiters   []waiter
	reports   Reports
	asking    map[uint64]bool
	ordering  map[uint32]bool
	given     []time.Time // leaderships moved in the last second
}

type waiter struct {
	seq  uint64
	done chan error
}

// Opened, Closed and Committed come from the engine's goroutine.
func (d *director) opened(term uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.term, d.loaded, d.seq, d.committed, d.state = term, false, 0, 0, State{}
	d.reports, d.asking, d.ordering, d.given = Reports{}, map[uint64]bool{}, map[uint32]bool{}, nil
}

func (d *director) closed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.term, d.loaded = 0, false
	for _, w := range d.waiters {
		w.done <- ErrNotLeader
	}
	d.waiters = nil
}

func (d *director) wrote(term, seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if term != d.term {
		return
	}
	d.committed = seq
	d.waiters = slices.DeleteFunc(d.waiters, func(w waiter) bool {
		if w.seq <= seq {
			w.done <- nil
		}
		return w.seq <= seq
	})
}

// load reads the rows of a new term, and records the birth if there are none of this cluster.
func (d *director) load(ctx context.Context) error {
	d.mu.Lock()
	term, loaded, engine := d.term, d.loaded, d.engine
	d.mu.Unlock()
	if term == 0 || engine == nil {
		return ErrNotLeader
	}
	if loaded {
		return nil
	}
	s, err := Load(d.cfg.Rows)
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.term != term {
		d.mu.Unlock()
		return ErrNotLeader
	}
	d.state, d.loaded = s, true
	d.mu.Unlock()
	if s.Cluster.ID == d.cfg.Birth.ID {
		return nil
	}
	bear, err := d.birth(engine)
	if err != nil {
		return err
	}
	return d.commit(ctx, bear)
}

// birth describes the groups that are on this node's disk.
func (d *director) birth(engine Engine) (Bear, error) {
	all, err := engine.Statuses()
	if err != nil {
		return Bear{}, err
	}
	self := d.cfg.Self
	self.State = Joining
	b := Bear{Cluster: d.cfg.Birth, Nodes: []Node{self}, Groups: make([]Group, len(all))}
	b.Cluster.Shards = len(all) - 1
	for i := range b.Groups {
		st, ok := all[uint32(i)]
		if !ok {
			return Bear{}, fmt.Errorf("meta: a cluster without group %d cannot be recorded", i)
		}
		g := &b.Groups[i]
		g.Next, g.Generation = 1, st.State.Generation
		for _, m := range st.State.Members {
			g.Next = max(g.Next, m.Replica+1)
			if m.Node == 0 {
				continue
			}
			g.Replicas = append(g.Replicas, Replica{ID: m.Replica, Node: m.Node, Voter: slices.Contains(st.State.Conf.GetVoters(), m.Replica)})
			if !slices.ContainsFunc(b.Nodes, func(n Node) bool { return n.ID == m.Node }) {
				b.Nodes = append(b.Nodes, Node{ID: m.Node, Name: fmt.Sprintf("node-%x", m.Node), State: Joining})
			}
		}
	}
	return b, nil
}

// propose commits commands in order; done hears of the last. Those that have become impossible are left out.
func (d *director) propose(cmds ...Command) (done chan error, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == 0 || !d.loaded {
		return nil, ErrNotLeader
	}
	for _, cmd := range cmds {
		now := d.cfg.Now()
		next, ops, cerr := d.state.Apply(cmd, now)
		if cerr != nil {
			err = cmp.Or(err, cerr)
			continue
		}
		if len(ops) > 0 {
			if perr := d.engine.Propose(persistence.MetaShard, d.term, d.seq+1, now.UnixMilli(), ops); perr != nil {
				return nil, perr
			}
			d.seq++
		}
		d.state = next
	}
	return d.settled(), err
}

// quiet says that all that was proposed is committed.
func (d *director) quiet() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.committed >= d.seq
}

// settled hears when all that is proposed is committed. The caller holds mu.
func (d *director) settled() chan error {
	done := make(chan error, 1)
	if d.committed >= d.seq {
		done <- nil
	} else {
		d.waiters = append(d.waiters, waiter{d.seq, done})
	}
	return done
}

func wait(ctx context.Context, done chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit returns when a command is committed.
func (d *director) commit(ctx context.Context, cmd Command) error {
	done, err := d.propose(cmd)
	if err != nil {
		return err
	}
	return wait(ctx, done)
}

// confirmed is the State at a moment after the call, all of it committed: by a read index of group 0.
func (d *director) confirmed(ctx context.Context) (State, uint64, error) {
	if err := d.load(ctx); err != nil {
		return State{}, 0, err
	}
	d.mu.Lock()
	s, term, engine, done := d.state, d.term, d.engine, d.settled()
	d.mu.Unlock()
	if err := wait(ctx, done); err != nil {
		return State{}, 0, err
	}
	read := make(chan error, 1)
	engine.ReadIndex(persistence.MetaShard, func(err error) { read <- err })
	if err := wait(ctx, read); err != nil {
		return State{}, 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term != term {
		return State{}, 0, ErrNotLeader
	}
	return s, term, nil
}

// snapshot is the State and the reports now; term 0: not leader.
func (d *director) snapshot(now time.Time) (State, Reports, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.loaded {
		return State{}, nil, 0
	}
	for id, n := range d.state.Nodes {
		if _, ok := d.reports[id]; !ok && n.State != Left {
			d.reports[id] = Report{Node: id, Asked: now}
		}
	}
	return d.state, maps.Clone(d.reports), d.term
}

// heard keeps a report unless a newer one is known.
func (d *director) heard(term uint64, r Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.term == term && !r.Asked.Before(d.reports[r.Node].Asked) {
		d.reports[r.Node] = r
	}
}

// afford says whether another leadership may be moved now: 4 a second.
func (d *director) afford(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.given = slices.DeleteFunc(d.given, func(t time.Time) bool { return now.Sub(t) >= time.Second })
	if len(d.given) >= maxLeads {
		return false
	}
	d.given = append(d.given, now)
	return true
}

func byName(nodes []Node) {
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
}
