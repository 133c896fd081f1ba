package handoff

import "golang.org/x/sys/unix"

// closeOnExec tells whether a program started from here would not have the descriptor.
func closeOnExec(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC != 0
}
