//go:build linux

package examples

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/docs/examples/internal/supervised"
)

func TestWorkerFinishesItsJob(t *testing.T) {
	p := binaries.Start(t, binaries.Path("worker"))
	p.AwaitText("job begins")
	p.Signal(syscall.SIGTERM)
	p.EndsWell()
	saysInOrder(t, p, p.PID(), "job begins", "start draining", "job done", "queue closed")
	if count(p, p.PID(), "job begins") != 1 {
		t.Error("another job was begun during the drain")
	}
}

func TestWorkerFinishesItsJobAfterItsReplacement(t *testing.T) {
	g := binaries.Grace(t, "--ready", "notify", "--listen", "unix://"+filepath.Join(t.TempDir(), "unused"), "--", binaries.Path("worker"))
	old := g.Instance()
	awaitOf(g, old, "job begins")
	g.Upgrade()
	awaitOf(g, old, "queue closed")
	saysInOrder(t, g.Process, old, "job begins", "start draining", "job done", "queue closed")
	g.Stop()
	saysInOrder(t, g.Process, g.Instance(), "job begins", "start draining", "job done", "queue closed")
}

// awaitOf waits until an instance has said a text.
func awaitOf(g *supervised.Grace, pid int, text string) {
	g.Await(fmt.Sprintf("%s (process %d)", text, pid), func(l supervised.Line) bool { return isOf(l, pid, text) })
}

// isOf tells whether a process has said a text.
func isOf(l supervised.Line, pid int, text string) bool {
	return strings.Contains(l.Text, text) && strings.Contains(l.Text+" ", fmt.Sprintf(" pid=%d ", pid))
}

func count(p *supervised.Process, pid int, text string) int {
	n := 0
	for _, l := range p.Output() {
		if isOf(l, pid, text) {
			n++
		}
	}
	return n
}

func saysInOrder(t *testing.T, p *supervised.Process, pid int, texts ...string) {
	t.Helper()
	lines := p.Output()
	for _, text := range texts {
		n := slices.IndexFunc(lines, func(l supervised.Line) bool { return isOf(l, pid, text) })
		if n < 0 {
			t.Errorf("%q is missing, or comes too early", text)
			return
		}
		lines = lines[n+1:]
	}
}
