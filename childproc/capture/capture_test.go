package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/childproc"
	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/internal/freeport"
	"golang.org/x/sys/unix"
)

// raw is an address as the kernel has it, the length that Go gives with it.
func raw(t *testing.T, text string) []byte {
	t.Helper()
	switch a := parseAddress(text).(type) {
	case *unix.SockaddrInet4:
		port := binary.BigEndian.AppendUint16(nil, uint16(a.Port))
		return append(append(append([]byte{unix.AF_INET, 0}, port...), a.Addr[:]...), make([]byte, 8)...)
	case *unix.SockaddrInet6:
		port := binary.BigEndian.AppendUint16(nil, uint16(a.Port))
		return append(append(append([]byte{unix.AF_INET6, 0}, port...), 0, 0, 0, 0), append(a.Addr[:], 0, 0, 0, 0)...)
	case *unix.SockaddrUnix:
		return append(append([]byte{unix.AF_UNIX, 0}, a.Name...), 0)
	}
	return nil
}

func TestCallsArrive(t *testing.T) {
	for name, test := range map[string]struct {
		role, address, protocol string
		ofChild                 bool
	}{
		"v4":             {"socket", freeport.On(t, "127.0.0.1"), "TCP", false},
		"v6":             {"socket", freeport.On(t, "::1"), "TCPv6", false},
		"v4 any":         {"socket", "0.0.0.0:0", "TCP", false},
		"unix":           {"socket", filepath.Join(t.TempDir(), "socket"), "UNIX", false},
		"another thread": {"thread", freeport.On(t, "127.0.0.1"), "TCP", false},
		"child":          {"fork", freeport.On(t, "127.0.0.1"), "TCP", true},
	} {
		t.Run(name, func(t *testing.T) {
			a := startRole(t, test.role, test.address)
			bind := a.next(t, capture.Bind)
			fd, inode, _ := a.step(t, "socket")
			if bind.FD() != fd || (bind.PID() != a.PID) != test.ofChild {
				t.Errorf("descriptor %d of process %d; want %d of %d", bind.FD(), bind.PID(), fd, a.PID)
			}
			if address, err := bind.Addr(); err != nil || !bytes.Equal(address, raw(t, test.address)) {
				t.Errorf("address %x, %v; want %x", address, err, raw(t, test.address))
			}
			if protocol, err := bind.Protocol(); err != nil || !strings.HasPrefix(protocol, test.protocol) {
				t.Errorf("protocol %q, %v", protocol, err)
			}
			if got, err := bind.Inode(); err != nil || got != inode {
				t.Errorf("inode %d, %v; want %d", got, err, inode)
			}
			must(t, bind.Continue())
			if _, _, errno := a.step(t, "bind"); errno != 0 {
				t.Errorf("bind: %v", errno)
			}
			listen := a.next(t, capture.Listen)
			if listen.FD() != fd || listen.Backlog() != 7 || listen.PID() != bind.PID() {
				t.Errorf("descriptor %d of process %d, backlog %d", listen.FD(), listen.PID(), listen.Backlog())
			}
			must(t, listen.Continue())
			if _, _, errno := a.step(t, "listen"); errno != 0 {
				t.Errorf("listen: %v", errno)
			}
		})
	}
}

func TestReturnIsWhatTheAppSees(t *testing.T) {
	a := startRole(t, "socket", "127.0.0.1:0")
	bind := a.next(t, capture.Bind)
	must(t, bind.Return(unix.EADDRINUSE))
	a.step(t, "socket")
	if _, _, errno := a.step(t, "bind"); errno != unix.EADDRINUSE {
		t.Errorf("bind: %v", errno)
	}
	if err := bind.Continue(); !errors.Is(err, capture.ErrGone) {
		t.Errorf("a second answer: %v", err)
	}
	if bind.Valid() {
		t.Error("the call is valid after its answer")
	}
	listen := a.next(t, capture.Listen)
	must(t, listen.Return(0))
	if _, _, errno := a.step(t, "listen"); errno != 0 {
		t.Errorf("listen: %v", errno)
	}
}

func TestDuplicateIsTheSocketItself(t *testing.T) {
	for _, role := range []string{"socket", "thread", "fork"} {
		t.Run(role, func(t *testing.T) {
			a := startRole(t, role, "127.0.0.1:0")
			bind := a.next(t, capture.Bind)
			_, want, _ := a.step(t, "socket")
			fd := duplicate(t, bind)
			if got := inode(fd); got != want {
				t.Errorf("inode %d, want %d", got, want)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %x, %v", flags, err)
			}
			must(t, bind.Continue())
			listen := a.next(t, capture.Listen)
			must(t, unix.Listen(fd, listen.Backlog()))
			must(t, listen.Return(0))
			connect(t, fd)
		})
	}
}

