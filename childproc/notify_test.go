package childproc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gracerun/grace/internal/requirement"
	"golang.org/x/sys/unix"
)

func openNotify(t *testing.T, dir string) *NotifySocket {
	t.Helper()
	s, err := OpenNotify(dir, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func anyone(int) bool { return true }

func only(pid int) func(int) bool { return func(p int) bool { return p == pid } }

// send is not by a connected socket, for which Go knows of no descriptors to send.
func send(t *testing.T, path, text string, fds ...int) {
	t.Helper()
	fd := must(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(fd)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: path}, 0); err != nil {
		t.Fatal(err)
	}
}

func TestOpenNotify(t *testing.T) {
	dir := t.TempDir()
	s := openNotify(t, dir)
	other := openNotify(t, dir)
	if filepath.Dir(s.Path()) != dir || s.Path() == other.Path() {
		t.Errorf("%s and %s", s.Path(), other.Path())
	}
	info, err := os.Lstat(s.Path())
	if err != nil || info.Mode() != 0o600|os.ModeSocket {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Path()); !os.IsNotExist(err) {
		t.Error(err)
	}
}

// The mode is there from the beginning, whatever the umask.
func TestOpenNotifyIsNeverWider(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := t.TempDir()
	watch := must(unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK))
	defer unix.Close(watch)
	must(unix.InotifyAddWatch(watch, dir, unix.IN_ATTRIB))
	s := openNotify(t, dir)
	if mode := must(os.Lstat(s.Path())).Mode().Perm(); mode != 0o600 {
		t.Errorf("%v", mode)
	}
	if _, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
		t.Errorf("its mode was changed afterwards: %v", err)
	}
}

func TestOpenNotifyFails(t *testing.T) {
	for _, dir := range []string{"/nonexistent", "/" + strings.Repeat("x", 100)} {
		if s, err := OpenNotify(dir, -1, -1); err == nil {
			s.Close()
			t.Errorf("%s: no error", dir)
		}
	}
}

func init() {
	roles["notify"] = func() {
		conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(conn.Write([]byte(os.Getenv("MESSAGE"))))
		io.Copy(io.Discard, os.Stdin)
	}
	roles["flood"] = flood
}

func notifier(s *NotifySocket, message string) *exec.Cmd {
	return roleCommand("notify", "NOTIFY_SOCKET="+s.Path(), "MESSAGE="+message)
}

func TestReceive(t *testing.T) {
	for _, dir := range []string{t.TempDir(), ""} {
		s := openNotify(t, dir)
		send(t, s.Path(), "READY=1\nSTATUS=foreign")
		p := startProgram(t, notifier(s, "READY=1\nSTATUS=mine"))
		m, err := s.Receive(only(p.pid()))
		if err != nil || m.PID != p.pid() || !m.Ready || *m.Status != "mine" {
			t.Errorf("%s: %+v, %v", s.Path(), m, err)
		}
		if count, pid := s.refusals(); count != 1 || pid != os.Getpid() {
			t.Errorf("%d refused, the last of %d", count, pid)
		}
	}
}

func TestReceiveFromOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		requirement.Check(t, "root", os.ErrPermission)
	}
	dir := must(os.MkdirTemp("", ""))
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s, err := OpenNotify(dir, nobody, nobody)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := startProgram(t, asNobody(t, notifier(s, "READY=1")))
	if m, err := s.Receive(anyone); err != nil || m.PID != p.pid() || !m.Ready {
		t.Errorf("%+v, %v", m, err)
	}
	other := notifier(s, "READY=1")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}
	if out, err := other.Output(); err != nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("%s, %v", out, err)
	}
}

func TestReceiveRefusesWhatMakesNoSense(t *testing.T) {
	s := openNotify(t, t.TempDir())
	bad := []string{"", "nonsense", "READY=1\x00READY=1", "READY=1\n" + strings.Repeat("x", 4089)}
	for _, text := range bad {
		send(t, s.Path(), text)
	}
	longest := "STATUS=" + strings.Repeat("x", 4089)
	send(t, s.Path(), longest)
	m, err := s.Receive(anyone)
	if err != nil || "STATUS="+*m.Status != longest {
		t.Errorf("%+v, %v", m, err)
	}
	if count, _ := s.refusals(); count != len(bad) {
		t.Errorf("%d refused, want %d", count, len(bad))
	}
}

