package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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

	report  int // read end of the shim's report; -1 once read
	failed  *StartError
	silent  bool // the report has ended without a word: the shim has died
	capture int  // where the shim sends its listener; -1 without capture, and once it has come
}

// connect makes the shim's connections to grace, and gives the ends that the shim gets.
func (p *Process) connect(spec Spec) ([]int, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	p.report = pipe[0]
	if err := unix.SetNonblock(p.report, true); err != nil || !spec.Capture {
		return pipe[1:], err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return pipe[1:], err
	}
	p.capture = pair[0]
	return []int{pipe[1], pair[1]}, nil
}

func (r *Reaper) process(s ProcessState) *Process {
	return (&Process{ProcessState: s, reaper: r, report: -1, capture: -1}).hold()
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
	for _, fd := range []*int{&p.report, &p.capture} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
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
	r.own[pid] = struct{}{}
	return r.process(ProcessState{PID: pid, PIDFD: pidfd, Tag: tag}), nil
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
	r.own[pid], r.notOurChildren = struct{}{}, true
	return r.process(ProcessState{PID: pid, PIDFD: pidfd, Alone: !keepsGroup(pid)}), nil
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
	p.reaper.forget(p.PID)
	p.close()
}

func (p *Process) close() {
	p.disconnect()
	if p.end != nil {
		p.end.Close()
	}
}

// send gives ESRCH for a process that has been reaped.
func (p *Process) send(sig syscall.Signal) error {
	if p.PIDFD < 0 {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(p.PIDFD, sig, nil, 0)
}

// Signal sends sig to the process alone. A process that has ended already is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.send(sig)
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
	if p.send(0) == unix.ESRCH {
		return p.Group && unix.Kill(p.PID, 0) == unix.ESRCH
	}
	pgid, err := unix.Getpgid(p.PID)
	return err == nil && pgid == p.PID
}

// Captured waits for the shim and then lets it become the app; it is to be called once, before Wait, for a process that
// was started with Capture. The caller closes the listener. The error is a *StartError where the shim has failed, which
// Wait will tell too.
func (p *Process) Captured() (*capture.Listener, error) {
	conn := p.capture
	if conn < 0 {
		return nil, fmt.Errorf("cannot capture process %d: it was started without capture", p.PID)
	}
	p.capture = -1
	err := unix.SetNonblock(conn, true) // for os.NewFile, which asks for it
	file := os.NewFile(uintptr(conn), "connection to the shim")
	defer file.Close()
	if err = errors.Join(err, waitReadable(file, nil)); err != nil {
		return nil, fmt.Errorf("cannot capture process %d: %w", p.PID, err)
	}
	listener, err := capture.Receive(conn)
	if err == io.EOF {
		return nil, p.notCaptured()
	}
	return listener, err
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
// os_linux.go; with cgo, or GOTRACEBACK=crash, it aborts). That befalls the shim where its fork has taken the last place.
const statusThrown = 2

// readReport ends with the exec, which closes the other end, or with what the shim has to say.
func (p *Process) readReport() (*StartError, error) {
	if p.report < 0 {
		return p.failed, nil
	}
	pipe := os.NewFile(uintptr(p.report), "report of the shim")
	if unpolled(pipe) {
		_ = unix.SetNonblock(p.report, false) // fcntl(2) cannot fail here; a thread reads it
	}
	p.report = -1
	defer pipe.Close()
	text, err := io.ReadAll(pipe)
	if err != nil {
		return nil, fmt.Errorf("cannot read whether process %d was started: %w", p.PID, err)
	}
	p.silent = len(text) == 0
	if p.silent || string(text) == shim.Executing {
		return nil, nil
	}
	failed, ok := shim.ParseFailure(string(text))
	if !ok {
		return nil, fmt.Errorf("cannot read whether process %d was started: %q", p.PID, text)
	}
	p.failed = &StartError{Step: failed.Step, Path: p.Path, Errno: failed.Errno}
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
