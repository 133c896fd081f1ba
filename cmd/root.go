// Package cmd is the command line: one file for each command, which turns flags
// into options. It has no logic of its own.
package cmd

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/gracerun/grace/childproc"
	"github.com/spf13/cobra"
)

// Execute runs the command line of the process and returns its exit status.
func Execute() int {
	childproc.Shim()
	root := newRoot()
	err := root.Execute()
	if err == nil {
		return 0
	}
	ended := (*exitError)(nil)
	if !errors.As(err, &ended) {
		ended = &exitError{statusUsage, err}
	}
	if ended.err != nil {
		fmt.Fprintln(os.Stderr, "grace:", ended.err)
	}
	return ended.status
}

// The statuses of a command that could not begin.
const (
	statusFailure = 1
	statusUsage   = 2
)

// exitError is the end of a command with a status of its own. Any other error
// is one of usage.
type exitError struct {
	status int
	err    error // nil if all has been said
}

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d: %v", e.status, e.err) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "grace",
		Short:         "Replace a running server without a client noticing",
		Long:          rootLong,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newRun())
	return root
}

const rootLong = `grace holds a server's listening sockets, starts its new version on SIGHUP, hands it
the sockets, waits until it serves, and only then lets the old version finish.

  grace run --listen :8080 -- ./app     run a server
  kill -HUP <pid of grace>              replace it`

func version() string {
	if build, ok := debug.ReadBuildInfo(); ok && build.Main.Version != "" {
		return build.Main.Version
	}
	return "(devel)"
}
