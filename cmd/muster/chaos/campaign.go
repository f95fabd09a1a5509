//go:build linux

package chaos

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"muster/actors/link"
)

const (
	startPatience = 2 * time.Minute // until all servers of a new cluster are ready
	growPatience  = 3 * time.Minute // until replicas that were lost are whole again
	stopPatience  = time.Minute
	growEach      = 5 * time.Second
	poll          = 200 * time.Millisecond
	drains        = 200 // sessions a second that a drained edge sends away, if it has all
)

// campaign is one scenario with a cluster of its own.
type campaign struct {
	*record
	opt      Options
	scenario Scenario
	faultsOf []fault
	dir      string
	net      *network
	top      topology
	nodes    map[string]*node
	starter  *starter
	load     *load
	writers  *writers
	people   []*person
	bound    bounds                          // of those who stay away after an edge was killed
	tell     func(string)                    // one line about what happens
	show     func(part float64, what string) // progress

	joined   map[string]bool // nodes that have been started
	verdicts []verdict
	born     verdict // of a scenario that is about births
	cycles   int
}

// prepare makes namespaces and directories; nothing runs yet.
func (c *campaign) prepare() error {
	for i := range c.top.places {
		p := &c.top.places[i]
		p.data = filepath.Join(c.dir, "data", p.name)
		if err := c.net.place(p, i+1); err != nil {
			return err
		}
		if p.stores() && c.diskFaults() {
			if err := c.net.mount(p.data); err != nil {
				return err
			}
		}
	}
	for _, sub := range []string{"logs", "audit"} {
		if err := os.MkdirAll(filepath.Join(c.dir, sub), 0o755); err != nil {
			return err
		}
	}
	c.nodes = map[string]*node{}
	for _, p := range c.top.places {
		c.nodes[p.name] = &node{
			place: p, starter: c.starter, crashed: c.crashed, logFile: filepath.Join(c.dir, "logs", p.name+".log"),
			args: c.arguments(p),
		}
	}
	return nil
}

// arguments of the process of a node.
func (c *campaign) arguments(p place) []string {
	window := max(time.Second, time.Duration(c.opt.Sessions)*time.Second/drains)
	return c.top.arguments(p, c.auditFile(p.name), append([]string{"--drain-window", window.String()}, c.opt.Serve...))
}

func (c *campaign) diskFaults() bool {
	return slices.Contains(c.faultsOf, diskLow) || slices.Contains(c.faultsOf, diskFull)
}

func (c *campaign) auditFile(name string) string { return filepath.Join(c.dir, "audit", name+".jsonl") }

func (c *campaign) crashed(n *node, how string) {
	c.wrong("%s ended by itself: %s", n.name, how)
}

// wrong notes a violation that no history shows.
func (c *campaign) wrong(format string, args ...any) {
	text := fmt.Sprintf("%v: ", c.now().Round(time.Millisecond)) + fmt.Sprintf(format, args...)
	c.note(func() { c.crashes = append(c.crashes, text) })
	c.tell("WRONG " + text)
}

// run goes from the start of the servers to their end. An error is the campaign's own.
func (c *campaign) run(ctx context.Context) error {
	defer func() {
		for _, n := range c.nodes {
			n.kill()
		}
	}()
	if err := c.prepare(); err != nil {
		return err
	}
	var fronts []place
	for _, name := range c.top.fronts() {
		fronts = append(fronts, c.top.place(name))
	}
	if c.scenario.birth {
		return c.births(ctx)
	}
	c.load = newLoad(ctx, c.record, fronts, c.opt)
	defer c.load.http.CloseIdleConnections()
	first := c.top.places
	if c.top.grow {
		first = slices.DeleteFunc(slices.Clone(first), func(p place) bool { return p.stores() && p.name != c.top.cores()[0] })
	}
	if err := c.launch(ctx, first); err != nil {
		return err
	}
	soft, cancel := context.WithCancel(ctx)
	defer cancel()
	work, stop := context.WithCancel(soft)
	defer stop()
	c.people = c.load.people(c.opt)
	c.bound = c.absentBounds()
	var err error
	c.writers, err = c.write(soft, fronts)
	if err != nil {
		return err
	}
	end := c.work(work, soft)
	c.breakThings(ctx)
	pause(ctx, aftermath) // what comes next is a load of its own, which nothing measured may meet
	stop()
	end()
	c.verdicts = append(c.verdicts, c.settle(ctx))
	if n := len(c.joined); n > 1 {
		c.verdicts = append(c.verdicts, c.balance(ctx))
	}
	if err := c.writers.end(); err != nil && ctx.Err() == nil { // else they were killed because the campaign ends
		return err
	}
	c.load.probeAll(ctx, c.opt.Settle)
	if len(c.top.cores()) > 1 {
		c.verdicts = append(c.verdicts, c.replicas(ctx))
	}
	c.measure(ctx)
	cancel()
	for _, p := range c.people {
		p.leave(false)
	}
	c.load.running.Wait()
	c.shutdown()
	return context.Cause(ctx)
}

