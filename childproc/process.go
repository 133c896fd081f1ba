package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/gracerun/grace/childproc/capture"
	"github.com/gracerun/grace/childproc/shim"
	"golang.org/x/sys/unix"
)

var errNoPidfd = errors.New("this kernel has no pidfd: use Linux 5.4 or newer")

// Process is one process of the app and the process group it leads. It owns a pidfd until Reap. Signal, Kill and Reap
// belong to one goroutine, Captured, Wait and WaitRest to another.
type Process struct {
	ProcessState
	reaper *Reaper
	end    *os.File // the pidfd, known to Go's poller: no thread is held until the process has ended

	forked bool // by this grace process

	conn          int        // to the shim; -1 once it has become the app, or ended
	list          *shim.List // that the shim has
	sendsListener bool
	failed        *StartError
	silent        bool // the connection has ended without a word: the shim has died
}

// take makes one that grace has not forked its own. The caller holds r.mu.
func (r *Reaper) take(s ProcessState) *Process {
	p := (&Process{ProcessState: s, reaper: r, conn: -1}).hold()
	r.own[s.PID] = p
	return p
}

// hold has Go's poller wait for the end of the process.
func (p *Process) hold() *Process {
	if p.PIDFD < 0 {
		return p
	}
	if p.Birth == (Birth{}) {
		p.Birth = birthOf(p.PID, p.PIDFD)
	}
	// fcntl(2) cannot fail here; a file that blocks is read by a thread of its own.
	_ = unix.SetNonblock(p.PIDFD, true)
	p.end = os.NewFile(uintptr(p.PIDFD), "pidfd")
	return p
}

func (p *Process) disconnect() {
	if p.conn >= 0 {
		unix.Close(p.conn)
	}
	p.conn = -1
}

// Adopt takes a running descendant as a process to be watched: the main process
// of an app that went to the background. It need not be a child of grace yet.
func (r *Reaper) Adopt(pid int) (*Process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot adopt process %d: %w", pid, err)
	}
	tag, err := tagOf(pid)
	if err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("cannot adopt process %d: %w", pid, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.take(ProcessState{PID: pid, PIDFD: pidfd, Tag: tag}), nil
}

// Follow takes a process to be watched that grace has not started. Its process group counts as its own only where nothing is in
// that but the process and what it has started.
func (r *Reaper) Follow(pid int) (*Process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot follow process %d: %w", pid, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notOurChildren = true
	return r.take(ProcessState{PID: pid, PIDFD: pidfd, Alone: !keepsGroup(pid)}), nil
}

func keepsGroup(pid int) bool {
	group, err := unix.Getpgid(pid)
	if err != nil || group != pid {
		return false
	}
	members, err := Group(pid)
	if err != nil {
		return false
	}
	tree, err := Tree(pid)
	apart := func(member int) bool { return !slices.Contains(tree, member) }
	return err == nil && !slices.ContainsFunc(members, apart)
}

// abandon ends a child that cannot be supervised.
func (p *Process) abandon() error {
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil {
		return err
	}
	_, err := unix.Wait4(p.PID, nil, 0, nil)
	return err
}

// Release stops following an adopted process and leaves it alone.
func (p *Process) Release() {
	p.reaper.forget(p)
	p.close()
}

func (p *Process) close() {
	p.disconnect()
	if p.end != nil {
		p.end.Close()
	}
}

// signal gives ESRCH for a process that has been reaped.
func (p *Process) signal(sig syscall.Signal) error {
	if p.PIDFD < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(p.PIDFD, sig, nil, 0)
}

// Signal sends sig to the process alone. A process that has ended already is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.signal(sig)
	if err == nil || err == unix.ESRCH {
		return nil
	}
	return fmt.Errorf("cannot send %s to process %d: %w", unix.SignalName(sig), p.PID, err)
}

// SignalGroup sends sig to the whole process group, the process included. The
// group's number is safe to use because its leader is not reaped before Reap.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	if !p.leadsGroup() {
		return p.Signal(sig)
	}
	err := unix.Kill(-p.PID, sig)
	if err == nil || err == unix.ESRCH {
		return nil
	}
	return fmt.Errorf("cannot send %s to process group %d: %w", unix.SignalName(sig), p.PID, err)
}

// An adopted process leads a group only if it made one. Of a process that another parent has reaped the group goes on
// under the number, which no new process gets as long as it does (alloc_pid and free_pid in kernel/pid.c).
func (p *Process) leadsGroup() bool {
	if p.Alone {
		return false
	}
	if p.signal(0) == unix.ESRCH {
		return p.Group && unix.Kill(p.PID, 0) == unix.ESRCH
	}
	pgid, err := unix.Getpgid(p.PID)
	return err == nil && pgid == p.PID
}

