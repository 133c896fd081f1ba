package host

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/gracerun/grace/handoff/socket"
)

// wasteful are programs that close connections which they have accepted, when they end. Measured: docs/recipes/README.md.
var wasteful = []string{"puma", "uwsgi", "daphne", "waitress-serve", "waitress"}

// SharedSocketHint is for a program that would lose some of a queue which it shares with its successor. Another one may
// start it: bundle exec puma, python3 -m daphne.
func SharedSocketHint(o Options) string {
	at := slices.IndexFunc(o.Command, isWasteful)
	if at < 0 || !o.shares() {
		return ""
	}
	return fmt.Sprintf("%s may lose new connections of a socket that it shares with its successor "+
		"(use --listen ADDR?steer=true, or leave --listen out)", filepath.Base(o.Command[at]))
}

// Unpaused gives the address at which an app loses new connections that closes what it accepts while it stops, or "": who accepts from a shared
// socket is told to stop in a pause of it, which is a part of the farewell, and which a unix path cannot have.
func Unpaused(o Options) string {
	at := slices.IndexFunc(o.Listen, func(a socket.Address) bool {
		return shared(a) && a.Steerable() && (a.Unix() || o.Policy.Farewell == 0)
	})
	if at < 0 || SharedSocketHint(o) != "" {
		return ""
	}
	return o.Listen[at].Addr
}

// shares reports whether generations accept connections from the same queue, and need not.
func (o Options) shares() bool {
	return slices.ContainsFunc(o.Listen, func(a socket.Address) bool { return shared(a) && a.Steerable() })
}

func isWasteful(word string) bool {
	program := filepath.Base(word)
	return slices.ContainsFunc(wasteful, func(name string) bool { return isProgram(program, name) })
}