// launch starts nodes and waits until they are ready.
func (c *campaign) launch(ctx context.Context, places []place) error {
	for _, p := range places {
		if err := c.nodes[p.name].start(); err != nil {
			return err
		}
		c.joined[p.name] = true
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for _, p := range places {
		if err := c.nodes[p.name].awaitReady(ctx); err != nil {
			return fmt.Errorf("the cluster did not start: %w", err)
		}
	}
	return c.whole(ctx, startPatience)
}

// work starts the workload and waits until everybody is there; end waits for what stops with work.
func (c *campaign) work(work, soft context.Context) (end func()) {
	c.load.readers(soft)
	c.load.statuses(work, soft)
	n := 0
	for some := range slices.Chunk(c.people, maxObserved) {
		for range observersEach {
			c.load.observe(soft, fmt.Sprint("o", n), some)
			n++
		}
	}
	var living, arriving sync.WaitGroup
	for _, p := range c.people {
		arriving.Add(1)
		living.Go(func() { p.live(work, arriving.Done) })
	}
	arriving.Wait()
	return func() {
		c.writers.rest()
		living.Wait()
	}
}

// progress shows how far the faults are, until stop is called; say names what happens now.
func (c *campaign) progress() (say func(string), stop func()) {
	begin, what := time.Now(), "warming up"
	stopping := make(chan struct{})
	var bar sync.WaitGroup
	bar.Go(func() {
		for {
			select {
			case <-stopping:
				return
			case <-time.After(poll):
				c.note(func() {
					part := float64(time.Since(begin)) / float64(c.opt.Length)
					if c.opt.Faults > 0 {
						part = float64(c.cycles) / float64(c.opt.Faults)
					}
					c.show(part, fmt.Sprintf("%s  %d faults  %s", c.scenario.Name, c.cycles, what))
				})
			}
		}
	})
	return func(s string) { c.note(func() { what = s }) }, func() {
		close(stopping)
		bar.Wait()
	}
}

// over ends when no new fault is to begin.
func (c *campaign) over(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.opt.Faults > 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.opt.Length)
}

// each has do inject one fault after the other until the time is over, or their number; one at least.
func (c *campaign) each(ctx, over context.Context, say func(string), do func(*planner, injection)) {
	plan := newPlanner(c.opt.Seed, c.faultsOf, c.top, c.opt.Length/3)
	for wait := ctx; wait.Err() == nil && (c.opt.Faults == 0 || c.cycles < c.opt.Faults); wait = over {
		after, i := plan.next()
		if c.opt.Hold > 0 && i.hold > 0 {
			i.hold = c.opt.Hold
		}
		say("")
		if !pause(wait, after) {
			break
		}
		say(i.String())
		c.tell(i.String())
		do(plan, i)
		c.note(func() { c.cycles++ })
	}
}

// breakThings injects faults under load.
func (c *campaign) breakThings(ctx context.Context) {
	say, stop := c.progress()
	defer stop()
	over, cancel := c.over(ctx)
	defer cancel()
	c.growUp(over)
	c.each(ctx, over, say, func(_ *planner, i injection) {
		c.inject(ctx, i)
		c.measure(ctx)
	})
	if c.top.grow {
		c.shrink(ctx)
	}
}

// growUp starts the cores that a growing cluster does not begin with. From then on the first one joins like the others: if it
// came back without its data and without --join, it would be a cluster of its own.
func (c *campaign) growUp(ctx context.Context) {
	for _, p := range c.top.places {
		if c.joined[p.name] || !pause(ctx, growEach) {
			continue
		}
		c.tell("join " + p.name)
		from := c.now()
		if err := c.launch(ctx, []place{p}); err != nil {
			c.wrong("join of %s: %v", p.name, err)
		}
		c.note(func() {
			c.faults = append(c.faults, faultSpan{Fault: join, Nodes: []string{p.name}, From: from, To: c.now()})
		})
	}
	if c.top.grow {
		c.top.grown = true
		first := c.nodes[c.top.cores()[0]]
		first.args = c.arguments(first.place)
	}
}

// shrink takes cores away for good until as many are left as hold each shard.
func (c *campaign) shrink(ctx context.Context) {
	cores := c.top.cores()
	for len(cores) > replicas && ctx.Err() == nil {
		name := cores[len(cores)-1]
		cores = cores[:len(cores)-1]
		c.tell("leave " + name)
		span := faultSpan{Fault: leave, Nodes: []string{name}, From: c.now()}
		err := c.empty(ctx, c.nodes[name])
		delete(c.joined, name)
		span.To = c.now()
		if err = cmp.Or(err, c.whole(ctx, c.opt.Settle)); err != nil && ctx.Err() == nil {
			c.wrong("%s leaves: %v", name, err)
		}
		span.Whole = c.now()
		c.note(func() { c.faults = append(c.faults, span) })
	}
}