func duplicate(t *testing.T, c capture.Call) int {
	t.Helper()
	fd, err := c.Duplicate()
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func addressOf(t *testing.T, fd int) string {
	t.Helper()
	address, err := unix.Getsockname(fd)
	must(t, err)
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	case *unix.SockaddrInet6:
		return net.JoinHostPort(net.IP(a.Addr[:]).String(), strconv.Itoa(a.Port))
	}
	t.Fatalf("no TCP address: %v", address)
	return ""
}

func connect(t *testing.T, fd int) {
	t.Helper()
	conn, err := net.Dial("tcp", addressOf(t, fd))
	must(t, err)
	conn.Close()
}

func TestInstallReplacesTheSocket(t *testing.T) {
	for name, flags := range map[string][]string{
		"plain": nil, "close-on-exec": {"cloexec"}, "non-blocking": {"nonblock"}, "both": {"cloexec", "nonblock"},
	} {
		t.Run(name, func(t *testing.T) {
			a := startRole(t, "socket", append([]string{"127.0.0.1:0"}, flags...)...)
			bind := a.next(t, capture.Bind)
			fd, old, _ := a.step(t, "socket")
			fresh := boundSocket(t)
			must(t, bind.Install(fresh))
			gotFD, got, errno := a.step(t, "bind")
			if gotFD != fd || errno != 0 || got != inode(fresh) || got == old {
				t.Errorf("descriptor %d has inode %d, was %d; want %d; errno %v", gotFD, got, old, inode(fresh), errno)
			}
			must(t, a.next(t, capture.Listen).Continue())
			a.step(t, "listen")
			text := strings.Join(flags, " ")
			want := "flags " + strconv.FormatBool(strings.Contains(text, "nonblock")) + " " + strconv.FormatBool(strings.Contains(text, "cloexec"))
			if got := a.line(t); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			connect(t, fresh)
		})
	}
}

func boundSocket(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	return fd
}

func TestCallsMayBeAnsweredInAnyOrder(t *testing.T) {
	a := startRole(t, "late", "127.0.0.1:0")
	first := startRole(t, "fork", "127.0.0.1:0")
	a.line(t)
	_, err := a.in.Write([]byte{0})
	must(t, err)
	one, two := first.next(t, capture.Bind), a.next(t, capture.Bind)
	must(t, errors.Join(two.Continue(), one.Return(unix.EACCES)))
	a.step(t, "socket")
	first.step(t, "socket")
	if _, _, errno := a.step(t, "bind"); errno != 0 {
		t.Errorf("the second: %v", errno)
	}
	if _, _, errno := first.step(t, "bind"); errno != unix.EACCES {
		t.Errorf("the first: %v", errno)
	}
}

func TestAppIsKilledInItsCall(t *testing.T) {
	a := startRole(t, "socket", "127.0.0.1:0")
	bind := a.next(t, capture.Bind)
	a.end(t)
	if _, err := bind.Duplicate(); !errors.Is(err, capture.ErrGone) {
		t.Errorf("duplicate: %v", err)
	}
	if err := bind.Install(boundSocket(t)); !errors.Is(err, capture.ErrGone) {
		t.Errorf("install: %v", err)
	}
	if bind.Valid() {
		t.Error("the call is valid")
	}
	if err := bind.Return(0); err != nil {
		t.Errorf("answer: %v", err)
	}
	if _, err := a.listener.Next(); err != io.EOF {
		t.Errorf("next: %v", err)
	}
}

func TestCallOfAKilledAppIsLeftOut(t *testing.T) {
	a := startRole(t, "socket", "127.0.0.1:0")
	a.step(t, "socket")
	a.end(t)
	if c, err := a.listener.Next(); err != io.EOF {
		t.Errorf("%v, %v", c, err)
	}
}

