package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"muster/cmd/muster/bench"
)

func benchCommand() *cobra.Command {
	var opt bench.Options
	var profile string
	cmd := &cobra.Command{
		Use:   "bench {" + strings.Join(bench.Scenarios, "|") + "}",
		Short: "Measure a server, beside the floor of this machine",
		Long: `Measure a server over its wire protocol. Without --url it is a child process pinned to
the first core; the generator is pinned to the last.

  floor    what this machine charges for WebSocket writes alone
  idle     memory and CPU of connections that do nothing                        (P1, P2)
  connect  authenticated connects, then everybody reconnects inside the grace   (P3, P8)
  watch    status changes to 50 watchers: full speed, paced, beside the floor   (P4, P5)
  churn    people come and go before 20 watchers; --duration 10m for a soak     (P7)
  slow     readers that stop reading, and go on                                 (P12)
  growth   one thing varied over three decades, with slopes                     (P11)
  send     durable sends: one node beside the floor of its disk, three nodes    (P9)
  offline  a million registered users who are away: memory, disk, restart       (P10)
  groups   what 65 Raft groups cost that have nothing to do
  across   changes through edge and core processes, beside one process          (P5)
  cluster  what follows the number of core nodes and what does not, with slopes`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: bench.Scenarios,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			opt.Scenario = args[0]
			if profile != "" {
				end, err := profileSelf(profile)
				if err != nil {
					return fault(err)
				}
				defer end()
			}
			opt.Out, opt.Progress, opt.Terminal = cmd.OutOrStdout(), cmd.ErrOrStderr(), isTerminal(os.Stderr)
			return fault(bench.Run(ctx, opt))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&opt.JSON, "json", false, "one JSON line per run")
	f.StringVar(&opt.URL, "url", "", "a running server, ws://ADDRESS:PORT/v1/ws")
	f.StringVar(&opt.API, "api", "", "its HTTP API, http://ADDRESS:PORT, for /metrics")
	f.StringVar(&opt.Key, "jwt-key", devSecret, "HS256 key of the server's tokens")
	f.StringVar(&opt.APIKey, "api-key", devSecret, "key of its HTTP API")
	f.StringVar(&opt.Issuer, "issuer", "", "iss of the tokens")
	f.StringVar(&opt.Audience, "audience", "", "aud of the tokens")
	f.IntVar(&opt.Conns, "conns", 0, "sessions (default: the scenario's own number)")
	f.DurationVar(&opt.Duration, "duration", 0, "length of each measured run (default: the scenario's own)")
	f.BoolVar(&opt.Half, "half", false, "at half of the load at which the server is full")
	f.StringVar(&opt.Only, "law", "", "growth: only this law")
	f.IntVar(&opt.Cores, "cores", 0, "across: core processes (default 1); cluster: the most of them (default 9)")
	f.IntVar(&opt.Edges, "edges", 0, "across: edge processes (default 1)")
	f.StringArrayVar(&opt.Serve, "serve", nil, "one more flag for the child server, such as --serve=--gogc=50")
	f.StringVar(&profile, "generator-profile", "", "write a CPU profile of the generator to this file")
	cmd.AddCommand(floorServerCommand(), floorWriterCommand(), trioCommand(), populateCommand(), compactCommand())
	return cmd
}

// floorServerCommand is the process that the benchmark measures as its floor.
func floorServerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "floor-server {coder|raw} CONNS FAN",
		Hidden: true,
		Args:   cobra.ExactArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			conns, err := count("CONNS", args[1], 1)
			if err != nil {
				return err
			}
			fan, err := count("FAN", args[2], 0)
			if err != nil {
				return err
			}
			return fault(bench.FloorServer(args[0], conns, fan))
		},
	}
}

// profileSelf profiles this process until end is called.
func profileSelf(name string) (end func(), err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
