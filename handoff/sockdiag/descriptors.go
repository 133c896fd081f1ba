package sockdiag

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Descriptors calls visit with every descriptor of the processes that is a socket, and the socket's inode. A process that has
// gone has none. It needs the right to look into the processes: their user's, or root's.
func Descriptors(pids []int, visit func(pid, fd int, inode uint64)) error {
	return someDescriptors(pids, func(pid, fd int, inode uint64) bool {
		visit(pid, fd, inode)
		return true
	})
}

// someDescriptors is Descriptors until visit returns false.
func someDescriptors(pids []int, visit func(pid, fd int, inode uint64) bool) error {
	more := true
	for _, pid := range pids {
		err := eachDescriptor(pid, func(fd int, inode uint64) bool {
			more = visit(pid, fd, inode)
			return more
		})
		if err != nil && !ended(pid) {
			return fmt.Errorf("cannot look into pid %d: %w", pid, err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// fewDescriptors gives the sockets of the processes, by inode, if they are so many at most and can be listed.
func fewDescriptors(pids []int, atMost int) (open map[uint64]descriptor, ok bool) {
	open = make(map[uint64]descriptor)
	err := someDescriptors(pids, func(pid, fd int, inode uint64) bool {
		open[inode] = descriptor{pid, fd}
		return len(open) <= atMost
	})
	return open, err == nil && len(open) <= atMost
}

// descriptor is where a process has a socket.
type descriptor struct{ pid, fd int }

// socket is the inode of what is there now.
func (d descriptor) socket() (inode uint64, ok bool) {
	var link [64]byte
	n, err := unix.Readlink(fmt.Sprintf("/proc/%d/fd/%d", d.pid, d.fd), link[:])
	if err != nil {
		return 0, false
	}
	return socketInode(link[:n])
}

// name is errNoConnection for a socket that has been closed since. A duplicate exists for some microseconds: the app's own close
// takes effect after them.
func (d descriptor) name(inode uint64) (inetName, error) {
	pidfd, err := unix.PidfdOpen(d.pid, 0)
	if err == unix.ESRCH {
		return inetName{}, errNoConnection
	}
	if err != nil {
		return inetName{}, err
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, d.fd, 0)
	if err == unix.EBADF || err == unix.ESRCH {
		return inetName{}, errNoConnection
	}
	if err != nil {
		return inetName{}, err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Ino != inode {
		return inetName{}, errNoConnection
	}
	return nameOf(fd)
}
