package supervisor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gracerun/grace/handoff"
)

// wasteful are programs that close connections which they have accepted, when they end. Measured: docs/recipes/README.md.
var wasteful = []string{"puma", "uwsgi", "daphne", "waitress-serve"}

// sharedSocketHint is for a program that would lose some of a queue which it shares with its successor.
func sharedSocketHint(o Options) string {
	program := filepath.Base(o.Command[0])
	known := slices.ContainsFunc(wasteful, func(name string) bool { return isProgram(program, name) })
	shares := slices.ContainsFunc(o.Listen, func(a handoff.Address) bool { return !a.Steer && strings.HasPrefix(a.Network, "tcp") })
	if !known || !shares {
		return ""
	}
	return fmt.Sprintf("%s may lose new connections of a socket that it shares with its successor "+
		"(use --listen ADDR?steer=true, or leave --listen out)", program)
}
