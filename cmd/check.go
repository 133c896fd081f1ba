package cmd

import (
	"fmt"

	"github.com/gracerun/grace/supervisor"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/spf13/cobra"
)

const checkLong = `check reads a command line of grace run, with its --config file and GRACE_ variables, as run
would, and looks up the command, the directory, the user and the environment file. It starts
nothing and binds nothing.

Exit status:
  0  grace run would accept the command line
  1  it would not: each error names the line of the file, if the file is wrong
  2  the command line of check itself is wrong`

const checkExample = `  grace check --config /etc/grace/shop.toml
  grace check --listen :8080 -- ./app`

func newCheck() *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:     "check [flags] [-- command [argument...]]",
		Short:   "Check a command line of grace run and its --config file",
		Long:    checkLong,
		Example: checkExample,
		RunE: func(c *cobra.Command, command []string) error {
			o, err := f.read(c.Flags(), command)
			if err == nil {
				err = lookUp(o)
			}
			if err != nil {
				return tell(statusFailed, "%v", err)
			}
			fmt.Println("ok")
			return nil
		},
	}
	f.add(c.Flags())
	c.Flags().SetInterspersed(false)
	return c
}

// lookUp finds what a first generation would need.
func lookUp(o supervisor.Options) error {
	settled, err := o.Settled()
	if err != nil {
		return err
	}
	launch, err := host.Resolve(settled)
	if err != nil {
		return err
	}
	launch.Program.Close()
	return nil
}