// Captured waits for the shim's listener; it is to be called once, before Wait, for a process that was started with Capture.
// The caller closes the listener. The error is a *StartError where the shim has failed, which Wait will tell too. A process whose
// listener cannot be taken is killed: what it asks for would fail.
func (p *Process) Captured() (*capture.Listener, error) {
	if !p.sendsListener {
		return nil, fmt.Errorf("cannot capture process %d: it was started without capture", p.PID)
	}
	listener, err := p.takeListener()
	if err != nil {
		killed := p.SignalGroup(unix.SIGKILL) // before the connection ends, which ends a shim with a status
		p.fail("take its calls", err)
		return nil, errors.Join(p.failed, killed)
	}
	if listener == nil {
		return nil, p.notCaptured()
	}
	return listener, nil
}

// takeListener gives nil where the shim has sent none.
func (p *Process) takeListener() (*capture.Listener, error) {
	sent, err := p.awaitListener()
	if err != nil || !sent {
		return nil, err
	}
	return capture.Receive(p.conn)
}

// awaitListener reports whether the shim has sent its listener. All else that it sends, and the end, is left to be read.
func (p *Process) awaitListener() (bool, error) {
	file, err := p.pollable()
	if err != nil {
		return false, err
	}
	defer file.Close()
	if err := waitReadable(file, nil); err != nil {
		return false, err
	}
	var text [shim.ReportSize]byte
	n, _, err := unix.Recvfrom(p.conn, text[:], unix.MSG_PEEK)
	return strings.HasPrefix(string(text[:max(n, 0)]), listenerFollows), err
}

// pollable is a duplicate of the connection for Go's poller, as closing a file closes its descriptor.
func (p *Process) pollable() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(p.conn), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "connection to the shim"), nil
}

func (p *Process) notCaptured() error {
	failed, err := p.readReport()
	if err != nil {
		return err
	}
	if failed == nil {
		return fmt.Errorf("cannot capture process %d: it ended before it became the app", p.PID)
	}
	return failed
}

// Wait blocks until the process has ended. It stays a zombie, which keeps its
// pid and its group's number from being used again, until Reap.
func (p *Process) Wait() (Exit, error) {
	failed, err := p.readReport()
	if err != nil {
		return Exit{}, err
	}
	if err := p.waitEnd(); err != nil {
		return Exit{}, err
	}
	exit, err := p.peek()
	exit.Err = failed
	if p.silent && (exit.Code == statusThrown || exit.Signal == syscall.SIGABRT) {
		exit.Err = startError("start a thread", p.Path, syscall.EAGAIN)
	}
	return exit, err
}

// statusThrown is how a Go program ends that the system gives no thread or no memory (newosproc in the runtime's
// os_linux.go; with cgo, or GOTRACEBACK=crash, it aborts). That befalls a shim that is a copy of grace where its fork has taken the
// last place.
const statusThrown = 2

// readReport ends with the exec, which closes the other end, or with what the shim has to say.
func (p *Process) readReport() (*StartError, error) {
	if p.conn < 0 {
		return p.failed, nil
	}
	file := os.NewFile(uintptr(p.conn), "connection to the shim")
	if unpolled(file) {
		_ = unix.SetNonblock(p.conn, false) // fcntl(2) cannot fail here; a thread reads it
	}
	p.conn = -1
	defer file.Close()
	text, err := io.ReadAll(file)
	if errors.Is(err, unix.ECONNRESET) {
		err = nil // it has ended, and has not read its list
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read whether process %d was started: %w", p.PID, err)
	}
	return p.takeReport(string(text))
}

func (p *Process) takeReport(text string) (*StartError, error) {
	text, executing := strings.CutPrefix(text, executes)
	p.silent = text == "" && !executing
	if text == "" || p.failed != nil {
		return p.failed, nil
	}
	call, errno, ok := shim.ParseReport([]byte(text))
	if !ok {
		return nil, fmt.Errorf("cannot read whether process %d was started: %q", p.PID, text)
	}
	p.failed = &StartError{Step: p.list.Step(call), Path: p.Path, Errno: errno}
	return p.failed, nil
}

func (p *Process) waitEnd() error {
	if p.PIDFD < 0 {
		return nil
	}
	if err := waitReadable(p.end, nil); err != nil {
		return fmt.Errorf("cannot wait for process %d: %w", p.PID, err)
	}
	return nil
}

// ended asks the kernel, and so tells the truth also while Wait has not returned.
func (p *Process) ended() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.PIDFD), Events: unix.POLLIN}}, 0)
	return err == nil && n > 0
}

func (p *Process) peek() (Exit, error) {
	if p.PIDFD < 0 {
		return Exit{Unknown: true}, nil
	}
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, p.PIDFD, &info, unix.WEXITED|unix.WNOWAIT, nil)
	var exit Exit
	switch err {
	case nil:
		return exitOf(&info), nil
	case unix.ECHILD:
		exit, err = p.exitOfOther()
	}
	if err != nil {
		err = fmt.Errorf("cannot read the exit status of process %d: %w", p.PID, err)
	}
	return exit, err
}

// Reap gives the pid back to the kernel and closes the pidfd; the Process is of no use afterwards.
func (p *Process) Reap() error {
	err := p.reaper.reap(p)
	p.close()
	if err != nil && err != unix.ECHILD {
		return fmt.Errorf("cannot reap process %d: %w", p.PID, err)
	}
	return nil
}
