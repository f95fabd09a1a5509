package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(os.Args[1:])) }

// run executes one command line and returns the exit code.
func run(args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.Execute()
	if err != nil {
		fmt.Fprintln(root.ErrOrStderr(), "muster: "+oneLine(err.Error()))
	}
	return exitCode(err)
}

// exitCode is 0 without an error, 1 for a fault and 2 for bad usage.
func exitCode(err error) int {
	var f faultError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return 1
	}
	return 2
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "muster",
		Short:         "Muster tells an application who is there",
		Long:          "Muster tells an application who is there.\n\nTry it:  muster serve --dev   and open the printed address in two browser tabs.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serveCommand(), tokenCommand(), watchCommand(), explainCommand(), backupCommand(), restoreCommand(), unsafeRecoverCommand(), inspectCommand(),
		clusterCommand(), topCommand(), drainCommand(), removeCommand(), benchCommand(), chaosCommand(), chaosWritersCommand(), versionCommand())
	return root
}

// faultError marks an error that is not the fault of the command line: exit code 1.
// Every other error is bad usage: exit code 2.
type faultError struct{ error }

func (f faultError) Unwrap() error { return f.error }

// fault marks err as a fault; nil stays nil.
func fault(err error) error {
	if err == nil {
		return nil
	}
	return faultError{err}
}

func faultf(format string, args ...any) error { return fault(fmt.Errorf(format, args...)) }

// rootCause is the innermost error, without the request's own words.
func rootCause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
