package capture

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Syscall is what an app's thread has called.
type Syscall int

const (
	Bind Syscall = iota
	Listen
	Unlink // or unlinkat
)

func (s Syscall) String() string {
	return [...]string{"bind", "listen", "unlink"}[s]
}

var (
	// ErrNotPermitted says that the system does not let grace look into the app: it takes the app's own user and
	// capabilities, or CAP_SYS_PTRACE; a container's filter of system calls may deny it nevertheless.
	ErrNotPermitted = errors.New("not permitted (this needs CAP_SYS_PTRACE, in containers always)")

	// ErrGone says that nobody waits for the answer any more: the thread was
	// killed, or a signal interrupted its call (before Linux 5.19).
	ErrGone = errors.New("the app no longer waits for this call")

	// ErrNested says that the app's calls go to another listener already, a grace
	// around this one mostly. The kernel allows one.
	ErrNested = errors.New("another seccomp listener exists already: grace cannot capture inside another grace process")
)

// NeedsNoNewPrivs reports whether the kernel lets a child of this process install the filter only if that gives up the
// rights of setuid programs and file capabilities: without CAP_SYS_ADMIN in its own user namespace (seccomp(2)).
func NeedsNoNewPrivs() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err != nil || data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0
}
