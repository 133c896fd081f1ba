package succession

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

const (
	// variable tells a process that it is to take over, and how: "another", "try" or "same",
	// with the pid of the old grace or the descriptor of the line.
	variable = "GRACE_SUCCESSION"
	// tableflips is tableflip's own. It waits forever for a parent that a leaked one
	// promises.
	tableflips = "TABLEFLIP_HAS_PARENT_7DIU3"
	lineName   = "line"
)

const (
	another = "another"
	try     = "try"
	same    = "same"
)

// Succession is a grace's place between the one before it and the one after it. It is
// for one goroutine.
type Succession struct {
	// Program is the path that grace was started by. A new version is what is there then.
	Program string

	upgrader *tableflip.Upgrader
}

// Predecessor is a grace that this one is to take over from.
type Predecessor struct {
	Document []byte
	Files    map[int]int // the descriptors here, by the number that they have there

	way        string
	line       int
	succession *Succession
}

// Find tells whether this process is to take over from another grace; predecessor is nil
// if not. It comes before anything that starts a process or reads the environment for
// one.
func Find() (s *Succession, predecessor *Predecessor, err error) {
	way, number, _ := strings.Cut(os.Getenv(variable), " ")
	s = &Succession{Program: program()}
	n, err := strconv.Atoi(number)
	if err != nil || !s.verified(way, n) {
		return s, nil, s.forget()
	}
	p := &Predecessor{way: way, line: n, succession: s}
	if way == another {
		if p.line, err = s.flip(); err != nil {
			return s, nil, err
		}
	}
	if err := s.forget(); err != nil {
		return s, nil, err
	}
	unix.CloseOnExec(p.line)
	if p.Document, p.Files, err = inherit(p.line); err != nil {
		p.Refuse(err)
		return s, nil, err
	}
	return s, p, nil
}

// verified leaves out a variable that has leaked from another process.
func (s *Succession) verified(way string, number int) bool {
	if way == another {
		return number == os.Getppid() && os.Getenv(tableflips) != ""
	}
	kind, err := unix.GetsockoptInt(number, unix.SOL_SOCKET, unix.SO_TYPE)
	return (way == try || way == same) && err == nil && kind == unix.SOCK_SEQPACKET
}

// flip gets the line from tableflip, whose own two pipes are 3 and 4.
func (s *Succession) flip() (int, error) {
	var err error
	if s.upgrader, err = tableflip.New(tableflip.Options{UpgradeTimeout: Patience}); err != nil {
		return -1, fmt.Errorf("cannot take over from the old grace: %w", err)
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	file, err := s.upgrader.File(lineName)
	if err == nil && file == nil {
		err = errors.New("it has left nothing")
	}
	if err != nil {
		return -1, fmt.Errorf("cannot take over from the old grace: %w", err)
	}
	defer file.Close()
	return unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// forget keeps the variables from the app and from later graces.
func (s *Succession) forget() error {
	return errors.Join(os.Unsetenv(variable), os.Unsetenv(tableflips))
}

// program is the path that was written, so that a link on it leads to the new version
// once it was moved; but only if it led to this program.
func program() string {
	own, err := os.Executable()
	if err != nil {
		own = os.Args[0]
	}
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return own
	}
	written, err := os.Stat(path)
	if err != nil {
		return own
	}
	if running, err := os.Stat("/proc/self/exe"); err != nil || !os.SameFile(written, running) {
		return own
	}
	return path
}

// Same reports whether the way is to stay in the same process.
func (p *Predecessor) Same() bool { return p.way == same }

// Trial reports whether the process has only to find out whether it could take over. It
// ends after Accept, without a trace.
func (p *Predecessor) Trial() bool { return p.way == try }

// Refuse tells the old grace why it has to go on.
func (p *Predecessor) Refuse(why error) {
	_ = send(p.line, "no "+why.Error()) // who is not told sees this process end
	unix.Close(p.line)
}

// Accept tells the old grace that it can go, and returns when it has: until then
// nothing may be touched that both have.
func (p *Predecessor) Accept() error {
	defer unix.Close(p.line)
	if p.way == same {
		return nil
	}
	if err := send(p.line, "yes "+strconv.Itoa(os.Getpid())); err != nil {
		return fmt.Errorf("cannot answer the old grace: %w", err)
	}
	if p.way == try {
		return nil
	}
	if err := p.succession.upgrader.Ready(); err != nil {
		return fmt.Errorf("cannot answer the old grace: %w", err)
	}
	return p.outlive()
}

// outlive waits for the end of the old grace, which kills this process if it does not
// want to go.
func (p *Predecessor) outlive() error {
	parent := os.Getppid()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := p.succession.upgrader.WaitForParent(ctx); err != nil {
		return fmt.Errorf("the old grace (pid %d) does not end: %w", parent, err)
	}
	return nil
}

// ByAnother has another process take over, and returns its pid. Then the caller has to
// end at once, and to touch nothing that was handed over.
func (s *Succession) ByAnother(e Estate) (pid int, err error) {
	if s.upgrader == nil {
		if s.upgrader, err = tableflip.New(tableflip.Options{UpgradeTimeout: Patience}); err != nil {
			return 0, err
		}
		if err := s.upgrader.Ready(); err != nil {
			return 0, err
		}
	}
	l, err := openLine()
	if err != nil {
		return 0, err
	}
	defer l.close()
	if err := l.leave(e); err != nil {
		return 0, err
	}
	if err := s.pass(l); err != nil {
		return 0, err
	}
	if err := s.upgrade(); err != nil {
		return 0, l.failure(s.Program, err)
	}
	pid, why := l.answer()
	if why != "" {
		return 0, errors.New(why)
	}
	return pid, nil
}

func (s *Succession) pass(l line) error {
	fd, err := unix.FcntlInt(uintptr(l.theirs), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), lineName)
	defer file.Close()
	return s.upgrader.AddFile(lineName, file)
}

