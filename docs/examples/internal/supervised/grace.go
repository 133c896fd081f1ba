//go:build linux

package supervised

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Grace is `grace run`. Its output is also that of the example.
type Grace struct {
	*Process
	current int // generation
}

// Grace returns when the first generation is ready.
func (b Binaries) Grace(t *testing.T, arguments ...string) *Grace {
	t.Helper()
	arguments = append([]string{"run", "--log-format", "json"}, arguments...)
	g := &Grace{b.Start(t, b.Path("grace"), arguments...), 1}
	g.awaitReady()
	return g
}

// Upgrade returns when the next generation is ready.
func (g *Grace) Upgrade() {
	g.t.Helper()
	g.Signal(syscall.SIGHUP)
	g.current++
	g.awaitReady()
}

func (g *Grace) awaitReady() {
	g.t.Helper()
	l := g.Await(fmt.Sprintf("generation %d is ready, or has failed", g.current), func(l Line) bool {
		return l.Generation == g.current && (l.ready() || l.failed())
	})
	if l.failed() {
		g.t.Fatalf("generation %d failed: %s", g.current, l.Why)
	}
}

func (l Line) ready() bool { return strings.HasPrefix(l.Message, "generation ready") }

func (l Line) failed() bool {
	return strings.HasPrefix(l.Message, "upgrade failed") || l.Message == "first generation failed"
}

// AwaitDrained waits for the end of the generation before the current one.
func (g *Grace) AwaitDrained() {
	g.t.Helper()
	l := g.Await(fmt.Sprintf("generation %d ended", g.current-1), func(l Line) bool {
		return l.Generation == g.current-1 && l.Message == "generation ended"
	})
	if l.Why != "drained" {
		g.t.Errorf("generation %d ended: %s", l.Generation, l.Why)
	}
}

// ReadySince tells the time by grace's own clock. It is zero for a generation that never was ready.
func (g *Grace) ReadySince(generation int) time.Time {
	return g.find(func(l Line) bool { return l.Generation == generation && l.ready() }).Time
}

const instanceStarted = "instance started"

// Instance is the pid of the current generation's one instance.
func (g *Grace) Instance() (pid int) {
	return g.find(func(l Line) bool { return l.Generation == g.current && l.Message == instanceStarted }).PID
}

// find gives an empty line if there is none that matches.
func (g *Grace) find(match func(Line) bool) Line {
	lines := g.Output()
	if n := slices.IndexFunc(lines, match); n >= 0 {
		return lines[n]
	}
	return Line{}
}
