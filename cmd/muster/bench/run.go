//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"muster/cmd/muster/progress"
)

// errFailed says that what arrived was not what had to arrive.
var errFailed = errors.New("a run failed its checks; the results name them")

// runner is one call of the benchmark.
type runner struct {
	opt     Options
	ctx     context.Context
	place   placement
	bar     progress.Bar
	results []*Result
	load    string // processes that wanted to run in the minute before the call
}

// Run executes one scenario and writes its results. The error is non-nil when a run
// could not be made or its checks of correctness failed; a missed goal is none.
func Run(ctx context.Context, opt Options) error {
	scenarios := map[string]func(*runner) error{
		"floor": (*runner).floor, "idle": (*runner).idle, "connect": (*runner).connect, "watch": (*runner).watch,
		"churn": (*runner).churn, "slow": (*runner).slow, "growth": (*runner).growth,
		"send": (*runner).send, "offline": (*runner).offline, "groups": (*runner).groups,
		"across": (*runner).across, "cluster": (*runner).cluster,
	}
	scenario, ok := scenarios[opt.Scenario]
	if !ok {
		return fmt.Errorf("no scenario %q", opt.Scenario)
	}
	if opt.Key == "" {
		opt.Key = childKey
	}
	if opt.APIKey == "" {
		opt.APIKey = childKey
	}
	r := &runner{opt: opt, ctx: ctx, load: loadBefore(), bar: progress.Bar{W: opt.Progress, On: opt.Terminal && !opt.JSON}}
	var err error
	if r.place, err = place(); err != nil {
		return err
	}
	err = scenario(r)
	r.bar.Clear()
	if !opt.JSON && len(r.results) > 0 {
		writeTable(opt.Out, r.results)
		if notes := r.results[0].Notes; notes["server"] != "" {
			fmt.Fprintf(opt.Out, "%s\nraised: %s\n", notes["server"], notes["raised"])
			fmt.Fprintf(opt.Out, "load of the machine before: %s\n", notes["load"])
		}
	}
	return err
}

// done keeps a result, and prints it at once when lines are wanted. It returns errFailed
// when the run failed: what follows would measure a broken state.
func (r *runner) done(result *Result, err error) error {
	if err != nil {
		result.Error = err.Error()
	}
	if r.opt.URL == "" {
		result.Notes["server"] = fmt.Sprintf("child on core %d; generator on core %d", r.place.server, r.place.generator)
		result.Notes["raised"] = strings.Join(append(raised, r.opt.Serve...), " ")
	}
	result.Notes["load"] = r.load
	r.results = append(r.results, result)
	if r.opt.JSON {
		if err := result.writeJSON(r.opt.Out); err != nil {
			return err
		}
	}
	if err != nil {
		return errFailed
	}
	return nil
}

func (r *runner) conns(def int) int {
	if r.opt.Conns > 0 {
		return r.opt.Conns
	}
	return def
}

func (r *runner) duration(def time.Duration) time.Duration {
	if r.opt.Duration > 0 {
		return r.opt.Duration
	}
	return def
}

// raised are the limits that a single generator would hit first.
var raised = []string{
	"--conn-rate", "1000000", "--conn-burst", "1000000", "--user-rate", "1000000",
	"--admit-new", "1000000", "--admit-resume", "1000000",
}

// server is the one given by --url, or a child with more flags.
func (r *runner) server(flags ...string) (*target, error) {
	if r.opt.URL != "" {
		return running(r.opt)
	}
	return startChild(r.place, r.serveArgs("bench", flags...)...)
}

// serveArgs are the arguments of a child server with the name given and more flags.
func (r *runner) serveArgs(name string, flags ...string) []string {
	args := append([]string{"serve", "--dev", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--node-name", name, "--pprof", "--log-level", "warn"}, raised...)
	return append(append(args, flags...), r.opt.Serve...)
}

func (r *runner) floorChild(kind string, conns, fan int) (*target, error) {
	return startChild(r.place, "bench", "floor-server", kind, fmt.Sprint(conns), fmt.Sprint(fan))
}

// measured runs f and returns what the server used meanwhile.
func (r *runner) measured(f *fleet, run func() error) (cost, error) {
	cpu, begin := f.t.cpu(), time.Now()
	self := selfCPU()
	err := run()
	c := cost{wall: time.Since(begin), cpu: f.t.cpu() - cpu, generator: selfCPU() - self}
	return c, err
}

// cost of one measured stretch.
type cost struct {
	wall, cpu time.Duration
	generator time.Duration // CPU of the generator
}

// busy is the share of a core that the generator used, 0 to 1.
func (c cost) busy() float64 { return float64(c.generator) / float64(max(c.wall, 1)) }

func (c cost) put(r *Result) {
	r.set("server_cpu_%", 100*c.cpu.Seconds()/c.wall.Seconds())
	r.set("generator_busy_%", 100*c.busy())
	r.set("wall_s", c.wall.Seconds())
}
