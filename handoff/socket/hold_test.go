package socket

import (
	"os"
	"slices"
	"testing"

	"github.com/gracerun/grace/handoff"
	"github.com/gracerun/grace/handoff/internal/apptest"
)

// hold binds an address until the end of the test.
func hold(t *testing.T, written string) *Listener {
	t.Helper()
	return apptest.Hold(t, written, ParseAddress, Bind)
}

func bindError(t *testing.T, written string) error {
	t.Helper()
	a, err := ParseAddress(written)
	apptest.Must(t, err)
	l, err := Bind(a)
	if err == nil {
		l.Close()
		t.Fatalf("%s was bound", written)
	}
	return err
}

func issue(t *testing.T, dialects []string, listeners ...*Listener) *SocketPlan {
	t.Helper()
	d, err := ParseDialects(dialects)
	apptest.Must(t, err)
	g, err := d.Plan(PlanRequest{Listeners: listeners, Generation: 1, Parent: os.Getpid()})
	apptest.Must(t, err)
	t.Cleanup(func() { g.Close() })
	return g
}

// given is the start of an app with a grant, and the variables in env beside it.
func given(g *SocketPlan, env ...string) apptest.Options {
	return apptest.Options{
		Stdin: g.Stdin, Files: g.Files, Env: append(slices.Clone(g.Env), env...), Started: g.Started,
		Environ: func() []string { return handoff.CleanEnv(os.Environ()) },
	}
}
