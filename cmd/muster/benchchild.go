package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"muster/cmd/muster/bench"
)

// The commands in this file are the child processes of `muster bench`.

func floorWriterCommand() *cobra.Command {
	return &cobra.Command{
		Use: "floor-writer DIR BYTES DURATION", Hidden: true, Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := count("BYTES", args[1], 1)
			if err != nil {
				return err
			}
			d, err := time.ParseDuration(args[2])
			if err != nil {
				return fmt.Errorf("DURATION: %w", err)
			}
			return fault(bench.FloorWriter(args[0], size, d, cmd.OutOrStdout()))
		},
	}
}

func trioCommand() *cobra.Command {
	var profile string
	cmd := &cobra.Command{
		Use: "trio {send|idle} SENDERS DURATION", Hidden: true, Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := count("SENDERS", args[1], 0)
			if err != nil {
				return err
			}
			d, err := time.ParseDuration(args[2])
			if err != nil {
				return fmt.Errorf("DURATION: %w", err)
			}
			if profile != "" {
				end, err := profileSelf(profile)
				if err != nil {
					return err
				}
				defer end()
			}
			if args[0] == "idle" {
				return fault(bench.TrioIdle(d, cmd.OutOrStdout()))
			}
			return fault(bench.TrioSend(max(n, 1), d, cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVar(&profile, "profile", "", "write a CPU profile to this file")
	return cmd
}

func populateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "populate DIR USERS", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := count("USERS", args[1], 1)
			if err != nil {
				return err
			}
			return fault(bench.Populate(args[0], n, cmd.OutOrStdout()))
		},
	}
}

func compactCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compact DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return fault(bench.Compact(args[0], cmd.OutOrStdout()))
		},
	}
}

func count(name, text string, least int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least {
		return 0, fmt.Errorf("%s: %q is not a count", name, text)
	}
	return n, nil
}
