package socket

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

func New(family, kind int) (int, error) {
	return unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
}

// moveFD gives the file of one descriptor to another.
func moveFD(from, to int) error {
	if err := unix.Dup3(from, to, unix.O_CLOEXEC); err != nil {
		return err
	}
	return unix.Close(from)
}

// hungUp tells whether a listener was shut down: TCP leaves the state LISTEN and says HUP, a unix socket RDHUP.
func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// prepareMode makes bind create the path closed: Linux takes the file's mode from the socket's own inode, less the
// umask (unix_bind_bsd in net/unix/af_unix.c). The umask itself belongs to the whole process.
func prepareMode(fd int, mode fs.FileMode) error {
	if mode == 0 {
		return nil
	}
	return unix.Fchmod(fd, 0)
}

// SetMode works on an O_PATH descriptor, so that a link put in the path's place meanwhile is not followed.
func SetMode(path string, id File, uid, gid int, mode fs.FileMode) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if FileOf(&stat) != id || !isSocket(&stat) {
		return fmt.Errorf("another file has taken its place")
	}
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	if mode == 0 {
		return nil
	}
	// fchmod refuses an O_PATH descriptor (EBADF); its name under /proc is the way that works on every kernel.
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), uint32(mode))
}

// keepSpare gives the socket a second name next to its path, from which the path can be made again, and returns it.
// Where links are not allowed there is none: that only leaves the path without this protection.
func keepSpare(bound string) string {
	spare := spareName(bound)
	var stat unix.Stat_t
	if unix.Lstat(spare, &stat) == nil && isSocket(&stat) {
		_ = unix.Unlink(spare) // what a killed grace has left; if it stays, Link says so
	}
	if unix.Link(bound, spare) != nil {
		return ""
	}
	return spare
}
