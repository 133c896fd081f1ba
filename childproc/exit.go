package childproc

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"github.com/gracerun/grace/childproc/capture"
	"golang.org/x/sys/unix"
)

// Exit is how a process ended.
type Exit struct {
	Code   int
	Signal syscall.Signal // 0 unless a signal ended it
	// Unknown says that somebody else took the status, as happens to a main process that was never grace's child.
	Unknown bool
	// Err is not nil if the app never ran, because it could not be executed.
	Err *StartError
}

// Status is the exit status as a shell gives it: 127 and 126 for a command that
// cannot be found or run, 128+n for a signal.
func (e Exit) Status() int {
	switch {
	case e.Err != nil:
		return e.Err.Status()
	case e.Signal != 0:
		return 128 + int(e.Signal)
	}
	return e.Code
}

// Shortage reports whether the app never ran because something was short that its supervisor needs too: descriptors,
// processes, memory, room on a disk. That is no fault of the app's, and passes.
func (e Exit) Shortage() bool { return e.Err != nil && Shortage(e.Err) }

func (e Exit) String() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Unknown:
		return "exit status unknown"
	case e.Signal != 0:
		return "signal: " + e.Signal.String()
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// StartError says which step of starting a process failed.
type StartError struct {
	Step  string // "fork", "seccomp", "setgroups", "setgid", "setuid", "exec" and the like
	Path  string
	Errno syscall.Errno // 0 if Step says it all
}

func (e *StartError) Error() string {
	if e.Errno == 0 {
		return fmt.Sprintf("cannot start %s: %s", e.Path, e.Step)
	}
	return fmt.Sprintf("cannot start %s: %s: %s%s", e.Path, e.Step, e.Errno.Error(), e.advice())
}

func (e *StartError) advice() string {
	switch {
	case e.Step == "exec" && e.Errno == syscall.ENOENT:
		return " (check the path and, for a script, the interpreter in its first line)"
	case e.Step == "exec" && e.Errno == syscall.EACCES:
		return " (check that it is an executable file, chmod +x, and that the user may reach it)"
	case e.Step == "exec" && e.Errno == syscall.ENOEXEC:
		return " (not a program for this machine; a script needs a first line such as #!/bin/sh)"
	case e.Errno == syscall.EAGAIN:
		return " (the limit of processes is reached: see ulimit -u, TasksMax=)"
	case e.Errno == syscall.EMFILE || e.Errno == syscall.ENFILE:
		return " (the limit of open files is reached: see ulimit -n, LimitNOFILE=)"
	case e.Errno == syscall.ENOSPC || e.Errno == syscall.EDQUOT:
		return " (no room or no inode is left: see df, df -i)"
	case e.Errno == syscall.ENOMEM:
		return " (memory is short: see free, MemoryMax=)"
	case e.nested():
		return " (" + capture.ErrNested.Error() + ")"
	case e.Step == "seccomp" && e.Errno == syscall.EACCES:
		return " (capturing takes root with CAP_SYS_ADMIN, or no-new-privs)"
	case e.Step == "seccomp" && e.Errno == syscall.ENOSYS:
		return " (capturing takes Linux 5.9 on amd64 or arm64)"
	case e.Step == "seccomp":
		return " (this system does not allow a seccomp listener, which capturing takes: let grace hold the sockets)"
	case e.Errno == syscall.EPERM:
		return " (changing the user needs root)"
	}
	return ""
}

// Unwrap gives the error number, for errors.Is(err, syscall.EAGAIN) and the like.
func (e *StartError) Unwrap() error { return e.Errno }

// Is recognizes [capture.ErrNested].
func (e *StartError) Is(target error) bool { return target == capture.ErrNested && e.nested() }

func (e *StartError) nested() bool { return e.Step == "seccomp" && e.Errno == syscall.EBUSY }

// Status is 127 for a command that is not there, 126 for one that cannot be
// executed, and 1 for everything that went wrong before it was tried.
func (e *StartError) Status() int {
	switch {
	case e.Step != "exec":
		return 1
	case e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR:
		return 127
	}
	return 126
}

func startError(step, path string, err error) *StartError {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = syscall.EINVAL
	}
	return &StartError{Step: step, Path: path, Errno: errno}
}

// What si_code says of a dead child (siginfo.h).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// childInfo is siginfo_t as waitid(2) fills it; x/sys leaves the union opaque.
type childInfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
}

func exitOf(info *unix.Siginfo) Exit {
	child := (*childInfo)(unsafe.Pointer(info))
	switch child.code {
	case cldExited:
		return Exit{Code: int(child.status)}
	case cldKilled, cldDumped:
		return Exit{Signal: syscall.Signal(child.status)}
	}
	return Exit{Unknown: true}
}
