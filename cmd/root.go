// Package cmd is the command line: one file for each command, which turns flags
// into options. It has no logic of its own.
package cmd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gracerun/grace/cmd/demo"
	"github.com/spf13/cobra"
)

// Execute runs the command line of the process and returns its exit status.
func Execute() int {
	root := newRoot()
	err := withRun(root, root.Execute())
	if err == nil {
		return 0
	}
	if ended := interface{ ExitStatus() int }(nil); errors.As(err, &ended) {
		return ended.ExitStatus()
	}
	fmt.Fprintln(os.Stderr, "grace:", err)
	return statusUsage
}

// withRun tells whoever left run out how a server is run.
func withRun(root *cobra.Command, err error) error {
	if _, rest, unknown := root.Find(os.Args[1:]); unknown == nil || len(rest) == 0 || !strings.Contains(rest[0], "/") {
		return err
	}
	return fmt.Errorf("%w (to run a server, write grace run -- %s)", err, strings.Join(os.Args[1:], " "))
}

// statusUsage is for a wrong command line: it is the status of any error that has none of
// its own.
const statusUsage = 2

// exitStatus ends a command that has already written its error.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitStatus is the exit status of the process.
func (e exitStatus) ExitStatus() int { return int(e) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "grace",
		Short:         "Replace a running server without losing a request",
		Long:          rootLong,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(
		newRun(), newUpgrade(), newRestart(), newRollback(), newPromote(), newScale(), newStatus(), newStop(), newList(), newReexec(), newTakeover(), newRelease(), newUnit(), newCheck(), newSignal(), newLogs(),
		newDoctor(), newDoctorPatient(), demo.Command(), demo.AppCommand(), demo.PlainCommand(), newMan(), newVersion())
	root.SetFlagErrorFunc(withNearestFlag)
	root.InitDefaultCompletionCmd()
	return root
}

const rootLong = `grace runs a server so that it can be replaced without losing a request. On SIGHUP it starts
the new version, waits until that serves, and then stops the old one. The listening sockets
are never closed.

  grace run -- ./app                    run a server that binds its own port
  grace run --listen :8080 -- ./app     run a server that can take a socket
  grace upgrade                         replace it, and wait until the new version serves
  grace status                          show its state
  grace doctor                          check what works on this machine
  grace demo                            show upgrades under load`
