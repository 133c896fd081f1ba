package cmd

import (
	"errors"
	"fmt"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
)

const stopLong = `stop drains the app, as TERM does, and waits until grace has ended.
` + whichGrace + `
Exit status:
  0    grace has ended
  1    grace refused, or cannot be reached
  2    the command line is wrong
  4    no grace process has this name, or NAME is missing and several run
  124  grace has not ended within --timeout; the stop goes on
  130  interrupted; the stop goes on`

func newStop() *cobra.Command {
	var p waitOptions
	now := false
	c := &cobra.Command{
		Use:               "stop [NAME]",
		Short:             "Stop grace and its app, and wait until they have ended",
		Long:              stopLong,
		Example:           "  grace stop web\n  grace stop web --timeout 10s || grace stop web --now",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE:              func(_ *cobra.Command, args []string) error { return p.stop(args, now) },
	}
	p.add(c.Flags())
	c.Flags().BoolVar(&now, "now", false, "kill the app instead of letting it finish, as QUIT does")
	return c
}

func (p *waitOptions) stop(args []string, now bool) error {
	found, err := find(args)
	if err != nil {
		return err
	}
	ctx, cancel := p.start()
	defer cancel()
	request := control.Request{Do: control.Stop, Now: now}
	process, err := control.Watch(ctx, found.Path)
	if err != nil {
		return p.explain(ctx, request, err)
	}
	defer process.Close()
	result, err := p.ask(ctx, found, request)
	// The answer can be cut off because grace was killed, or was just ending: then only its end counts.
	if err != nil && !errors.Is(err, control.ErrCut) && !errors.Is(err, control.ErrLeaving) {
		return p.explain(ctx, request, err)
	}
	if p.noWait {
		return nil
	}
	if result != nil && result.Outcome == control.Refused {
		return tell(statusFailed, "stop refused%s", because(result.Why))
	}
	if err := process.Wait(ctx); err != nil {
		return p.explain(ctx, request, err)
	}
	fmt.Println(clean(found.Name + " has ended"))
	return nil
}
