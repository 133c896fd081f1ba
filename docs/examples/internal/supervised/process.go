//go:build linux

package supervised

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/internal/processgroup"
)

// Patience is for what has to come; nothing waits for its end in a test that passes.
const Patience = 60 * time.Second

// Line is one of a process's output. Those of grace have fields.
type Line struct {
	Text       string `json:"-"`
	Time       time.Time
	Message    string
	Generation int
	PID        int `json:"pid"`
	Why        string
}

// Process is an example, or what runs one. It is killed at the end of its test, if it has not ended before.
type Process struct {
	t       *testing.T
	cmd     *exec.Cmd
	mu      sync.Mutex
	lines   []Line
	groups  []processgroup.Group // of all instances
	changed chan struct{}        // closed and replaced at each line; nil at the end of the output
	ended   chan struct{}        // closed at the end of the output
}

// Start runs a command in the folder of the binaries.
func (b Binaries) Start(t *testing.T, command string, arguments ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(command, arguments...), changed: make(chan struct{}), ended: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Dir = string(b)
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = p.cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	go p.read(r)
	t.Cleanup(p.cleanUp)
	return p
}

func (p *Process) read(r io.ReadCloser) {
	defer close(p.ended)
	defer r.Close()
	for text := bufio.NewScanner(r); text.Scan(); {
		p.note(text.Bytes())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = nil
}

func (p *Process) note(text []byte) {
	var l Line
	if json.Unmarshal(text, &l) != nil {
		l = Line{}
	}
	l.Text = string(text)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, l)
	if l.Message == instanceStarted {
		p.groups = append(p.groups, processgroup.Seen(l.PID))
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Process) state() (lines []Line, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines, p.changed
}

// Output is what the process has written so far.
func (p *Process) Output() []Line {
	lines, _ := p.state()
	return slices.Clone(lines)
}

// Await waits for a line, among those that were written already too. It asks match about each line once, in order.
func (p *Process) Await(what string, match func(Line) bool) Line {
	p.t.Helper()
	deadline := time.After(Patience)
	for seen := 0; ; {
		lines, changed := p.state()
		if n := slices.IndexFunc(lines[seen:], match); n >= 0 {
			return lines[seen+n]
		}
		if changed == nil {
			p.t.Fatalf("the process ended and never said: %s", what)
		}
		seen = len(lines)
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("the process does not say: %s", what)
		}
	}
}

// AwaitText waits for a line that has the text in it.
func (p *Process) AwaitText(text string) {
	p.t.Helper()
	p.Await(text, func(l Line) bool { return strings.Contains(l.Text, text) })
}

func (p *Process) PID() int { return p.cmd.Process.Pid }

func (p *Process) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("cannot send %s: %v", sig, err)
	}
}

// Stop ends the process as an operator does.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.EndsWell()
}

// EndsWell waits for the end of the process, and wants it and all that it has started to end well.
func (p *Process) EndsWell() {
	p.t.Helper()
	if status := p.wait(); status != 0 {
		p.t.Errorf("it ended with status %d", status)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, group := range p.groups {
		if group.Remains() {
			p.t.Errorf("process group %d is still there", group.ID)
		}
	}
}

func (p *Process) wait() (status int) {
	kill := time.AfterFunc(Patience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	p.cmd.Wait() // the status is what is asked for
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// trouble is what nobody says who ends well.
var trouble = []string{
	"DATA RACE", "panic:", "gave up with", "did not end in time", "too late", "with an error", "not end well", "KILL",
}

// cleanUp leaves nothing behind, and shows the output of what failed.
func (p *Process) cleanUp() {
	if p.cmd.ProcessState == nil {
		p.Signal(syscall.SIGQUIT)
		p.wait()
	}
	var all strings.Builder
	for _, l := range p.Output() {
		all.WriteString(l.Text + "\n")
	}
	for _, text := range trouble {
		if strings.Contains(all.String(), text) {
			p.t.Errorf("%q is in the output", text)
		}
	}
	if p.t.Failed() {
		p.t.Logf("the output:\n%s", all.String())
	}
}
