package cmd

import (
	"fmt"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const reexecLong = `reexec replaces grace itself by the program that is now at its path, as USR2 does, and
waits until the new program has taken over. The app is not restarted, and its sockets and
connections stay open. If the new program cannot take over, the old one keeps running.
` + whichGrace + `
Exit status:
  0    the new grace process has taken over
  1    it has not; the old grace process keeps running
  2    the command line is wrong
  4    no grace process has this name, or NAME is missing and several run
  124  there was no result within --timeout
  130  interrupted`

func newReexec() *cobra.Command {
	var p waitOptions
	c := &cobra.Command{
		Use:               "reexec [NAME]",
		Short:             "Replace grace itself, without a restart of the app",
		Long:              reexecLong,
		Example:           "  install -m 755 grace-new /usr/local/bin/grace && grace reexec",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE:              func(_ *cobra.Command, args []string) error { return p.reexec(args) },
	}
	p.add(c.Flags())
	return c
}

func (p *waitOptions) reexec(args []string) error {
	found, err := find(args)
	if err != nil {
		return err
	}
	ctx, cancel := p.start()
	defer cancel()
	request := control.Request{Do: control.Reexec}
	result, err := p.ask(ctx, found, request)
	if err != nil {
		return p.explain(ctx, request, err)
	}
	if result == nil {
		return nil
	}
	if result.Outcome != control.Reexeced {
		return tell(statusFailed, "%s%s\n  the old grace process keeps running", result.Outcome, because(result.Why))
	}
	fmt.Printf("the new grace process has taken over after %s\n", seconds(result.Took))
	return nil
}
