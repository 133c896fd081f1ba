package host

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
)

// sleeper starts a process that does nothing until it is told to end.
func sleeper(t *testing.T, reaper *childproc.Reaper) *childproc.Process {
	t.Helper()
	p, err := reaper.Start(childproc.Spec{
		Path: "/bin/sleep", Args: []string{"sleep", "1000"}, Env: os.Environ(), Stdin: -1, Stdout: 1, Stderr: 2, Umask: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func endedBy(t *testing.T, p *childproc.Process, signal syscall.Signal) {
	t.Helper()
	exit, err := p.Wait()
	if err != nil || exit.Signal != signal {
		t.Errorf("process %d ended with %s (%v), not by %s", p.PID, exit, err, signal)
	}
}

// A process that only launched the main one may outlive it. What is for the rest of the
// instance is for it, and for nobody who has got the numbers of what was reaped.
func TestLauncherThatOutlivesTheMainProcess(t *testing.T) {
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	launcher, main := sleeper(t, reaper), sleeper(t, reaper)
	a := &Host{Reaper: reaper, Ending: make(chan struct{}), Running: map[int]*InstanceProcess{1: {ctx: t.Context(), processes: []*childproc.Process{launcher, main}}}, Post: func(ev machine.Event) { t.Errorf("%+v", ev) }}
	if err := main.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	endedBy(t, main, syscall.SIGKILL)
	a.Reap(machine.Reap{Instance: 1, PID: main.PID})
	a.EndReaping()
	other := sleeper(t, reaper) // its pidfd has the number that the main process's had
	a.TellRest(machine.TellRest{Instance: 1, Signal: syscall.SIGTERM})
	endedBy(t, launcher, syscall.SIGTERM)
	a.Kill(machine.Kill{Instance: 1})
	a.Reap(machine.Reap{Instance: 1, PID: launcher.PID})
	if err := other.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	endedBy(t, other, syscall.SIGINT)
	if err := other.Reap(); err != nil {
		t.Error(err)
	}
}

// Who reaps at once spins in the kernel; but the end of grace does not wait.
func TestReapingIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, begun := &Host{Ending: make(chan struct{})}, time.Now()
		a.awaitReaping()
		if waited := time.Since(begun); waited != reapAfter {
			t.Errorf("reaped after %s", waited)
		}
		close(a.Ending)
		a.awaitReaping()
		if waited := time.Since(begun); waited != reapAfter {
			t.Errorf("the end waits for %s", waited-reapAfter)
		}
	})
}

// What waits for a look at what was left behind is reaped before grace ends: the PID 1 of many containers does not reap.
func TestAllIsReapedAtTheEnd(t *testing.T) {
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	main, looked := sleeper(t, reaper), make(chan struct{})
	one := &InstanceProcess{processes: []*childproc.Process{main}}
	a := &Host{Reaper: reaper, Ending: make(chan struct{}), Running: map[int]*InstanceProcess{1: one}, Post: func(ev machine.Event) { t.Errorf("%+v", ev) }}
	one.task(func() {
		<-looked
		endedBy(t, main, syscall.SIGKILL)
	})
	a.Reap(machine.Reap{Instance: 1, PID: main.PID})
	if err := main.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	close(looked)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(main.PID, 0); err != syscall.ESRCH {
		t.Errorf("process %d is left as a zombie: %v", main.PID, err)
	}
}
