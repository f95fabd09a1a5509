package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"muster/cmd/muster/members"
	"muster/persistence"
)

func restoreCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "restore FILE|- --data DIR",
		Short: "Make a data directory out of a backup",
		Long: `Make a data directory out of a backup (- is standard input). DIR must not exist or be empty. The
new directory is a new node of a cluster with a history of its own: outboxes have new epochs, so devices that read them
before are told to fetch their state again.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				return fmt.Errorf("--data: name the directory to restore into")
			}
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return faultf("cannot read %s: %w", args[0], rootCause(err))
				}
				defer f.Close()
				in = f
			}
			sum, err := restore(dir, in)
			if err != nil {
				return storageFault(dir, err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d rows restored into %s; start it with muster serve --data %s\n", sum.Rows, dir, dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "data", "", "the new data directory")
	return cmd
}

// restore makes a directory beside dir and gives it that name when it is complete.
func restore(dir string, in io.Reader) (sum persistence.Summary, err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return sum, &persistence.Error{Code: persistence.ErrNotEmpty, Text: "it has something in it; name a new directory"}
	}
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return sum, err
	}
	making, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".restoring-*")
	if err != nil {
		return sum, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(making)
		}
	}()
	if sum, err = persistence.Restore(making, in, persistence.Options{Ballast: -1, Create: &persistence.Identity{Node: members.NewID()}}); err != nil {
		return sum, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return sum, err
	}
	return sum, os.Rename(making, dir)
}
