package childproc

import (
	"cmp"
	"slices"
)

// Owner gives the first of pids that has the socket with this inode open, and 0 if none has. If none was found and one
// of them could not be looked into, the error is ErrCannotLook.
func Owner(inode uint64, pids []int) (int, error) {
	var blind error
	for _, pid := range pids {
		found := false
		why, err := eachSocketOf(pid, func(open uint64) bool {
			found = open == inode
			return !found
		})
		if found {
			return pid, nil
		}
		if err != nil {
			return 0, err
		}
		if why != nil {
			blind = why
		}
	}
	return 0, blind
}

// Unowned gives those of the sockets with these inodes that none of the processes has open. It asks for the processes
// until nobody new is among them: whoever is missing in one list of them, because it was just born or orphaned, is in
// the next. A socket that is sent from one process to another is nobody's meanwhile. If one of them could not be looked
// into, the error is ErrCannotLook.
func Unowned(inodes []uint64, processes func() ([]int, error)) ([]uint64, error) {
	unseen, known := make(map[uint64]bool, len(inodes)), make(map[int]bool)
	for _, inode := range inodes {
		unseen[inode] = true
	}
	for grown := true; grown && len(unseen) > 0; {
		pids, err := processes()
		if err != nil {
			return nil, err
		}
		grown = false
		for _, pid := range pids {
			if known[pid] || len(unseen) == 0 {
				continue
			}
			known[pid], grown = true, true
			if err := strike(unseen, pid); err != nil {
				return nil, err
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(inodes), func(inode uint64) bool { return !unseen[inode] }), nil
}

// strike takes out what the process has open.
func strike(unseen map[uint64]bool, pid int) error {
	blind, err := eachSocketOf(pid, func(inode uint64) bool {
		delete(unseen, inode)
		return len(unseen) > 0
	})
	return cmp.Or(err, blind)
}

// Registered reports whether one of the process's epoll sets has the socket with this
// inode for reading. If it could not be looked into, the error is ErrCannotLook.
func Registered(inode uint64, pid int) (bool, error) {
	l := NewWaitDetector([]uint64{inode})
	if err := l.findSockfs(); err != nil {
		return false, err
	}
	tasks, err := openTasks(pid)
	if err == nil {
		defer tasks.close()
		err = tasks.eachDescriptor(func(fd, link string) (bool, error) {
			if link != epollLink {
				return true, nil
			}
			err := l.lookAtEpoll(tasks, tasks.lister, fd)
			return l.unseen > 0, err
		})
	}
	blind, other := settle(pid, err)
	return l.seen[0], cmp.Or(other, blind)
}

// eachSocketOf tells what could not be seen as settle does.
func eachSocketOf(pid int, visit func(inode uint64) bool) (blind, other error) {
	tasks, err := openTasks(pid)
	if err != nil {
		return settle(pid, err)
	}
	defer tasks.close()
	return settle(pid, tasks.eachSocket(visit))
}
