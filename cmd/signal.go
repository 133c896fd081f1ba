package cmd

import (
	"context"
	"fmt"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const signalLong = `signal sends a signal to the main processes of the current generation; before the first
generation serves, to its processes. So the app can get signals that grace uses itself, such
as HUP and USR2. SIGNAL is a name, with or without SIG, or a number.

For a program that can only send grace a signal, see --signal of grace run.
` + whichGrace + `
Exit status:
  0    the signal was sent
  1    no process of the app is running, or grace cannot be reached
  2    the command line is wrong
  4    no grace process has this name, or NAME is missing and several run
  124  there was no answer within --timeout
  130  interrupted`

func newSignal() *cobra.Command {
	var p waitOptions
	c := &cobra.Command{
		Use:               "signal [NAME] SIGNAL",
		Short:             "Send a signal to the app",
		Long:              signalLong,
		Example:           "  grace signal web USR2\n  grace signal HUP",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNames,
		RunE: func(_ *cobra.Command, args []string) error {
			last := len(args) - 1
			sig, known := control.ParseSignal(args[last])
			if !known {
				return fmt.Errorf("%q: no such signal (write HUP, USR2 ...)", args[last])
			}
			return p.signal(args[:last], control.Request{Do: control.Signal, Signal: sig})
		},
	}
	c.Flags().Var((*span)(&p.timeout), "timeout", "stop waiting for the answer after this time")
	return c
}

func (p *waitOptions) signal(args []string, r control.Request) error {
	found, err := find(args)
	if err != nil {
		return err
	}
	ctx, cancel := p.start()
	defer cancel()
	result, err := p.askQuietly(ctx, found, r)
	if err != nil {
		return p.explain(ctx, r, err)
	}
	if result.Outcome != control.Signalled {
		return tell(statusFailed, "signal %s%s", result.Outcome, because(result.Why))
	}
	fmt.Printf("%s sent to generation %d\n", control.SignalName(r.Signal), result.Generation)
	return nil
}

// askQuietly shows no reports: they are about what else happens.
func (p *waitOptions) askQuietly(ctx context.Context, found control.Found, r control.Request) (control.Result, error) {
	client := control.NewClient(found.Path)
	defer client.Close()
	answer, err := client.Ask(ctx, r)
	if err != nil {
		return control.Result{}, err
	}
	defer answer.Close()
	return answer.Wait(func(control.Report) {})
}