// What comes with a message is closed, be it one barrier or as much as fits.
func TestReceiveClosesDescriptors(t *testing.T) {
	s := openNotify(t, t.TempDir())
	before := descriptors(t)
	for _, n := range []int{1, 253} {
		for _, text := range []string{"BARRIER=1", "FDSTORE=1", "nonsense"} {
			var pipe [2]int
			if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
				t.Fatal(err)
			}
			fds := make([]int, n)
			for i := range fds {
				fds[i] = pipe[1]
			}
			send(t, s.Path(), text, fds...)
			unix.Close(pipe[1])
			if _, err := unix.Read(pipe[0], make([]byte, 1)); err != unix.EAGAIN {
				t.Errorf("%s is answered too early: %v", text, err)
			}
			send(t, s.Path(), "READY=1")
			for ready := false; !ready; {
				ready = must(s.Receive(anyone)).Ready
			}
			if got, err := unix.Read(pipe[0], make([]byte, 1)); got != 0 || err != nil {
				t.Errorf("%s with %d descriptors: the pipe is open still: %v", text, n, err)
			}
			unix.Close(pipe[0])
		}
	}
	checkNoMoreDescriptors(t, before)
}

const floods = 20_000

// flood sends garbage, says so, and sends more of it.
func flood() {
	conn := must(net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")))
	for i := range floods {
		if i == floods/2 {
			fmt.Println()
		}
		must(conn.Write([]byte([]string{"READY=1", "\x00\xff", "MAINPID=1"}[i%3])))
	}
}

func TestReceiveInAFlood(t *testing.T) {
	s := openNotify(t, "")
	startProgram(t, roleCommand("flood", "NOTIFY_SOCKET="+s.Path()))
	ready := startProgram(t, notifier(s, "READY=1"))
	received := make(chan Message, 2)
	go func() {
		for {
			m, err := s.Receive(only(ready.pid()))
			if err != nil {
				close(received)
				return
			}
			received <- m
		}
	}()
	if m := <-received; m.PID != ready.pid() || !m.Ready {
		t.Errorf("%+v", m)
	}
	eventually(t, "all others are refused", func() bool {
		count, _ := s.refusals()
		return count == floods
	})
	s.Close()
	if m, more := <-received; more {
		t.Errorf("one too many: %+v", m)
	}
}

func TestCloseEndsReceive(t *testing.T) {
	for _, dir := range []string{t.TempDir(), ""} {
		s := openNotify(t, dir)
		ended := make(chan error, 1)
		go func() {
			_, err := s.Receive(anyone)
			ended <- err
		}()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}

// systemd-notify waits at a barrier until it is answered.
// A message that comes in the moment of the close keeps Receive busy, for which the close has to wait.
func TestCloseWhileMessagesCome(t *testing.T) {
	dir := t.TempDir()
	for range 200 {
		s, received := openNotify(t, dir), make(chan error)
		go func() {
			for {
				if _, err := s.Receive(anyone); err != nil {
					received <- err
					return
				}
			}
		}()
		send(t, s.Path(), "STATUS=hello")
		go func() { received <- s.Close() }()
		for range 2 {
			select {
			case err := <-received:
				if err != nil && !errors.Is(err, net.ErrClosed) {
					t.Fatal(err)
				}
			case <-time.After(deadline):
				t.Fatal("it does not end")
			}
		}
	}
}

func TestReceiveFromSystemdNotify(t *testing.T) {
	path, err := exec.LookPath("systemd-notify")
	requirement.Check(t, "systemd-notify", err)
	s := openNotify(t, t.TempDir())
	cmd := exec.Command(path, "--ready", "--status=hello")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.Path())
	p := startProgram(t, cmd)
	m, err := s.Receive(anyone)
	if err != nil || !m.Ready || *m.Status != "hello" {
		t.Errorf("%+v, %v", m, err)
	}
	go s.Receive(anyone)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// Who is connected to the socket before is heard as well as who looks for the path, also by a successor.
func TestNotifySocketIsBoundAnew(t *testing.T) {
	dir := t.TempDir() + "/runtime"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := openNotify(t, dir)
	connected := must(net.Dial("unixgram", s.Path()))
	defer connected.Close()
	says := func(conn net.Conn, text string) {
		t.Helper()
		if _, err := conn.Write([]byte("STATUS=" + text)); err != nil {
			t.Error(err)
		}
	}
	hears := func(s *NotifySocket, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if m, err := s.Receive(anyone); err != nil || m.Status == nil || *m.Status != text {
				t.Errorf("%+v, %v; not %s", m, err, text)
			}
		}
	}
	for range 3 {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil || s.There() {
			t.Fatal(err)
		}
		if made, err := s.Renew(-1, -1); err != nil || !made || !s.There() {
			t.Fatal(made, err)
		}
		again := must(net.Dial("unixgram", s.Path()))
		defer again.Close()
		says(again, "again")
		says(connected, "connected")
		hears(s, "connected", "again")
	}
	if err := s.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	if made, err := s.Renew(-1, -1); err != nil || made || s.There() {
		t.Errorf("a successor's socket is made anew: %v", err)
	}
	says(connected, "to the successor")
	state := must(s.State())
	fds := map[int]int{}
	for _, fd := range append(state.Former, state.FD) {
		fds[fd] = must(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0))
	}
	successor := must(TakeOverNotify(state, fds))
	defer successor.Close()
	if len(fds) > 0 {
		t.Errorf("descriptors %v are left", fds)
	}
	if made, err := successor.Renew(-1, -1); err != nil || !made || !successor.There() {
		t.Error(made, err)
	}
	hears(successor, "to the successor")
}

