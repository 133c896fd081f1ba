package handoff

import (
	"os"
	"slices"
	"testing"

	"github.com/gracerun/grace/handoff/internal/apptest"
	"github.com/gracerun/grace/handoff/socket"
)

// hold binds an address until the end of the test.
func hold(t *testing.T, written string) *socket.Listener {
	t.Helper()
	return apptest.Hold(t, written, socket.ParseAddress, socket.Bind)
}

func issue(t *testing.T, dialects []string, listeners ...*socket.Listener) *socket.SocketPlan {
	t.Helper()
	d, err := socket.ParseDialects(dialects)
	apptest.Must(t, err)
	g, err := d.Plan(socket.PlanRequest{Listeners: listeners, Generation: 1, Parent: os.Getpid()})
	apptest.Must(t, err)
	t.Cleanup(func() { g.Close() })
	return g
}

// given is the start of an app with a grant, and the variables in env beside it.
func given(g *socket.SocketPlan, env ...string) apptest.Options {
	return apptest.Options{
		Stdin: g.Stdin, Files: g.Files, Env: append(slices.Clone(g.Env), env...), Started: g.Started,
		Environ: func() []string { return CleanEnv(os.Environ()) },
	}
}
