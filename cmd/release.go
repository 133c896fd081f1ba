package cmd

import (
	"fmt"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/spf13/cobra"
)

const releaseLong = `release ends grace and leaves the app running, with its sockets and connections. From
then on nobody supervises the app: it is not restarted, and cannot be upgraded. An app
whose sockets were captured can call neither bind nor listen any more (both fail with
ENOSYS); what it has open is not affected.

Under a service manager, grace releases the app only if --release-status is set: the
status has to keep the manager from starting grace again, and the manager must not end
the app with grace. The unit files of grace are set up for it.

To come back without a restart, see grace run --takeover.
` + whichGrace + `
Exit status:
  0    grace has ended, and the app runs
  1    grace refused: an upgrade or a drain is in progress, or the service manager or
       container would end the app together with grace
  2    the command line is wrong
  4    no grace process has this name, or NAME is missing and several run
  124  there was no result within --timeout
  130  interrupted`

func newRelease() *cobra.Command {
	var p waitOptions
	c := &cobra.Command{
		Use:               "release [NAME]",
		Short:             "End grace, and leave the app running without it",
		Long:              releaseLong,
		Example:           "  grace release web",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeNames,
		RunE:              func(_ *cobra.Command, args []string) error { return p.release(args) },
	}
	p.add(c.Flags())
	return c
}

func (p *waitOptions) release(args []string) error {
	found, err := find(args)
	if err != nil {
		return err
	}
	ctx, cancel := p.start()
	defer cancel()
	request := control.Request{Do: control.Release}
	process, err := control.Watch(ctx, found.Path)
	if err != nil {
		return p.explain(ctx, request, err)
	}
	defer process.Close()
	service := host.ServiceOf(process.PID)
	result, err := p.ask(ctx, found, request)
	if err != nil {
		return p.explain(ctx, request, err)
	}
	if result == nil {
		return nil
	}
	if result.Outcome != control.Released {
		return tell(statusFailed, "release %s%s", result.Outcome, because(result.Why))
	}
	if err := process.Wait(ctx); err != nil {
		return p.explain(ctx, request, err)
	}
	fmt.Println(clean(found.Name + " has ended, and its app continues to run"))
	if service != "" {
		fmt.Println(clean(fmt.Sprintf("the unit %s starts another app when it is started again (systemctl disable %s)", service, service)))
	}
	return nil
}
