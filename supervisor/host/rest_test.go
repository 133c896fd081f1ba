package host

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

// patience is for what has to happen at all; nothing is asserted about time.
const patience = 2 * time.Minute

// leaver starts a process that ends and leaves another one behind, whose pid it gives.
func leaver(t *testing.T, reaper *childproc.Reaper) (p *childproc.Process, left int) {
	t.Helper()
	out := t.TempDir() + "/out"
	p, err := reaper.Start(childproc.Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", "setsid sh -c 'echo $$ >$OUT; exec sleep 1000' & while [ ! -s $OUT ]; do sleep 0.01; done; exit 3"},
		Env: append(os.Environ(), "OUT="+out), Stdin: -1, Stdout: 1, Stderr: 2, Umask: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != 3 {
		t.Fatalf("%v, %v", exit, err)
	}
	text, err := os.ReadFile(out)
	if err == nil {
		left, err = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(left, syscall.SIGKILL) })
	return p, left
}

// withoutDescriptors gives how the shortage is ended, which may be done again.
// The limit is not 0, with which poll(2) fails.
func withoutDescriptors(t *testing.T) (end func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	end = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return end
}

// pidfdOpen reports whether this process waits for the end of another one, which it does by a pidfd.
func pidfdOpen(t *testing.T, pid int) bool {
	t.Helper()
	infos, err := os.ReadDir("/proc/self/fdinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		text, _ := os.ReadFile("/proc/self/fdinfo/" + info.Name()) // it may be closed by now
		if strings.Contains(string(text), fmt.Sprintf("\nPid:\t%d\n", pid)) {
			return true
		}
	}
	return false
}

// An instance whose rest could not be looked at for want of descriptors has not come to its end.
func TestShortageIsNoEndOfWhatIsLeftBehind(t *testing.T) {
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	p, left := leaver(t, reaper)
	socket, err := childproc.OpenNotify(t.TempDir(), -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var killed atomic.Bool
	events := make(chan machine.Event, 10)
	endShortage := withoutDescriptors(t)
	a := &Host{Reaper: reaper, Post: func(ev machine.Event) {
		if _, ok := ev.(machine.Emptied); ok && !killed.Load() {
			t.Errorf("process %d is left, and its instance counts as ended", left)
		}
		events <- ev
	}}
	app := &InstanceProcess{start: machine.Start{Instance: 1}, ctx: t.Context(), launch: &LaunchSpec{}, waiting: canceled(), notify: socket, processes: []*childproc.Process{p}}
	app.reader = newNotifyReader(a, 1, socket, p.PID)
	go a.watch(app, p)
	for notice := (machine.Noticed{}); !strings.HasPrefix(notice.Text, "cannot watch what the app left behind"); {
		notice, _ = (<-events).(machine.Noticed)
	}
	endShortage()
	for end := time.Now().Add(patience); !pidfdOpen(t, left) && !t.Failed(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nobody waits for process %d", left)
		}
	}
	killed.Store(true)
	a.Running = only(app)
	a.Kill(machine.Kill{Instance: 1})
	for ev := machine.Event(nil); ev != (machine.Emptied{Instance: 1, PID: p.PID}); {
		ev = <-events
	}
	if childproc.Living(left) {
		t.Errorf("process %d still lives", left)
	}
	a.Reap(machine.Reap{Instance: 1, PID: p.PID})
}

// Who kills what an instance has left behind does so when the shortage is over that has kept him from it.
func TestShortageIsNoPardon(t *testing.T) {
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	p, left := leaver(t, reaper)
	events := make(chan machine.Event, 10)
	endShortage := withoutDescriptors(t)
	a := &Host{Reaper: reaper, Post: func(ev machine.Event) { events <- ev }}
	a.Running = only(&InstanceProcess{ctx: t.Context(), processes: []*childproc.Process{p}})
	a.Kill(machine.Kill{Instance: 1})
	if notice, _ := (<-events).(machine.Noticed); !strings.Contains(notice.Why, "too many open files") {
		t.Errorf("told %+v", notice)
	}
	endShortage()
	for end := time.Now().Add(patience); childproc.Living(left); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d still lives", left)
		}
	}
	a.Reap(machine.Reap{Instance: 1, PID: p.PID})
}

func only(one *InstanceProcess) map[int]*InstanceProcess { return map[int]*InstanceProcess{1: one} }

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
