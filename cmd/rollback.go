package cmd

import (
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const rollbackLong = `rollback starts a new generation of what served before the current one: the same file, in
the same directory, with the same arguments. A program that was replaced at its path is run from
the file that grace has kept; a script that was replaced cannot be, and the rollback fails.
Otherwise it is an upgrade, with the same care. A rollback of a rollback goes forward again.
` + whichGrace + `
Exit status: as of grace upgrade.`

func newRollback() *cobra.Command {
	var p patience
	c := &cobra.Command{
		Use:               "rollback [NAME]",
		Short:             "Go back to what ran before, and wait until it serves",
		Long:              rollbackLong,
		Example:           "  grace rollback\n  grace upgrade web -- ./app-v2 && ./smoke-test || grace rollback web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			return p.replace(args, control.Request{Do: control.Rollback}, "rolled back")
		},
	}
	p.add(c.Flags())
	return c
}
