package childproc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/gracerun/grace/childproc/shim"
	"golang.org/x/sys/unix"
)

var errNoPidfd = errors.New("this kernel gives no pidfd: Linux 5.4 or newer is needed")

// Process is one process of the app and the process group it leads. It owns a
// pidfd until Reap. Signal, Kill and Reap belong to one goroutine, Wait and
// WaitRest to another.
type Process struct {
	PID    int
	path   string
	family *Family
	pidfd  int
	report int // read end of the shim's report; -1 once read
}

// Adopt takes a running descendant as a process to be watched: the main process
// of an app that went to the background. It need not be a child of grace yet.
func (f *Family) Adopt(pid int) (*Process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot adopt process %d: %w", pid, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own[pid] = struct{}{}
	return &Process{PID: pid, family: f, pidfd: pidfd, report: -1}, nil
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
	p.family.forget(p.PID)
	unix.Close(p.pidfd)
}

// Signal sends sig to the process alone. A process that has ended already is no
// error.
func (p *Process) Signal(sig syscall.Signal) error {
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
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

// An adopted process leads a group only if it made one; and the group of a
// process that is not grace's child can vanish with it at any time.
func (p *Process) leadsGroup() bool {
	pgid, err := unix.Getpgid(p.PID)
	return err == nil && pgid == p.PID
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
	return exit, err
}

// readReport ends with the exec, which closes the other end, or with what the
// shim has to say.
func (p *Process) readReport() (*StartError, error) {
	if p.report < 0 {
		return nil, nil
	}
	pipe := os.NewFile(uintptr(p.report), "report of the shim")
	p.report = -1
	defer pipe.Close()
	text, err := io.ReadAll(pipe)
	if err != nil {
		return nil, fmt.Errorf("cannot read what became of process %d: %w", p.PID, err)
	}
	if len(text) == 0 {
		return nil, nil
	}
	failed, ok := shim.ParseFailure(string(text))
	if !ok {
		return nil, fmt.Errorf("cannot read what became of process %d: %q", p.PID, text)
	}
	return &StartError{Step: failed.Step, Path: p.path, Errno: failed.Errno}, nil
}

func (p *Process) waitEnd() error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("cannot wait for process %d: %w", p.PID, err)
		}
	}
}

func (p *Process) peek() (Exit, error) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PIDFD, p.pidfd, &info, unix.WEXITED|unix.WNOWAIT, nil)
	if err == unix.ECHILD {
		return Exit{Unknown: true}, nil
	}
	if err != nil {
		return Exit{}, fmt.Errorf("cannot learn how process %d ended: %w", p.PID, err)
	}
	return exitOf(&info), nil
}

// WaitRest blocks until nothing but the ended process is left in its group, or
// until stop is closed. It is to be called after Wait.
func (p *Process) WaitRest(stop <-chan struct{}) error {
	if !p.leadsGroup() {
		return nil
	}
	return WaitGroup(p.PID, stop)
}

// Reap gives the pid back to the kernel and closes the pidfd; the Process is of
// no use afterwards.
func (p *Process) Reap() error {
	err := unix.Waitid(unix.P_PIDFD, p.pidfd, nil, unix.WEXITED|unix.WNOHANG, nil)
	p.Release()
	if err != nil && err != unix.ECHILD {
		return fmt.Errorf("cannot reap process %d: %w", p.PID, err)
	}
	return nil
}
