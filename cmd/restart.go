package cmd

import (
	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const restartLong = `restart replaces the app as upgrade does, but ends the old generation before the new one
starts: for an app that cannot run twice, because it locks a file or a database. Clients wait
meanwhile; none is refused. If the new generation fails, the old one starts again.
It is grace upgrade with --max-surge 0.
` + whichGrace + `
Exit status: as for grace upgrade.`

func newRestart() *cobra.Command {
	var p waitOptions
	c := &cobra.Command{
		Use:               "restart [NAME]",
		Short:             "End the old generation, then start a new one, while clients wait",
		Long:              restartLong,
		Example:           "  grace restart web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			return p.replace(args, control.Request{Do: control.Upgrade, MaxSurge: "0"}, "restarted")
		},
	}
	p.add(c.Flags())
	return c
}
