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
	"github.com/gracerun/grace/test/harness"
)

func TestWorkerFinishesItsJob(t *testing.T) {
	t.Parallel()
	p := supervised.Start(t, harness.Program("worker"), longJobs)
	p.AwaitText("job begins")
	p.Signal(syscall.SIGTERM)
	p.Ends(0)
	saysInOrder(t, p, p.PID(), "job begins", "start draining", "job done", "queue closed")
	if count(p, p.PID(), "job begins") != 1 {
		t.Error("another job was begun during the drain")
	}
}

func TestWorkerFinishesItsJobAfterItsReplacement(t *testing.T) {
	t.Parallel()
	g := supervised.Grace(t, "--ready", "notify", "--listen", "unix://"+filepath.Join(t.TempDir(), "unused"), "--", harness.Program("worker"), longJobs)
	old := g.Instance()
	awaitOf(g, old, "job begins")
	g.UpgradeNext()
	awaitOf(g, old, "queue closed")
	saysInOrder(t, g.Process, old, "job begins", "start draining", "job done", "queue closed")
	current := g.Instance()
	awaitJobAfter(g, current, count(g.Process, current, "job begins"))
	g.Stop()
	saysInOrder(t, g.Process, current, "job begins", "start draining", "job done", "queue closed")
}

// longJobs last longer than anything that a test does during one.
const longJobs = "-job=6s"

// awaitJobAfter waits until an instance has begun more than so many jobs.
func awaitJobAfter(g *harness.Grace, pid, jobs int) {
	g.AwaitTimes("another job begins", jobs+1, func(l harness.Entry) bool { return isOf(l, pid, "job begins") })
}

// awaitOf waits until an instance has said a text.
func awaitOf(g *harness.Grace, pid int, text string) {
	g.Await(fmt.Sprintf("%s (process %d)", text, pid), func(l harness.Entry) bool { return isOf(l, pid, text) })
}

// isOf tells whether a process has said a text.
func isOf(l harness.Entry, pid int, text string) bool {
	return strings.Contains(l.Text, text) && strings.Contains(l.Text+" ", fmt.Sprintf(" pid=%d ", pid))
}

func count(p *harness.Process, pid int, text string) int {
	n := 0
	for _, l := range p.Entries() {
		if isOf(l, pid, text) {
			n++
		}
	}
	return n
}

func saysInOrder(t *testing.T, p *harness.Process, pid int, texts ...string) {
	t.Helper()
	lines := p.Entries()
	for _, text := range texts {
		n := slices.IndexFunc(lines, func(l harness.Entry) bool { return isOf(l, pid, text) })
		if n < 0 {
			t.Errorf("%q is missing, or comes too early", text)
			return
		}
		lines = lines[n+1:]
	}
}
