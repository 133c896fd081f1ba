package cmd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gracerun/grace/handoff/socket"
	"github.com/gracerun/grace/supervisor/host"
	"github.com/spf13/cobra"
)

const takeoverLong = `takeover --dry-run shows which server has an address, and whether grace run --takeover
could replace it: its processes, listeners and user, who would start it again, and which
rights are missing. It changes nothing. Run it as the user that grace will run as.

Exit status:
  0  grace run --takeover would replace what has the addresses, or nobody has them
  1  it would refuse, for the reason that is printed
  2  the command line is wrong`

const takeoverExample = `  grace takeover --dry-run :8080
  sudo grace takeover --dry-run 127.0.0.1:80 127.0.0.1:443`

func newTakeover() *cobra.Command {
	dry := false
	c := &cobra.Command{
		Use:     "takeover --dry-run address...",
		Short:   "Show what grace run --takeover would replace",
		Long:    takeoverLong,
		Example: takeoverExample,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, written []string) error {
			if !dry {
				return errors.New("use grace takeover --dry-run to look, and grace run --takeover -- COMMAND to replace the server")
			}
			return showTakeover(written)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only show what would be done")
	return c
}

func showTakeover(written []string) error {
	refused := false
	for _, one := range written {
		address, err := socket.ParseAddress(one)
		if err != nil {
			return err
		}
		servers, err := host.FindServers(address)
		if err != nil {
			refused = true
			fmt.Printf("%s: grace cannot take it over: %v\n", one, err)
			continue
		}
		if len(servers) == 0 {
			fmt.Printf("%s: nobody has this address, so there is nothing to take over\n", one)
		}
		for _, s := range servers {
			refused = refused || s.Refusal != ""
			printServer(one, s)
		}
	}
	if refused {
		return exitStatus(1)
	}
	return nil
}

func printServer(address string, s host.ServerFound) {
	fmt.Fprintf(os.Stdout, "%s: pid %d of %s: %s\n", address, s.PID, s.User, s.Command)
	fmt.Printf("  processes: %d\n  listens on: %s\n  stops on: %s\n", s.Processes, strings.Join(s.Listens, ", "), s.Signal)
	if s.Refusal != "" {
		fmt.Printf("  grace cannot take it over: %s\n", s.Refusal)
		return
	}
	fmt.Println("  grace run --takeover can replace it")
}