func TestNotifySocketThatCannotBeBoundAnew(t *testing.T) {
	dir := t.TempDir() + "/runtime"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := openNotify(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Renew(-1, -1); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), s.Path()) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if made, err := s.Renew(-1, -1); err != nil || made || s.There() {
		t.Errorf("a closed one is made anew: %v", err)
	}
}

func TestParseMessage(t *testing.T) {
	for _, c := range []struct {
		text string
		want Message
	}{
		{"READY=1", Message{Ready: true}},
		{"READY=1\n", Message{Ready: true}},
		{"READY=1\x00", Message{Ready: true}},
		{"READY=0", Message{}},
		{"READY=1\nREADY=0", Message{}},
		{"READY=0\nREADY=1", Message{Ready: true}},
		{" READY=1", Message{}},
		{"READY=1\r", Message{}},
		{"STOPPING=1\nRELOADING=1", Message{Stopping: true}},
		{"WATCHDOG=1", Message{Watchdog: true}},
		{"WATCHDOG=trigger", Message{}},
		{"EXTEND_TIMEOUT_USEC=7", Message{Extend: 7 * time.Microsecond}},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", Message{Extend: 9223372036854775 * time.Microsecond}},
		{"EXTEND_TIMEOUT_USEC=-7", Message{}},
		{"STATUS=a=b", Message{Status: new("a=b")}},
		{"STATUS=", Message{Status: new("")}},
		{"STATUS=\x1b[31mred\tё\u202e\u00a0\x80", Message{Status: new(" [31mred ё  \ufffd")}},
		{"MAINPID=42", Message{MainPID: 42}},
		{"MAINPID=42\nMAINPID=x", Message{}},
		{"MAINPID=4294967297", Message{}},
		{"X_GRACE_DRAINS=1", Message{Drains: true}},
		{"X_GRACE_DRAINS=0", Message{}},
		{"X_GRACE_INFLIGHT=0", Message{InFlight: new(0)}},
		{"X_GRACE_INFLIGHT=-1", Message{}},
		{"ERRNO=2", Message{}},
		{"BARRIER=1", Message{}},
		{"nothing\nREADY=1", Message{Ready: true}},
	} {
		got, err := parseMessage([]byte(c.text))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v", c.text, got, err)
		}
	}
}

func TestParseMessageRefuses(t *testing.T) {
	for _, text := range []string{"", "\n", "READY", "\x00", "READY=1\x00READY=1", "READY=1\x00\x00"} {
		if m, err := parseMessage([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, m)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=\xff\x1b\nMAINPID=1\nX_GRACE_INFLIGHT=9\nEXTEND_TIMEOUT_USEC=99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMessage(text)
		if m.MainPID < 0 || m.Extend < 0 || m.InFlight != nil && *m.InFlight < 0 {
			t.Errorf("below zero: %+v", m)
		}
		if m.Status != nil && (!utf8.ValidString(*m.Status) || strings.ContainsFunc(*m.Status, unprintable)) {
			t.Errorf("unprintable: %q", *m.Status)
		}
		if err != nil {
			return
		}
		if more, err := parseMessage(append(text, "\nREADY=1"...)); err == nil && !more.Ready {
			t.Error("the last line does not count")
		}
	})
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