// upgrade: tableflip starts what is at os.Args[0].
func (s *Succession) upgrade() error {
	written := os.Args[0]
	os.Args[0] = s.Program
	defer func() { os.Args[0] = written }()
	if err := os.Setenv(variable, another+" "+strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	defer os.Unsetenv(variable)
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		err := s.upgrader.Upgrade()
		if err == nil || !unaware(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// unaware: tableflip looks at what has happened in no order (Upgrader.run).
func unaware(err error) bool {
	return err.Error() == "process is not ready yet" || err.Error() == "parent hasn't exited"
}

// failure prefers what the new grace has said itself.
func (l line) failure(program string, err error) error {
	if _, why := l.answer(); why != "" {
		return errors.New(why)
	}
	return fmt.Errorf("cannot start %s: %w", program, err)
}

// answer is what the new grace has said: its pid, or why it cannot take over; neither if
// nothing came.
func (l line) answer() (pid int, why string) {
	text := make([]byte, longestMessage)
	n, _, err := unix.Recvfrom(l.ours, text, unix.MSG_DONTWAIT)
	if err != nil || n <= 0 {
		return 0, ""
	}
	word, rest, _ := strings.Cut(string(text[:n]), " ")
	if word == "yes" {
		pid, _ = strconv.Atoi(rest) // 0 is unknown
		return pid, ""
	}
	return 0, rest
}

// Try has the program show, in a process of its own, that it can take over.
func (s *Succession) Try(e Estate) error {
	l, err := openLine()
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.leave(e); err != nil {
		return err
	}
	pidfd := -1
	pid, err := syscall.ForkExec(s.Program, append([]string{s.Program}, os.Args[1:]...), &syscall.ProcAttr{
		Env:   append(os.Environ(), variable+"="+try+" 3"),
		Files: []uintptr{0, 1, 2, uintptr(l.theirs)},
		Sys:   &syscall.SysProcAttr{PidFD: &pidfd},
	})
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", s.Program, err)
	}
	defer unix.Close(pidfd)
	return l.judge(s.Program, pid, pidfd)
}

// judge waits for the end of the trial. A program that is no grace may end well and say
// nothing.
func (l line) judge(program string, pid, pidfd int) error {
	inTime := waitReadable(pidfd, Patience)
	if !inTime {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it is waited for in any case
	}
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	said, why := l.answer()
	switch {
	case why != "":
		return errors.New(why)
	case !inTime:
		return fmt.Errorf("%s has not taken over within %s", program, Patience)
	case status.Signaled():
		return fmt.Errorf("%s was ended by %s before it could take over", program, status.Signal())
	case said == 0 || status.ExitStatus() != 0:
		return fmt.Errorf("%s ended with status %d before it could take over", program, status.ExitStatus())
	}
	return nil
}

func waitReadable(fd int, within time.Duration) bool {
	deadline := time.Now().Add(within)
	for left := within; left > 0; left = time.Until(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != unix.EINTR {
			return n > 0
		}
	}
	return false
}

// InPlace replaces the program of this process. It returns only if that fails. If the
// program has gone since it was tried, this one succeeds itself.
func (s *Succession) InPlace(e Estate) error {
	l, err := openLine()
	if err != nil {
		return err
	}
	if err := l.leave(e); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(l.theirs), unix.F_SETFD, 0); err != nil {
		return err
	}
	env := append(os.Environ(), variable+"="+same+" "+strconv.Itoa(l.theirs))
	argv := append([]string{s.Program}, os.Args[1:]...)
	return errors.Join(syscall.Exec(s.Program, argv, env), syscall.Exec("/proc/self/exe", argv, env))
}
