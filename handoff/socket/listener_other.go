//go:build !linux

package socket

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

func New(family, kind int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

func moveFD(from, to int) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Dup2(from, to); err != nil {
		return err
	}
	unix.CloseOnExec(to)
	return unix.Close(from)
}

// hungUp has no cheap answer here, and listening twice does no harm.
func hungUp(int) bool { return true }

func prepareMode(int, fs.FileMode) error { return nil }

func SetMode(path string, _ File, uid, gid int, mode fs.FileMode) error {
	if err := unix.Lchown(path, uid, gid); err != nil {
		return err
	}
	if mode == 0 {
		return nil
	}
	return unix.Chmod(path, uint32(mode))
}

// keepSpare keeps none: there is no HangupWatch here that would see it was needed.
func keepSpare(string) string { return "" }
