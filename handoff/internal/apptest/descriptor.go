package apptest

import "golang.org/x/sys/unix"

// CloseOnExec tells whether a program started from here would not have the descriptor.
func CloseOnExec(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC != 0
}
