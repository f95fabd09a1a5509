//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"muster/cmd/muster/progress"
)

const generatorGC = 400

// errViolated says that a check failed, or a scenario could not be run.
var errViolated = errors.New("violations; the report names them")

// Run runs the scenarios and writes their report. The error is non-nil when something was violated or
// could not be run, and when ctx ended; everything that was started is gone when it returns.
func Run(ctx context.Context, opt Options) error {
	if err := opt.Check(); err != nil {
		return err
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64() >> 1
	}
	net, err := openNetwork(opt.Loopback)
	if err != nil {
		return err
	}
	defer net.close()
	defer debug.SetGCPercent(debug.SetGCPercent(generatorGC)) // what the clients use is not the servers' to use
	starter := newStarter()
	defer starter.close()
	r := runner{opt: opt, net: net, starter: starter, bar: progress.Bar{W: opt.Progress, On: opt.Terminal && !opt.JSON}}
	r.report = Report{Seed: opt.Seed, Replay: opt.replay(), At: time.Now().UTC()}
	fmt.Fprintf(opt.Progress, "seed %d; the same plan again: %s\n", opt.Seed, r.report.Replay)
	asked := len(opt.Scenarios) > 0
	for _, s := range Scenarios {
		if ctx.Err() != nil {
			break
		}
		if !asked || slices.Contains(opt.Scenarios, s.Name) {
			r.report.Results = append(r.report.Results, r.scenario(ctx, s, asked))
		}
	}
	r.bar.Clear()
	r.report.LeftOut = net.lacks
	if err := r.write(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; everything that was started is gone")
	}
	if r.report.bad() {
		return errViolated
	}
	return nil
}

// runner is one call.
type runner struct {
	opt     Options
	net     *network
	starter *starter
	bar     progress.Bar
	report  Report
	tried   bool // whether rules of the router have been tried
}

// scenario runs one scenario. One that was asked for and cannot run at all is an error; else it is skipped.
func (r *runner) scenario(ctx context.Context, s Scenario, asked bool) Result {
	res := Result{Scenario: s.Name}
	top := layout(r.opt)
	top.grow = s.grow
	r.report.Nodes = top.where(func(place) bool { return true })
	if err := r.try(top); err != nil {
		res.Error = err.Error()
		return res
	}
	wanted := s.faults
	if len(wanted) == 0 {
		wanted = everyFault()
	}
	can, lacks := possible(wanted, top, r.net.able)
	res.LeftOut = lacks
	if len(can) == 0 {
		res.Skipped = strings.Join(lacks, "; ")
		if asked {
			res.Error, res.Skipped = res.Skipped, ""
		}
		return res
	}
	dir := filepath.Join(r.opt.Report, s.Name)
	if err := os.RemoveAll(dir); err != nil {
		res.Error = err.Error()
		return res
	}
	c := &campaign{
		record: &record{start: time.Now()}, opt: r.opt, scenario: s, faultsOf: can, dir: dir, net: r.net, top: top, starter: r.starter,
		joined: map[string]bool{}, tell: r.tell(s.Name), show: func(part float64, what string) { r.bar.Show(what, part, 1) },
	}
	err := c.run(ctx)
	r.net.clear(c.top.places)
	c.result(&res, err)
	if !res.bad() {
		_ = os.RemoveAll(filepath.Join(dir, "data"))
	}
	return res
}

// try finds out once what the router can do, with two nodes.
func (r *runner) try(top topology) error {
	if r.tried || !r.net.namespaces || len(top.places) < 2 {
		return nil
	}
	r.tried = true
	a, b := top.places[0], top.places[1]
	if err := errors.Join(r.net.place(&a, 1), r.net.place(&b, 2)); err != nil {
		return err
	}
	r.net.tryRules(a, b)
	r.net.clear([]place{a, b})
	return nil
}

// tell writes a line above the progress bar.
func (r *runner) tell(scenario string) func(string) {
	start := time.Now()
	return func(line string) {
		r.bar.Clear()
		fmt.Fprintf(r.opt.Progress, "%7.1f s  %s: %s\n", time.Since(start).Seconds(), scenario, line)
	}
}

// result judges what was recorded.
func (c *campaign) result(res *Result, err error) {
	res.Length = c.now()
	acks, readErr := c.audits()
	if err = errors.Join(err, readErr); err != nil {
		res.Error = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	res.Faults, res.Samples, res.Gaps = c.faults, c.samples, gaps(c.probes)
	res.Leaders, res.Latency = leaders(acks, c.start), latencies(c.sends)
	fine := map[uint32]bool{}
	for shard := range fineUsers() {
		fine[shard] = true
	}
	if c.load != nil && !c.scenario.birth {
		res.Measures = measures(c.faults, pauses(c.sends, res.Leaders, shardOf, fine), c.load.exact.all())
	}
	acked := 0
	for _, s := range c.sends {
		if s.acked {
			acked++
		}
	}
	res.Counts = map[string]int{
		"faults": c.cycles, "sends": len(c.sends), "acknowledged": acked, "deliveries": len(c.steps),
		"status operations": len(c.ops), "views": len(c.views), "probes": len(c.probes),
	}
	if err == nil {
		res.Verdicts = c.judgement(acks)
	}
}

// write puts report.json and report.html into the directory, and the result where the caller reads it.
func (r *runner) write() error {
	if err := os.MkdirAll(r.opt.Report, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r.report, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.opt.Report, "report.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	page, err := r.report.page()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.opt.Report, "report.html"), page, 0o644); err != nil {
		return err
	}
	if r.opt.JSON {
		return json.NewEncoder(r.opt.Out).Encode(r.report)
	}
	r.report.writeTable(r.opt.Out)
	fmt.Fprintf(r.opt.Out, "report: %s\n", filepath.Join(r.opt.Report, "report.html"))
	return nil
}

// replay is the command line that makes the same plan again.
func (o Options) replay() string {
	line := append([]string{"muster", "chaos"}, o.Scenarios...)
	line = append(line, fmt.Sprintf("--seed %d --minutes %g --cores %d --edges %d --both %d --sessions %d --watches %d --changes %d --sends %d",
		o.Seed, o.Length.Minutes(), o.Cores, o.Edges, o.Both, o.Sessions, o.Watches, o.Changes, o.Sends))
	if o.Faults > 0 {
		line = append(line, fmt.Sprint("--faults ", o.Faults))
	}
	if o.Hold > 0 {
		line = append(line, "--hold "+o.Hold.String())
	}
	if o.Settle != defaultSettle {
		line = append(line, "--settle", o.Settle.String())
	}
	for _, s := range o.Serve {
		line = append(line, "--serve="+s)
	}
	if o.Loopback {
		line = append(line, "--loopback")
	}
	return strings.Join(line, " ")
}
