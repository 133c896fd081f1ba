package cmd

import (
	"fmt"
	"strconv"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const scaleLong = `scale changes the number of instances. More are started from what the current generation runs,
and get connections when all of them are ready; if one fails, the number stays as it was.
Those that are too many finish what they have, and end. TTIN and TTOU do the same by one.
` + whichGrace + `
Exit status:
  0    as many instances serve
  1    the new instances failed, or grace refused
  2    the command line is wrong
  3    a later request took its place
  4    no grace process has this name, or NAME is missing and several run
  124  there was no result within --timeout; the operation goes on
  130  interrupted; the operation goes on`

func newScale() *cobra.Command {
	var p waitOptions
	c := &cobra.Command{
		Use:               "scale [NAME] INSTANCES",
		Short:             "Change the number of instances",
		Long:              scaleLong,
		Example:           "  grace scale web 4",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			last := len(args) - 1
			n, err := strconv.Atoi(args[last])
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of instances (write grace scale NAME 4)", args[last])
			}
			return p.scale(args[:last], n)
		},
	}
	p.add(c.Flags())
	return c
}

func (p *waitOptions) scale(args []string, instances int) error {
	return p.answer(args, control.Request{Do: control.Scale, Instances: instances}, func(r control.Result) error {
		switch r.Outcome {
		case control.Scaled:
			fmt.Printf("scaled to %s of generation %d\n", counted(r.Instances, "instance", "instances"), r.Generation)
			return nil
		case control.Failed:
			return tell(statusFailed, "failed%s\n  there are still %s", because(r.Why), counted(r.Instances, "instance", "instances"))
		}
		return conclude(r, "")
	})
}
