package cmd

import (
	"fmt"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const promoteLong = `promote gives a generation that has a share of the new connections (--canary) the share of the
next step, or all of them after the last one. grace rollback gives all of them back to the
old generation instead.
` + whichGrace + `
Exit status: as for grace upgrade; 1 if no generation has a share.`

func newPromote() *cobra.Command {
	var p waitOptions
	fully := false
	c := &cobra.Command{
		Use:               "promote [NAME]",
		Short:             "Give a canary its next share of the new connections",
		Long:              promoteLong,
		Example:           "  grace upgrade web --no-wait --canary 5%\n  grace promote web --fully",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE:              func(_ *cobra.Command, args []string) error { return p.promote(args, fully) },
	}
	p.add(c.Flags())
	c.Flags().BoolVar(&fully, "fully", false, "give it all new connections at once")
	return c
}

func (p *waitOptions) promote(args []string, fully bool) error {
	return p.answer(args, control.Request{Do: control.Promote, Fully: fully}, func(r control.Result) error {
		if r.Outcome != control.Promoted {
			return conclude(r, "")
		}
		fmt.Printf("promoted: generation %d gets %s of the new connections\n", r.Generation, percent(r.Share))
		return nil
	})
}
