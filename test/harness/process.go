package harness

import (
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/internal/gracelog"
	"github.com/gracerun/grace/internal/processgroup"
)

// Patience is for what has to come; nothing waits for its end in a test that passes.
const Patience = 3 * time.Minute

// Entry is one line of a process's output.
type Entry = gracelog.Entry

// Process is a command whose output a test reads. It is ended with its test.
type Process struct {
	T         *testing.T
	Cmd       *exec.Cmd
	Patience  time.Duration   // of each wait
	Ended     <-chan struct{} // closed at the end of the output
	Contained bool            // the processes that it names are of another PID namespace, and end with its PID 1

	mu      sync.Mutex
	log     []Entry
	groups  []processgroup.Group // of all instances
	changed chan struct{}        // closed and replaced at each line
}

// StartProcess runs a command, and takes its stdout and stderr.
func StartProcess(t *testing.T, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{T: t, Cmd: cmd, Patience: Patience, changed: make(chan struct{})}
	var err error
	if p.Ended, err = gracelog.Follow(cmd, p.note); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.cleanUp)
	return p
}

func (p *Process) note(e Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, e)
	if e.Message == instanceStarted {
		p.groups = append(p.groups, processgroup.Seen(e.PID))
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

const instanceStarted = "instance started"

// cleanUp leaves nothing behind, and shows the output of what failed.
func (p *Process) cleanUp() {
	if p.Cmd.ProcessState == nil {
		p.Signal(syscall.SIGQUIT)
		p.Wait()
	}
	for _, text := range []string{"DATA RACE", "panic:"} {
		if strings.Contains(p.Output(), text) {
			p.T.Errorf("%q is in the output", text)
		}
	}
	if p.T.Failed() {
		lines := strings.Split(p.Output(), "\n")
		p.T.Logf("the output:\n%s", strings.Join(lines[max(0, len(lines)-200):], "\n"))
	}
}

// PID is that of the command, which other processes of grace may have succeeded.
func (p *Process) PID() int { return p.Cmd.Process.Pid }

func (p *Process) Signal(sig syscall.Signal) {
	p.T.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		p.T.Fatalf("cannot send %s: %v", sig, err)
	}
}

// Wait gives the exit status.
func (p *Process) Wait() int {
	p.T.Helper()
	ended := make(chan struct{})
	go func() {
		p.Cmd.Wait() // the status is what is asked for
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(p.Patience):
		p.T.Error("the process did not end; where its goroutines are is in the output")
		p.Cmd.Process.Signal(syscall.SIGABRT)
		defer time.AfterFunc(p.Patience, func() { p.Cmd.Process.Kill() }).Stop()
		<-ended
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Stop ends the process as an operator does, and wants it to end well.
func (p *Process) Stop() {
	p.T.Helper()
	p.Signal(syscall.SIGTERM)
	p.Ends(0)
}

// Ends waits for the end of the process and of its output, and wants this exit status and nothing left running.
func (p *Process) Ends(status int) {
	p.T.Helper()
	if got := p.Wait(); got != status {
		p.T.Errorf("the process ended with status %d, want %d", got, status)
	}
	p.AwaitEndOfOutput()
	p.CheckNothingLeft()
}

// AwaitEndOfOutput waits until no process has stdout or stderr any more.
func (p *Process) AwaitEndOfOutput() {
	p.T.Helper()
	select {
	case <-p.Ended:
	case <-time.After(p.Patience):
		p.T.Fatal("some process still has the stderr of one that has ended")
	}
}

// CheckNothingLeft looks for every process that grace said it had started. The dead may wait for a moment until grace, or
// init after it, reaps them.
func (p *Process) CheckNothingLeft() {
	p.T.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, group := range p.groups {
		if p.Contained || !group.Remains() {
			continue
		}
		if members, err := childproc.Group(group.ID); err != nil || len(members) > 0 {
			p.T.Errorf("of process group %d there are still %v, %v", group.ID, members, err)
		}
	}
}

// Groups are the process groups that the grace process has started.
func (p *Process) Groups() []processgroup.Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.groups)
}

// Entries are those of grace's lines and all others so far.
func (p *Process) Entries() []Entry {
	entries, _ := p.state()
	return slices.Clone(entries)
}

func (p *Process) state() (entries []Entry, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log, p.changed
}

// Output is the text so far; what JSON has escaped is as it was before.
func (p *Process) Output() string {
	var text strings.Builder
	for _, e := range p.Entries() {
		text.WriteString(e.Text + "\n")
	}
	return strings.ReplaceAll(text.String(), `\"`, `"`)
}

// Await waits for a line, among those that were written already too. It asks match about each line once, in order.
func (p *Process) Await(what string, match func(Entry) bool) Entry {
	p.T.Helper()
	deadline := time.After(p.Patience)
	for seen := 0; ; {
		over := p.over() // before the look, as the line may be the last one
		entries, changed := p.state()
		if n := slices.IndexFunc(entries[seen:], match); n >= 0 {
			return entries[seen+n]
		}
		seen = len(entries)
		if over {
			p.T.Fatalf("the process ended and never said: %s", what)
		}
		select {
		case <-changed:
		case <-p.Ended:
		case <-deadline:
			p.T.Fatalf("the process does not say: %s", what)
		}
	}
}

// over reports whether all of the output was read.
func (p *Process) over() bool {
	select {
	case <-p.Ended:
		return true
	default:
		return false
	}
}

// AwaitTimes waits for the n-th line that matches.
func (p *Process) AwaitTimes(what string, n int, match func(Entry) bool) Entry {
	p.T.Helper()
	return p.Await(what, func(e Entry) bool {
		if match(e) {
			n--
		}
		return n == 0
	})
}

// AwaitLine waits for a line that is exactly this.
func (p *Process) AwaitLine(want string) {
	p.T.Helper()
	p.Await(want, func(e Entry) bool { return e.Text == want })
}

// AwaitText waits for a line with this in it.
func (p *Process) AwaitText(want string) {
	p.T.Helper()
	p.Await(want, func(e Entry) bool { return strings.Contains(e.Text, want) })
}
