//go:build linux

// Package supervised runs the examples for their tests as their users do: alone, and under `grace run`.
package supervised

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

// Run is for TestMain: it builds the packages, which are named as for go build, all with the race detector.
func Run(run func() (status int), packages ...string) (status int) {
	return harness.Run(func() int {
		if err := Build(packages...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return run()
	})
}

// Build builds more of them.
func Build(arguments ...string) error {
	return harness.Build(append([]string{"-race"}, arguments...)...)
}

// Start runs a command in the folder of the programs.
func Start(t *testing.T, command string, arguments ...string) (p *harness.Process) {
	t.Helper()
	t.Cleanup(func() { // when the process has ended
		if p != nil {
			checkCalm(p)
		}
	})
	return harness.StartProcess(t, inFolder(exec.Command(command, arguments...)))
}

// Grace returns when the first generation is ready.
func Grace(t *testing.T, arguments ...string) (g *harness.Grace) {
	t.Helper()
	t.Cleanup(func() {
		if g != nil {
			checkCalm(g.Process)
		}
	})
	g = harness.StartWith(t, func(c *exec.Cmd) { inFolder(c) }, arguments...)
	g.AwaitReady(1)
	return g
}

func inFolder(c *exec.Cmd) *exec.Cmd {
	c.Dir = harness.Program("")
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return c
}

// trouble is in the output of a program that has not ended well.
var trouble = []string{"gave up after", "did not end in time", "not started", "with an error", "KILL"}

func checkCalm(p *harness.Process) {
	for _, text := range trouble {
		if strings.Contains(p.Output(), text) {
			p.T.Errorf("%q is in the output:\n%s", text, p.Output())
		}
	}
}
