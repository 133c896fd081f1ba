package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// ReexecGrace is a grace process that is replaced by successors.
type ReexecGrace struct {
	*Grace
	Program string    // where the next one is found
	Reexecs int       // how often a successor has taken over
	told    *sync.Map // what the service manager was told, by line; nil without one
}

// ReexecWays are the two ways to replace grace: with a service manager that follows MAINPID=, and without one.
var ReexecWays = []string{"another process", "the same process"}

func StartForReexec(t *testing.T, way string, arguments ...string) *ReexecGrace {
	t.Helper()
	d := &ReexecGrace{Program: filepath.Join(t.TempDir(), "grace")}
	if err := os.Link(GraceBinary(), d.Program); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	if way == "another process" {
		path := filepath.Join(t.TempDir(), "notify")
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		d.told = &sync.Map{}
		go d.listen(conn)
		env = append(env, "NOTIFY_SOCKET="+path)
	}
	d.Grace = StartWith(t, func(c *exec.Cmd) { c.Path, c.Args[0], c.Env = d.Program, d.Program, env }, arguments...)
	t.Cleanup(func() { d.send(syscall.SIGQUIT) })
	d.AwaitReady(1)
	return d
}

func (d *ReexecGrace) listen(conn *net.UnixConn) {
	for text := make([]byte, 4096); ; {
		n, err := conn.Read(text)
		if err != nil {
			return
		}
		for line := range strings.Lines(string(text[:n])) {
			d.told.Store(strings.TrimSpace(line), true)
		}
	}
}

// CurrentPID is that of the last successor.
func (d *ReexecGrace) CurrentPID() int {
	pid := d.PID()
	for _, e := range d.Entries() {
		if e.Message == "taken over" {
			pid = e.PID
		}
	}
	return pid
}

func (d *ReexecGrace) send(sig syscall.Signal) error { return unix.Kill(d.CurrentPID(), sig) }

func (d *ReexecGrace) SignalCurrent(sig syscall.Signal) {
	d.T.Helper()
	if err := d.send(sig); err != nil {
		d.T.Fatal(err)
	}
}

func (d *ReexecGrace) Reexec() {
	d.T.Helper()
	d.SignalCurrent(syscall.SIGUSR2)
	d.Reexecs++
	d.AwaitNth("taken over", d.Reexecs)
}

// AwaitNth waits until grace and its successors have said this n times.
func (d *ReexecGrace) AwaitNth(message string, n int) Entry {
	d.T.Helper()
	return d.AwaitTimes(fmt.Sprintf("%s, for the %d. time", message, n), n, func(e Entry) bool { return e.Message == message })
}

func (d *ReexecGrace) Upgrade(generation int) {
	d.T.Helper()
	d.SignalCurrent(syscall.SIGHUP)
	d.AwaitGeneration("upgraded", generation)
}

// End stops the last of them, and sees that it leaves nothing.
func (d *ReexecGrace) End() {
	d.T.Helper()
	last := d.CurrentProcess()
	d.SignalCurrent(syscall.SIGTERM)
	last.AwaitEnd()
	d.Wait()
	d.CheckNothingLeft()
}

// Successor is one process of grace.
type Successor struct {
	t     *testing.T
	pidfd int
}

func (d *ReexecGrace) CurrentProcess() Successor {
	d.T.Helper()
	pidfd, err := unix.PidfdOpen(d.CurrentPID(), 0)
	if err != nil {
		d.T.Fatal(err)
	}
	d.T.Cleanup(func() { unix.Close(pidfd) })
	return Successor{d.T, pidfd}
}

func (r Successor) AwaitEnd() {
	r.t.Helper()
	Until(r.t, "the grace process has ended", func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(r.pidfd), Events: unix.POLLIN}}, 0)
		return n == 1
	})
}

func (d *ReexecGrace) Count(message string) int {
	n := 0
	for _, e := range d.Entries() {
		if strings.HasPrefix(e.Message, message) {
			n++
		}
	}
	return n
}

// CheckFollowed: a service manager has to hear of each grace process from the one before.
func (d *ReexecGrace) CheckFollowed() {
	d.T.Helper()
	if d.told == nil {
		if d.CurrentPID() != d.PID() {
			d.T.Errorf("grace had pid %d, and has %d", d.PID(), d.CurrentPID())
		}
		return
	}
	for _, e := range d.Entries() {
		if e.Message != "taken over" {
			continue
		}
		Until(d.T, fmt.Sprintf("the previous grace process says that %d is its successor", e.PID), func() bool {
			_, said := d.told.Load(fmt.Sprintf("MAINPID=%d", e.PID))
			return said
		})
	}
}

func (d *ReexecGrace) ReplaceProgram() {
	d.T.Helper()
	_ = os.Remove(d.Program) // it may be missing
	if err := os.Link(GraceBinary(), d.Program); err != nil {
		d.T.Fatal(err)
	}
}
