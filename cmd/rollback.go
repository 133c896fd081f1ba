package cmd

import (
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const rollbackLong = `rollback starts a new generation from what served before the current one: the same file, in
the same directory, with the same arguments. If the program was replaced at its path, grace runs
the old file, which it has kept open. If the command is a script that was replaced, the rollback
fails. What an interpreter reads, as node reads server.js, is not kept: the rollback runs it as it is
now, so give each release a directory of its own.
Apart from that it works as an upgrade does. A second rollback goes forward again.
` + whichGrace + `
Exit status: as for grace upgrade.`

const rolledBack = "rolled back"

func newRollback() *cobra.Command {
	var p waitOptions
	c := &cobra.Command{
		Use:               "rollback [NAME]",
		Short:             "Go back to the version that ran before, and wait until it serves",
		Long:              rollbackLong,
		Example:           "  grace rollback\n  grace upgrade web -- ./app-v2 && ./smoke-test || grace rollback web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			return p.replace(args, control.Request{Do: control.Rollback}, rolledBack)
		},
	}
	p.add(c.Flags())
	return c
}
