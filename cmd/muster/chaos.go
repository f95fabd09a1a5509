package main

import (
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"muster/cmd/muster/chaos"
)

func chaosCommand() *cobra.Command {
	opt := chaos.Options{}
	var minutes float64
	var help strings.Builder
	for _, s := range chaos.Scenarios {
		help.WriteString("  " + s.Name + strings.Repeat(" ", max(1, 19-len(s.Name))) + s.Help + "\n")
	}
	cmd := &cobra.Command{
		Use:   "chaos [SCENARIO…]",
		Short: "Break a cluster on purpose, and check what its clients see",
		Long: `Start a cluster of servers on this machine, use it, break it by a plan that --seed decides, and
check that nothing that was acknowledged is lost and everybody sees who is there. As root each server
has a network namespace of its own; else all share the loopback interface, and faults of network and
disk are left out. Without a SCENARIO all run that can.

` + help.String() + `
Exit code 1 when a check failed. docs/chaos.md says what is checked and how to read the report.`,
		Args:      cobra.OnlyValidArgs,
		ValidArgs: chaos.Names(),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			opt.Scenarios, opt.Length = slices.Clone(args), time.Duration(minutes*float64(time.Minute))
			opt.Out, opt.Progress, opt.Terminal = cmd.OutOrStdout(), cmd.ErrOrStderr(), isTerminal(os.Stderr)
			if err := opt.Check(); err != nil {
				return err
			}
			return fault(chaos.Run(ctx, opt))
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&opt.Seed, "seed", 0, "of the plan and the workload (default: a random one, which is printed)")
	f.Float64Var(&minutes, "minutes", 2, "how long each scenario breaks things")
	f.IntVar(&opt.Faults, "faults", 0, "end each scenario after so many faults, not after its minutes")
	f.DurationVar(&opt.Hold, "hold", 0, "how long each fault lasts (default: chosen by the seed)")
	f.IntVar(&opt.Cores, "cores", 3, "servers with the role core; with 1, and no edges, one plain server")
	f.IntVar(&opt.Edges, "edges", 2, "servers with the role edge")
	f.IntVar(&opt.Both, "both", 0, "servers with both roles")
	f.IntVar(&opt.Sessions, "sessions", 60, "users who come, go and watch each other")
	f.IntVar(&opt.Watches, "watches", 8, "users whom each of them watches")
	f.IntVar(&opt.Changes, "changes", 10, "changes of status, coming and going: a second, by all of them together")
	f.IntVar(&opt.Sends, "sends", 200, "durable sends a second, 164 of them to probe the shards")
	f.DurationVar(&opt.Settle, "settle", 45*time.Second, "within which all must be well after a fault")
	f.BoolVar(&opt.Loopback, "loopback", false, "no network namespaces, even as root")
	f.BoolVar(&opt.JSON, "json", false, "print the report as JSON")
	f.StringVar(&opt.Report, "report", "muster-chaos", "directory of the report, the servers' logs and audit files; replaced scenario by scenario")
	f.StringArrayVar(&opt.Serve, "serve", nil, "one more flag for each server, such as --serve=--gogc=50")
	return cmd
}

// chaosWritersCommand is the child process of `muster chaos`.
func chaosWritersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "chaos-writers", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fault(chaos.Writers(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
}
