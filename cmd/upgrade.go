package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/gracerun/grace/supervisor/control"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const upgradeLong = `upgrade starts a new generation, as HUP does, and waits for the result. Meanwhile it shows
the progress. A command after -- replaces the present command, from this generation on.
If the upgrade fails, the old generation keeps serving.
` + whichGrace + `
Exit status:
  0    the new generation serves
  1    the upgrade failed, was undone or refused; the old generation still serves
  2    the command line is wrong
  3    a later request with another command took its place
  4    no grace process has this name, or NAME is missing and several run
  124  there was no result within --timeout; the upgrade goes on
  130  interrupted; the upgrade goes on`

const upgradeExample = `  grace upgrade
  grace upgrade web -- ./app-v2 --port 8080
  grace upgrade web --canary 5%:1m,25%:5m
  grace upgrade web --timeout 2m || journalctl -u web -n 50`

func newUpgrade() *cobra.Command {
	var p waitOptions
	var canary, maxSurge string
	c := &cobra.Command{
		Use:               "upgrade [NAME] [flags] [-- command [argument...]]",
		Aliases:           []string{"reload"},
		Short:             "Start a new generation and wait until it serves",
		Long:              upgradeLong,
		Example:           upgradeExample,
		Args:              nameAndCommand,
		ValidArgsFunction: completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			name, command := args, []string(nil)
			if dash := c.ArgsLenAtDash(); dash >= 0 {
				name, command = args[:dash], args[dash:]
			}
			return p.replace(name, control.Request{Do: control.Upgrade, Command: command, Canary: canary, MaxSurge: maxSurge}, "upgraded")
		},
	}
	p.add(c.Flags())
	addStrategy(c.Flags(), &canary, &maxSurge, "", "as grace run was told")
	return c
}

// addStrategy adds the flags that say how a new generation takes the place of the old one.
func addStrategy(flags *pflag.FlagSet, canary, maxSurge *string, surge, otherwise string) {
	flags.StringVar(canary, "canary", "", "give the new generation only a share of the new connections at first, as `SHARE%[:TIME],...`: 5%:1m,25%:5m; a step without a time lasts until grace promote (default: "+otherwise+")")
	flags.StringVar(maxSurge, "max-surge", surge, "how many instances may run beside the old ones during an upgrade, as a number or a percentage: with 1 they are replaced one by one, with 0 an old one ends before a new one starts, while clients wait")
}

func nameAndCommand(c *cobra.Command, args []string) error {
	dash := c.ArgsLenAtDash()
	switch {
	case dash < 0 && len(args) > 1:
		return errors.New("more than one name was given (write -- before the new command, as in: grace upgrade web -- ./app)")
	case dash < 0 && len(args) == 1 && isProgram(args[0]):
		return fmt.Errorf("%s is not a control socket (to start another command, write -- before it: grace %s -- %s)", args[0], c.Name(), args[0])
	case dash > 1:
		return errors.New("more than one name was given before --")
	case dash >= 0 && (len(args) == dash || args[dash] == ""):
		return errors.New("no command after -- (leave -- out to run the same command again)")
	}
	return nil
}

// isProgram says whether a path leads to something else than a control socket.
func isProgram(path string) bool {
	if !strings.Contains(path, "/") {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() != fs.ModeSocket
}

// replace asks for another generation and ends as that ends.
func (p *waitOptions) replace(args []string, r control.Request, done string) error {
	return p.answer(args, r, func(result control.Result) error { return conclude(result, done) })
}

// answer asks for one operation, and ends as tell has it.
func (p *waitOptions) answer(args []string, r control.Request, tell func(control.Result) error) error {
	found, err := find(args)
	if err != nil {
		return err
	}
	ctx, cancel := p.start()
	defer cancel()
	result, err := p.ask(ctx, found, r)
	if err != nil {
		return p.explain(ctx, r, err)
	}
	if result == nil {
		return nil
	}
	return tell(*result)
}
