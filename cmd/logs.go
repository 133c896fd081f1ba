package cmd

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"github.com/gracerun/grace/supervisor"
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const logsLong = `logs shows the last lines of grace's log and of the app's output, where they can be read
again: in the journal (by journalctl) or in a file (by tail). If they go to a terminal or
to another process, logs says which, and ends with status 1.
` + whichGrace + `
Exit status:
  0    the lines were shown
  1    they cannot be read again: the message says where they go
  2    the command line is wrong
  4    no grace process has this name, or NAME is missing and several run`

func newLogs() *cobra.Command {
	l := logsShown{}
	c := &cobra.Command{
		Use:               "logs [NAME]",
		Short:             "Show the log of grace and the output of the app",
		Long:              logsLong,
		Example:           "  grace logs web --follow\n  grace logs web --lines 1000",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE:              func(_ *cobra.Command, args []string) error { return l.show(args) },
	}
	c.Flags().BoolVarP(&l.follow, "follow", "f", false, "show new lines as they come, until it is interrupted")
	c.Flags().UintVarP(&l.lines, "lines", "n", 100, "number of lines to show")
	return c
}

// logsShown says how much of a log is wanted.
type logsShown struct {
	follow bool
	lines  uint
}

func (l logsShown) show(args []string) error {
	found, err := find(args)
	if err != nil {
		return err
	}
	outputs, err := outputsOf(found)
	if err != nil {
		return tell(statusFailed, "cannot tell where the output of %s goes: %v", found.Name, err)
	}
	command, shown := l.command(outputs)
	for i, o := range outputs {
		if !shown[i] {
			fmt.Fprintln(os.Stderr, clean(fmt.Sprintf("grace: the %s of %s goes to %s", o.name, found.Name, o.Where)))
		}
	}
	if command == nil {
		return exitStatus(statusFailed)
	}
	program, err := exec.LookPath(command[0])
	if err == nil {
		err = syscall.Exec(program, command, os.Environ())
	}
	return tell(statusFailed, "cannot show %s: %v", outputs[slices.Index(shown, true)].Where, err)
}

// namedOutput is one or both of a process's streams.
type namedOutput struct {
	supervisor.Output
	name string
}

func outputsOf(found control.Found) ([]namedOutput, error) {
	l := askOne(found)
	if l.Status == nil {
		return nil, fmt.Errorf("%s", l.Error)
	}
	out, err := supervisor.OutputOf(l.Status.PID, 1)
	if err != nil {
		return nil, err
	}
	errors, err := supervisor.OutputOf(l.Status.PID, 2)
	if err != nil {
		return nil, err
	}
	if out == errors {
		return []namedOutput{{out, "output"}}, nil
	}
	return []namedOutput{{errors, "standard error, with grace's log,"}, {out, "standard output"}}, nil
}

// command shows all files, or the journal, and says which outputs those are.
func (l logsShown) command(outputs []namedOutput) (command []string, shown []bool) {
	shown = make([]bool, len(outputs))
	for i, o := range outputs {
		if o.Unit == "" || command != nil {
			continue
		}
		which := "--unit"
		if o.UserUnit {
			which = "--user-unit"
		}
		command, shown[i] = []string{"journalctl", "--no-pager", which, o.Unit, "--lines", l.count()}, true
		if l.follow {
			command = append(command, "--follow")
		}
	}
	if command != nil {
		return command, shown
	}
	for i, o := range outputs {
		if o.File == "" {
			continue
		}
		if command == nil {
			command = []string{"tail", "-n", l.count()}
			if l.follow {
				command = append(command, "-f")
			}
			command = append(command, "--")
		}
		command, shown[i] = append(command, o.File), true
	}
	return command, shown
}

func (l logsShown) count() string { return strconv.FormatUint(uint64(l.lines), 10) }
