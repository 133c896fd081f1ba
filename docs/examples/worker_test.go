//go:build linux

package examples

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestWorkerFinishesItsJob(t *testing.T) {
	p := start(t, filepath.Join(binaries, "worker"))
	p.awaitText("job begins")
	p.signal(syscall.SIGTERM)
	p.endsWell()
	p.saysInOrder(p.cmd.Process.Pid, "job begins", "start draining", "job done", "queue closed")
	if p.count(p.cmd.Process.Pid, "job begins") != 1 {
		t.Error("another job was begun during the drain")
	}
}

func TestWorkerFinishesItsJobAfterItsReplacement(t *testing.T) {
	p := grace(t, "--ready", "notify", "--listen", "unix://"+filepath.Join(t.TempDir(), "unused"), "--", filepath.Join(binaries, "worker"))
	p.ready(1)
	old := p.pid(1)
	p.await("a job of the first generation", func(l line) bool { return l.of(old, "job begins") })
	p.signal(syscall.SIGHUP)
	p.ready(2)
	p.await("the end of the first generation", func(l line) bool { return l.of(old, "queue closed") })
	p.saysInOrder(old, "job begins", "start draining", "job done", "queue closed")
	p.stop()
	p.saysInOrder(p.pid(2), "job begins", "start draining", "job done", "queue closed")
}

// pid is that of a generation's one instance.
func (p *process) pid(generation int) int {
	p.t.Helper()
	for _, l := range p.output() {
		if l.Message == "instance started" && l.Generation == generation {
			return l.PID
		}
	}
	p.t.Fatalf("generation %d was not started", generation)
	return 0
}

// of tells whether a process has said a text.
func (l line) of(pid int, text string) bool {
	return strings.Contains(l.Text, text) && strings.Contains(l.Text+" ", fmt.Sprintf(" pid=%d ", pid))
}

func (p *process) count(pid int, text string) int {
	n := 0
	for _, l := range p.output() {
		if l.of(pid, text) {
			n++
		}
	}
	return n
}

func (p *process) saysInOrder(pid int, texts ...string) {
	p.t.Helper()
	lines := p.output()
	for _, text := range texts {
		n := slices.IndexFunc(lines, func(l line) bool { return l.of(pid, text) })
		if n < 0 {
			p.t.Errorf("%q is missing, or comes too early", text)
			return
		}
		lines = lines[n+1:]
	}
}
