package reexec

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"
)

const (
	// Variable tells a process that it is to take over, and how, with the descriptor of the
	// socket, or with the pids of its parent and of the old grace process.
	Variable = "GRACE_SUCCESSION"
	// tableflips is tableflip's own. It waits forever for a parent that a leaked one
	// promises.
	tableflips = "TABLEFLIP_HAS_PARENT_7DIU3"
	socketName = "line"
)

const (
	launch  = "launch" // the successor, from a process that will be gone soon
	another = "another"
	try     = "try"
	same    = "same"
)

// Transport leads from the grace process before this one, and to the one after it. It is
// for one goroutine.
type Transport struct {
	// Program is the path that grace was started by. A new version is what is there then.
	Program string

	upgrader *tableflip.Upgrader
}

// Predecessor is a grace process that this one is to take over from.
type Predecessor struct {
	Document []byte
	Files    map[int]int // the descriptors here, by the number that they have there

	mode       string
	socket     int
	old        int // its pidfd
	succession *Transport
	accepted   atomic.Bool
}

// Find tells whether this process is to take over from another grace process; predecessor is nil
// if not. It comes before anything that starts a process or reads the environment for
// one.
func Find() (s *Transport, predecessor *Predecessor, err error) {
	var mode string
	var number, old int
	_, _ = fmt.Sscan(os.Getenv(Variable), &mode, &number, &old) // what is missing stays zero
	s = &Transport{Program: Program()}
	if !s.verified(mode, number) {
		return s, nil, s.forget()
	}
	if mode == launch {
		os.Exit(launchSuccessor())
	}
	p := &Predecessor{mode: mode, socket: number, old: -1, succession: s}
	if mode == another {
		if p.socket, err = p.flip(number, old); err != nil {
			return s, nil, err
		}
	}
	if err := s.forget(); err != nil {
		return s, nil, err
	}
	unix.CloseOnExec(p.socket)
	if p.Document, p.Files, err = inherit(p.socket); err != nil {
		p.Refuse(err)
		return s, nil, err
	}
	return s, p, nil
}

// verified leaves out a variable that has leaked from another process.
func (s *Transport) verified(mode string, number int) bool {
	if mode == launch || mode == another {
		return number == os.Getppid() && os.Getenv(tableflips) != ""
	}
	kind, err := unix.GetsockoptInt(number, unix.SOL_SOCKET, unix.SO_TYPE)
	return (mode == try || mode == same) && err == nil && kind == unix.SOCK_SEQPACKET
}

// flip gets the socket, with an eye on the two processes that decide about this one.
func (p *Predecessor) flip(launcher, old int) (socket int, err error) {
	if p.old, err = unix.PidfdOpen(old, 0); err != nil {
		return -1, fmt.Errorf("cannot take over from the old grace process: %w", err)
	}
	if err := p.attendTo(launcher); err != nil {
		return -1, err
	}
	return p.succession.flip()
}

// attendTo ends this process with its launcher, which is all of it that the old grace process can
// kill, until the old grace process was told that it can go.
func (p *Predecessor) attendTo(launcher int) error {
	pidfd, err := unix.PidfdOpen(launcher, 0)
	if err != nil {
		return fmt.Errorf("cannot take over from the old grace process: %w", err)
	}
	go func() {
		defer unix.Close(pidfd)
		for !waitReadable(pidfd, Patience) {
		}
		if !p.accepted.Load() {
			os.Exit(statusFailed)
		}
	}()
	return nil
}