func TestListenerEndsWithTheWholeTree(t *testing.T) {
	a := startRole(t, "orphan", "127.0.0.1:0")
	bind := a.next(t, capture.Bind)
	if exit, err := a.Wait(); err != nil || exit.Status() != 0 {
		t.Fatalf("%v, %v", exit, err)
	}
	ended := make(chan error, 1)
	must(t, bind.Continue())
	must(t, a.next(t, capture.Listen).Continue())
	go func() {
		_, err := a.listener.Next()
		ended <- err
	}()
	a.step(t, "socket")
	a.step(t, "bind")
	a.step(t, "listen")
	select {
	case err := <-ended:
		t.Fatalf("the child of the app is there still: %v", err)
	default:
	}
	a.in.Close() // its stdin
	must(t, a.WaitRest(nil))
	reapOrphans(t, a)
	if err := <-ended; err != io.EOF {
		t.Errorf("%v", err)
	}
}

// reapOrphans is for kernels before 6.11, where a zombie has its filter still.
func reapOrphans(t *testing.T, a *app) {
	t.Helper()
	a.reaped = true
	must(t, a.Reap())
	reaper, err := childproc.NewReaper()
	must(t, err)
	_, err = reaper.ReapOrphans()
	must(t, err)
}

func TestCloseEndsNext(t *testing.T) {
	a := startRole(t, "late", "127.0.0.1:0")
	a.line(t)
	ended := make(chan error, 1)
	go func() {
		_, err := a.listener.Next()
		ended <- err
	}()
	must(t, a.listener.Close())
	if err := <-ended; err != os.ErrClosed {
		t.Errorf("got %v", err)
	}
	if _, err := a.listener.Next(); err != os.ErrClosed {
		t.Errorf("after that %v", err)
	}
	must(t, a.listener.Close())
}

