package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/handoff/steering"
	"github.com/gracerun/grace/internal/freeport"
	"github.com/gracerun/grace/supervisor/machine"
	"golang.org/x/sys/unix"
)

func TestPanicIsToldAndEndsNothingElse(t *testing.T) {
	var empty []int
	var told []string
	heard := func(why string) { told = append(told, why) }
	Guard(func() {}, heard)()
	Guard(func() { _ = empty[len(told)] }, heard)()
	if len(told) != 1 || !strings.Contains(told[0], "index out of range") || !strings.Contains(told[0], "guard_test.go:") {
		t.Errorf("told %q", told)
	}
}

func init() {
	roles["sockets"] = func([]string) {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			obey(strings.Fields(lines.Text()))
		}
	}
}

// obey does one thing with a socket, and says how it went.
func obey(words []string) {
	var fd, port int
	if _, err := fmt.Sscan(strings.Join(words[1:], " ")+" 0 0", &fd, &port); err != nil {
		panic(err)
	}
	var err error
	switch words[0] {
	case "socket":
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}
	case "bind":
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	case "listen":
		err = unix.Listen(fd, 16)
	case "shutdown":
		err = unix.Shutdown(fd, unix.SHUT_RDWR)
	case "close":
		err = unix.Close(fd)
	case "accept":
		fd, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
		_ = unix.Close(fd)
	}
	errno, _ := err.(syscall.Errno)
	fmt.Println(fd, int(errno))
}

// capturedApp is a process that does with sockets what it is told.
type capturedApp struct {
	t *testing.T
	*InstanceProcess
	in  *os.File
	out *bufio.Reader
}

func startCaptured(t *testing.T, a *Host, m steering.InstanceKey) *capturedApp {
	t.Helper()
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &capturedApp{t, &InstanceProcess{start: machine.Start{Generation: m.Generation, Slot: m.Instance}, ctx: ctx, cancel: cancel}, in, bufio.NewReader(out)}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	err = a.launch(c.InstanceProcess, childproc.Spec{
		Path: executable, Args: []string{"app"}, Env: append(childEnv(), roleVariable+"=sockets"),
		Stdin: int(theirIn.Fd()), Stdout: int(theirOut.Fd()), Stderr: 2, Umask: -1, Capture: true, NoNewPrivs: capture.NeedsNoNewPrivs(),
	})
	theirIn.Close()
	theirOut.Close()
	if err != nil || c.calls == nil {
		t.Fatal("the app is not captured: ", err)
	}
	t.Cleanup(func() {
		c.end()
		out.Close()
	})
	return c
}

// childEnv is for what goes on as something else: of two values the first counts.
func childEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, roleVariable+"=") })
}

// end waits for the process, and all who work for it. A second one does nothing.
func (c *capturedApp) end() {
	c.t.Helper()
	if len(c.processes) == 0 {
		return
	}
	c.cancel()
	c.in.Close()
	if err := errors.Join(c.kill(), c.calls.Close()); err != nil {
		c.t.Error(err)
	}
	c.processes = nil
	c.attending.Wait()
}

// do has the app do something, and gives the number of its socket.
func (c *capturedApp) do(format string, args ...any) (int, syscall.Errno) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatal(err)
	}
	var fd, errno int
	if _, err := fmt.Fscanln(c.out, &fd, &errno); err != nil {
		c.t.Fatalf("the app has not answered: %v", err)
	}
	return fd, syscall.Errno(errno)
}

func capturing(t *testing.T, steering *steering.Steering, post func(machine.Event)) *Host {
	t.Helper()
	reaper, err := childproc.NewReaper()
	if err != nil {
		t.Fatal(err)
	}
	return &Host{Reaper: reaper, Steering: steering, Post: post}
}

// What goes wrong in grace while it works for one app ends that app's capture: its calls
// do from then on what they do without grace.
func TestPanicEndsTheCaptureOfOneApp(t *testing.T) {
	told := make(chan machine.Event, 10)
	broken := capturing(t, nil, func(ev machine.Event) { told <- ev }) // without a steering no bind can be answered
	c := startCaptured(t, broken, steering.InstanceKey{Generation: 1})
	fd, _ := c.do("socket")
	port := freeport.Address(t)[len("127.0.0.1:"):]
	for range 2 { // the call that breaks it, and those that follow
		for _, order := range []string{"bind %d " + port, "listen %d", "close %d"} {
			if _, errno := c.do(order, fd); errno != 0 {
				t.Errorf("%s: %v", order, errno)
			}
		}
		fd, _ = c.do("socket")
	}
	notice, _ := (<-told).(machine.Noticed)
	if notice.Text != "the app's sockets are no longer captured" || !strings.Contains(notice.Why, "nil pointer") || !strings.Contains(notice.Why, "steering.(*Steering)") {
		t.Errorf("told %+v", notice)
	}
	c.end()
	if len(told) > 0 {
		t.Errorf("told more: %+v", <-told)
	}
}