// recover waits until every server is ready again and has its replicas.
func (c *campaign) recover(ctx context.Context, i injection) {
	limit := c.opt.Settle
	if i.fault == wipe || i.fault == drainCore {
		limit = growPatience
	}
	if err := c.whole(ctx, limit); err != nil && ctx.Err() == nil {
		c.wrong("not whole %v after %v: %v", limit, i, err)
	}
}

// settle waits, after the load has ended, until presence is right everywhere and all that was
// acknowledged has arrived.
func (c *campaign) settle(ctx context.Context) verdict {
	c.show(1, c.scenario.Name+"  settling")
	allowed := c.allowed()
	limited, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	begin := time.Now()
	final(limited, c.people)
	want, have := judge(c.people)
	v := converged(want, have)
	for len(v.Violations) > 0 && pause(limited, poll) {
		v = converged(want, have)
	}
	c.explain(ctx, want, have)
	v.Note = fmt.Sprintf("after %v; allowed %v", time.Since(begin).Round(time.Millisecond), allowed)
	patience, cancel := context.WithTimeout(ctx, c.opt.Settle)
	defer cancel()
	for c.load.missing() > 0 && pause(patience, poll) {
	}
	return v
}

// allowed is the time until presence must be right: where servers with clients were broken, the storm guard may hold
// back that some of these have left.
func (c *campaign) allowed() time.Duration {
	fronts := c.top.fronts()
	for _, f := range c.faults {
		if slices.ContainsFunc(f.Nodes, func(name string) bool { return slices.Contains(fronts, name) }) {
			return max(c.opt.Settle, c.bound.latest)
		}
	}
	return c.opt.Settle
}

// explained is how many wrong views are explained.
const explained = 5

// explain keeps what the servers know of the first views that are wrong beside the report.
func (c *campaign) explain(ctx context.Context, want []expected, have func(watcher, user string) viewed) {
	n := 0
	for _, w := range want {
		if n == explained {
			return
		}
		if w.unlike(have(w.watcher, w.user)) == "" {
			continue
		}
		n++
		for _, front := range c.load.fronts {
			var said json.RawMessage
			if err := c.load.call(ctx, front, callPatience, http.MethodGet, "/v1/explain/"+w.user+"?watcher="+w.watcher, "", &said); err != nil {
				said = []byte(err.Error())
			}
			name := fmt.Sprintf("explain-%s-%s-%s.json", w.user, w.watcher, front.name)
			if err := os.WriteFile(filepath.Join(c.dir, name), said, 0o644); err != nil {
				c.tell(err.Error())
			}
		}
	}
}

// shutdown stops all servers in good order.
func (c *campaign) shutdown() {
	for _, kind := range []bool{false, true} { // edges first
		var all sync.WaitGroup
		for _, n := range c.nodes {
			if n.stores() == kind {
				all.Go(func() {
					if err := n.stop(stopPatience); err != nil {
						c.wrong("%v", err)
					}
				})
			}
		}
		all.Wait()
	}
}

// audits reads all audit files. The last line may be torn by a kill.
func (c *campaign) audits() ([]acknowledged, error) {
	var list []acknowledged
	for _, name := range c.top.cores() {
		f, err := os.Open(c.auditFile(name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var a acknowledged
			if json.Unmarshal(lines.Bytes(), &a) == nil {
				list = append(list, a)
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// judgement runs all checkers over what was recorded.
func (c *campaign) judgement(acks []acknowledged) []verdict {
	if c.scenario.birth {
		return []verdict{c.born.done(), c.orderly()}
	}
	stale := time.Duration(0)
	if len(c.top.cores()) > 1 {
		stale = staleReads
	}
	var excused []presentSpan
	for _, f := range c.faults {
		for _, n := range f.Nodes {
			excused = append(excused, presentSpan{node: n, from: f.From, to: f.To})
		}
	}
	ids := map[string][]string{}
	for name, n := range c.nodes {
		ids[name] = n.belonged()
	}
	return append(c.verdicts,
		ackedSet(c.sends, c.devices, c.steps), streamOrder(c.sends, c.steps), linearizable(c.ops, stale, c.picture), fence(acks, c.sends),
		monotone(c.views), falseOffline(c.views, c.spans, excused, c.opt.Settle), offlineInTime(c.views, c.absences, c.bound),
		available(c.probes, link.Shards),
		oneCluster(ids), leaks(c.samples), c.orderly())
}

// orderly is what no history shows.
func (c *campaign) orderly() verdict {
	v := verdict{Checker: "processes", Examined: len(c.joined), Of: "servers", Violations: c.crashes}
	return v.done()
}

// picture keeps the history of a user's status beside the report.
func (c *campaign) picture(user string, draw func(io.Writer) error) {
	f, err := os.Create(filepath.Join(c.dir, "status-"+user+".html"))
	if err == nil {
		err = errors.Join(draw(f), f.Close())
	}
	if err != nil {
		c.tell(fmt.Sprintf("no picture of the status of %s: %v", user, err))
	}
}

// staleReads is by how much a read may be behind while a leader has not noticed that it is cut off: the
// hard bound that the project promises.
const staleReads = 2500 * time.Millisecond
