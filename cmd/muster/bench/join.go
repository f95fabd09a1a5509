//go:build linux

package bench

import (
	"fmt"
	"slices"
	"time"
)

const (
	lookEvery = 50 * time.Millisecond
	joinLimit = 3 * time.Minute
)

// join starts one more core and watches how the others take it in, until all shards rest again.
func (g *growing) join() error {
	before, err := g.raftRate()
	if err != nil {
		return err
	}
	was, err := g.look()
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	if err := g.launch("core", port, "--join", g.processes.join); err != nil {
		return err
	}
	w := watching{n: len(g.cores), others: len(g.all()) - 1}
	begin := time.Now()
	is, err := g.watch(&w)
	if err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	if err := g.cores[len(g.cores)-1].await(joinLimit); err != nil {
		return err
	}
	after, err := g.raftRate()
	if err != nil {
		return err
	}
	g.put("join, replicas", float64(moved(was, is)))
	g.put("join, network", (is.sent().less(was.sent()).raft-took*(before+after)/2)/1024)
	g.put("join, heard of", ms(w.all.Sub(w.first)))
	g.put("join, settled", time.Since(w.first).Seconds())
	if lags := w.lags(); len(lags) > 0 {
		g.put("leader moves, known", ms(lags[len(lags)/2]))
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// raftRate is how many bytes a second go through the Raft ports while nothing happens but looks.
func (g *growing) raftRate() (float64, error) {
	const d = 2 * time.Second
	begin := time.Now()
	first, err := g.look()
	for last := first; err == nil; last, err = g.look() {
		if took := time.Since(begin); took > d {
			return last.sent().less(first.sent()).raft / took.Seconds(), nil
		}
		g.f.e.idle(lookEvery)
	}
	return 0, err
}

// moved counts the replicas that are where they were not before.
func moved(was, is clusterDoc) (n int) {
	for i, s := range is.Shards {
		for _, v := range s.Voters {
			if i >= len(was.Shards) || !slices.Contains(was.Shards[i].Voters, v) {
				n++
			}
		}
	}
	return n
}

// watching is what is seen of a join.
type watching struct {
	n, others  int       // cores, and processes that each one is to see
	first, all time.Time // when one, and all of those before, saw the new one
	levels     []level
}

// level is a sum of terms that some process has reached: leaders moved.
type level struct {
	terms      uint64
	first, all time.Time
}

// watch looks until the cluster is even again.
func (g *growing) watch(w *watching) (clusterDoc, error) {
	begin := time.Now()
	for {
		doc, err := g.ask("/v1/cluster?counters")
		now := time.Now()
		if err == nil && doc.silent(w.newest()) == nil {
			w.see(doc, now)
			err = doc.uneven(w.n)
		}
		switch {
		case err == nil && !w.all.IsZero() && doc.silent("") == nil:
			return doc, nil
		case g.r.ctx.Err() != nil:
			return doc, g.r.ctx.Err()
		case now.Sub(begin) > joinLimit:
			return doc, fmt.Errorf("not settled after %v: %w", joinLimit, err)
		}
		g.show("joining", now.Sub(begin).Seconds(), 30)
		g.f.e.idle(lookEvery)
	}
}

func (w *watching) newest() string { return fmt.Sprintf("core%d", w.n) }

// see notes who has heard of the new process, and who knows of which leaders.
func (w *watching) see(doc clusterDoc, now time.Time) {
	heard, old := 0, 0
	lowest, highest := ^uint64(0), uint64(0)
	for _, n := range doc.Nodes {
		if n.Name == w.newest() {
			continue // it begins with nothing
		}
		old++
		if n.Counters.Members >= w.others {
			heard++
		}
		lowest, highest = min(lowest, n.Counters.Terms), max(highest, n.Counters.Terms)
	}
	if heard > 0 && w.first.IsZero() {
		w.first = now
	}
	if heard == old && w.all.IsZero() {
		w.all = now
	}
	if last := len(w.levels) - 1; highest > 0 && (last < 0 || highest > w.levels[last].terms) {
		w.levels = append(w.levels, level{terms: highest, first: now})
	}
	for i := range w.levels {
		if l := &w.levels[i]; l.all.IsZero() && lowest >= l.terms {
			l.all = now
		}
	}
}

// lags are how long it took from the first to the last process that knew of a change, sorted. The first level is where
// everybody began.
func (w *watching) lags() (lags []time.Duration) {
	for i, l := range w.levels {
		if i > 0 && !l.all.IsZero() {
			lags = append(lags, l.all.Sub(l.first))
		}
	}
	slices.Sort(lags)
	return lags
}