func TestCloseLetsCallsGoOnAndLaterOnesFail(t *testing.T) {
	a := startRole(t, "socket", "127.0.0.1:0")
	bind := a.next(t, capture.Bind)
	a.step(t, "socket")
	must(t, a.listener.Close())
	if _, _, errno := a.step(t, "bind"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	if _, _, errno := a.step(t, "listen"); errno != unix.ENOSYS {
		t.Errorf("listen: %v", errno)
	}
	if err := bind.Return(0); !errors.Is(err, capture.ErrGone) {
		t.Errorf("a late answer: %v", err)
	}
}

// What a listener has received it answers; what comes while it is suspended waits for the successor, or for itself.
func TestSuccessorTakesOver(t *testing.T) {
	for _, succeeded := range []bool{true, false} {
		a := startRole(t, "late", "127.0.0.1:0")
		a.line(t)
		ended := make(chan error, 1)
		go func() {
			_, err := a.listener.Next()
			ended <- err
		}()
		must(t, a.listener.Suspend())
		if err := <-ended; err != os.ErrDeadlineExceeded {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(uintptr(a.listener.FD()), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		_, err = a.in.Write([]byte{0})
		must(t, err)
		a.step(t, "socket")
		if succeeded {
			must(t, a.listener.Close())
			a.listener, err = capture.NewListener(fd)
			must(t, err)
			defer a.listener.Close()
		} else {
			must(t, unix.Close(fd))
			must(t, a.listener.Resume())
		}
		must(t, a.next(t, capture.Bind).Return(unix.EACCES))
		if _, _, errno := a.step(t, "bind"); errno != unix.EACCES {
			t.Errorf("bind: %v", errno)
		}
	}
}

// A process that is killed answers nothing that it has received, and the kernel gives that to nobody else.
func TestCallsOfAKilledListenerAreLetGo(t *testing.T) {
	a := startRole(t, "fork", "127.0.0.1:0")
	fd, err := unix.FcntlInt(uintptr(a.listener.FD()), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	a.next(t, capture.Bind) // and no answer
	last := a.listener.Last()
	if last == 0 {
		t.Fatal("the number of the call is not known")
	}
	a.step(t, "socket")
	next, err := capture.NewListener(fd)
	must(t, err)
	defer next.Close()
	must(t, next.LetGo(last))
	if _, _, errno := a.step(t, "bind"); errno != 0 {
		t.Errorf("bind: %v", errno)
	}
	must(t, next.LetGo(last)) // where none waits nothing happens
}

func TestSuspendedListenerAnswersWhatItHasReceived(t *testing.T) {
	a := startRole(t, "socket", "127.0.0.1:0")
	bind := a.next(t, capture.Bind)
	must(t, a.listener.Suspend())
	must(t, bind.Return(unix.EACCES))
	a.step(t, "socket")
	if _, _, errno := a.step(t, "bind"); errno != unix.EACCES {
		t.Errorf("bind: %v", errno)
	}
	if _, err := a.listener.Next(); err != os.ErrDeadlineExceeded {
		t.Errorf("then %v", err)
	}
}

func TestWrongDescriptorIsNoListener(t *testing.T) {
	r, w := pipe(t)
	defer w.Close()
	fd, err := unix.FcntlInt(r.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	l, err := capture.NewListener(fd)
	must(t, err)
	defer l.Close()
	_, err = w.Write([]byte{0})
	must(t, err)
	if c, err := l.Next(); err == nil {
		t.Errorf("a pipe gave %v", c)
	}
}

func TestMPTCPIsDenied(t *testing.T) {
	a := startRole(t, "mptcp")
	if _, _, errno := a.step(t, "socket"); errno != unix.EPROTONOSUPPORT {
		t.Errorf("got %v", errno)
	}
}

func TestNothingCapturesTwice(t *testing.T) {
	a := startRole(t, "nested")
	if got := a.line(t); got != "nested true true true" {
		t.Error(got)
	}
}

// The app has none of what the shim used.
func TestAppFindsItselfRestricted(t *testing.T) {
	for _, noNewPrivs := range []bool{false, true} {
		for _, captured := range []bool{false, true} {
			if captured && !noNewPrivs && capture.NeedsNoNewPrivs() {
				continue
			}
			s := spec("status")
			s.Capture, s.NoNewPrivs = captured, noNewPrivs
			a := launch(t, s)
			if captured {
				l, err := a.Captured()
				must(t, err)
				defer l.Close()
			}
			want := map[bool]string{false: "0", true: "1"}[noNewPrivs] + " " + map[bool]string{false: "0", true: "2"}[captured] + " 0"
			if got := a.line(t); got != want {
				t.Errorf("no-new-privs %v, capture %v: got %q, want %q", noNewPrivs, captured, got, want)
			}
		}
	}
}

func TestShimThatIsKilledGivesNoListener(t *testing.T) {
	a := launch(t, spec("status"))
	must(t, a.Signal(syscall.SIGKILL))
	if l, err := a.Captured(); err == nil {
		// It was quicker: then the listener is one of a dead tree.
		defer l.Close()
		a.end(t)
		if _, err := l.Next(); err != io.EOF {
			t.Errorf("next: %v", err)
		}
	}
}

func TestShimOfAnAppThatIsNotThere(t *testing.T) {
	s := spec("status")
	s.Path, s.Program = "/no/such/program", 0
	a := launch(t, s)
	l, err := a.Captured()
	must(t, err)
	defer l.Close()
	if exit, err := a.Wait(); err != nil || exit.Status() != 127 {
		t.Errorf("%v, %v", exit, err)
	}
}

func TestLargeEnvironment(t *testing.T) {
	s := spec("status")
	for n := range 10 {
		s.Env = append(s.Env, "LARGE"+strconv.Itoa(n)+"="+strings.Repeat("x", 100_000))
	}
	if exit, err := start(t, s).Wait(); err != nil || exit.Status() != 0 {
		t.Errorf("%v, %v", exit, err)
	}
}

func TestProcessWithoutCaptureGivesNoListener(t *testing.T) {
	s := spec("status")
	s.Capture = false
	a := launch(t, s)
	if _, err := a.Captured(); err == nil {
		t.Error("got a listener")
	}
}

// An app whose calls nobody answers must not run.
func TestAppWhoseCallsCannotBeTakenIsKilled(t *testing.T) {
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	a := launch(t, spec("socket", "127.0.0.1:0"))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: limit.Max}))
	_, err := a.Captured()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("captured: %v", err)
	}
	exit, err := a.Wait()
	if must(t, err); exit.Signal != unix.SIGKILL || !exit.Shortage() {
		t.Errorf("it ends with %v", exit)
	}
}

func TestNothingLeaks(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	reaper, err := childproc.NewReaper()
	must(t, err)
	cycle := func() {
		s := spec("socket", "127.0.0.1:0")
		s.Stdin, s.Stdout = -1, 2
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		must(t, err)
		defer null.Close()
		s.Stdout = int(null.Fd())
		p, err := reaper.Start(s)
		must(t, err)
		l, err := p.Captured()
		must(t, err)
		for {
			c, err := l.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			fd, err := c.Duplicate()
			must(t, err)
			must(t, errors.Join(unix.Close(fd), c.Continue()))
			if c.Syscall() == capture.Listen {
				_, err := p.Wait()
				must(t, errors.Join(err, p.Reap()))
			}
		}
		must(t, l.Close())
	}
	cycle()
	before := count()
	for range 10 {
		cycle()
	}
	if after := count(); after > before { // what earlier tests have dropped may be collected meanwhile
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