// flip gets the socket from tableflip, whose own two pipes are 3 and 4.
func (s *Transport) flip() (int, error) {
	var err error
	if s.upgrader, err = tableflip.New(tableflip.Options{UpgradeTimeout: Patience}); err != nil {
		return -1, fmt.Errorf("cannot take over from the old grace process: %w", err)
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	file, err := s.upgrader.File(socketName)
	if err == nil && file == nil {
		err = errors.New("the old grace process has left no state")
	}
	if err != nil {
		return -1, fmt.Errorf("cannot take over from the old grace process: %w", err)
	}
	defer file.Close()
	return unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

// forget keeps the variables from the app and from later grace processes.
func (s *Transport) forget() error {
	return errors.Join(os.Unsetenv(Variable), os.Unsetenv(tableflips))
}

// Program is the path that was written, so that a link on it leads to the new version
// once it was moved; but only if it led to this program.
func Program() string {
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

// Same reports whether the mode is to stay in the same process.
func (p *Predecessor) Same() bool { return p.mode == same }

// Trial reports whether the process has only to find out whether it could take over. It
// ends after Accept, without a trace.
func (p *Predecessor) Trial() bool { return p.mode == try }

// Refuse tells the old grace process why it has to go on.
func (p *Predecessor) Refuse(why error) {
	_ = send(p.socket, "no "+why.Error()) // who is not told sees this process end
	unix.Close(p.socket)
}

// Accept tells the old grace process that it can go, and returns when it has: until then
// nothing may be touched that both have.
func (p *Predecessor) Accept() error {
	defer unix.Close(p.socket)
	if p.mode == same {
		return nil
	}
	launcher := os.Getppid()
	if err := send(p.socket, fmt.Sprintf("yes %d %d", os.Getpid(), launcher)); err != nil {
		return fmt.Errorf("cannot answer the old grace process: %w", err)
	}
	if p.mode == try {
		return nil
	}
	p.accepted.Store(true)
	if err := p.succession.upgrader.Ready(); err != nil {
		return fmt.Errorf("cannot answer the old grace process: %w", err)
	}
	return p.outlive()
}

// outlive waits for the end of the old grace process. What tableflip tells is the end of the
// launcher.
func (p *Predecessor) outlive() error {
	defer unix.Close(p.old)
	if !waitReadable(p.old, Patience) {
		return fmt.Errorf("the old grace process has not ended within %s", Patience)
	}
	return nil
}

// ByAnother has another process take over, if agree says so once that can, and returns its pid. Then the caller has to
// end at once, and to touch nothing that was handed over.
func (s *Transport) ByAnother(e Snapshot, agree func() bool) (pid int, err error) {
	if s.upgrader == nil {
		if s.upgrader, err = tableflip.New(tableflip.Options{UpgradeTimeout: Patience}); err != nil {
			return 0, err
		}
		if err := s.upgrader.Ready(); err != nil {
			return 0, err
		}
	}
	l, err := openSocketPair()
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
	pid, launcher, why := l.answer()
	if why != "" {
		return 0, errors.New(why)
	}
	if !agree() {
		return 0, errors.New("this grace process had to handle another event first")
	}
	return pid, orphan(launcher)
}

// launchSuccessor makes a process that is a child of this one, which stays until the old
// grace ends it. The successor ends with it, until it has accepted.
func launchSuccessor() int {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, Variable+"=") })
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   append(env, Variable+"="+fmt.Sprintf("%s %d %d", another, os.Getpid(), os.Getppid())),
		Files: []uintptr{0, 1, 2, 3, 4, 5},
	})
	if err != nil {
		return statusFailed
	}
	for fd := 3; fd <= 5; fd++ { // whose end the successor's end is
		unix.Close(fd)
	}
	return wait(pid)
}

const statusFailed = 1

// wait gives a child's status as a shell does.
func wait(pid int) int {
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			break
		}
	}
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// orphan ends the launcher, so that the successor becomes a child of this process's own
// parent. systemd takes a main process that is another one's child for one whose end it
// will not see, and kills it at a stop without waiting (main_pid_alien in
// src/core/unit.c).
func orphan(launcher int) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(launcher, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	waitReadable(pidfd, Patience)
	return nil
}

func (s *Transport) pass(l socketPair) error {
	fd, err := unix.FcntlInt(uintptr(l.theirs), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), socketName)
	defer file.Close()
	return s.upgrader.AddFile(socketName, file)
}

// upgrade: tableflip starts what is at os.Args[0].
func (s *Transport) upgrade() error {
	written := os.Args[0]
	os.Args[0] = s.Program
	defer func() { os.Args[0] = written }()
	if err := os.Setenv(Variable, launch+" "+strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	defer os.Unsetenv(Variable)
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

// failure prefers what the new grace process has said itself.
func (l socketPair) failure(program string, err error) error {
	if _, _, why := l.answer(); why != "" {
		return errors.New(why)
	}
	return fmt.Errorf("cannot start %s: %w", program, err)
}

// answer is what the new grace process has said: its pid and its parent's, or why it cannot take
// over; nothing if nothing came.
func (l socketPair) answer() (pid, parent int, why string) {
	text := make([]byte, longestMessage)
	n, _, err := unix.Recvfrom(l.ours, text, unix.MSG_DONTWAIT)
	if err != nil || n <= 0 {
		return 0, 0, ""
	}
	word, rest, _ := strings.Cut(string(text[:n]), " ")
	if word == "yes" {
		_, _ = fmt.Sscan(rest, &pid, &parent) // 0 is unknown
		return pid, parent, ""
	}
	return 0, 0, rest
}

// Try has the program show, in a process of its own, that it can take over.
func (s *Transport) Try(e Snapshot) error {
	l, err := openSocketPair()
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.leave(e); err != nil {
		return err
	}
	pidfd := -1
	pid, err := syscall.ForkExec(s.Program, append([]string{s.Program}, os.Args[1:]...), &syscall.ProcAttr{
		Env:   append(os.Environ(), Variable+"="+try+" 3"),
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
func (l socketPair) judge(program string, pid, pidfd int) error {
	inTime := waitReadable(pidfd, Patience)
	if !inTime {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it is waited for in any case
	}
	status := wait(pid)
	said, _, why := l.answer()
	switch {
	case why != "":
		return errors.New(why)
	case !inTime:
		return fmt.Errorf("%s has not taken over within %s", program, Patience)
	case said == 0 || status != 0:
		return fmt.Errorf("%s ended with status %d before it could take over", program, status)
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
func (s *Transport) InPlace(e Snapshot) error {
	l, err := openSocketPair()
	if err != nil {
		return err
	}
	if err := l.leave(e); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(l.theirs), unix.F_SETFD, 0); err != nil {
		return err
	}
	env := append(os.Environ(), Variable+"="+same+" "+strconv.Itoa(l.theirs))
	argv := append([]string{s.Program}, os.Args[1:]...)
	return errors.Join(syscall.Exec(s.Program, argv, env), syscall.Exec("/proc/self/exe", argv, env))
}
