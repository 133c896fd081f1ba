package farewell

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// processes takes duplicates from a generation's processes. A pidfd is kept for each that was met, until close: its number may
// be another's when it has ended.
type processes struct {
	pids   func() ([]int, error)
	pidfds map[int]int
}

// place is where a socket was seen.
type place struct{ pid, fd int }

// sockets lists what the processes have open, by inode. One that has gone has nothing.
func (p *processes) sockets() (map[uint64]place, error) {
	pids, err := p.living()
	if err != nil {
		return nil, err
	}
	found := make(map[uint64]place)
	for _, pid := range pids {
		var its []place
		var inodes []uint64
		err := sockdiag.Descriptors([]int{pid}, func(pid, fd int, inode uint64) {
			its, inodes = append(its, place{pid, fd}), append(inodes, inode)
		})
		if p.gone(pid) {
			continue // what was listed may be another's
		}
		if err != nil {
			return nil, err
		}
		for i, inode := range inodes {
			found[inode] = its[i]
		}
	}
	return found, nil
}

// living lists the processes that are held by a pidfd. One that is met for the first time counts if it is listed again when the
// pidfd is there.
func (p *processes) living() ([]int, error) {
	pids, err := p.pids()
	if err != nil {
		return nil, err
	}
	met, err := p.meet(pids)
	if err != nil || len(met) == 0 {
		return p.held(pids), err
	}
	again, err := p.pids()
	for _, pid := range met {
		if err != nil || !slices.Contains(again, pid) || p.gone(pid) {
			p.forget(pid)
		}
	}
	return p.held(pids), err
}

// meet opens pidfds of processes that have none.
func (p *processes) meet(pids []int) (met []int, err error) {
	for _, pid := range pids {
		if _, known := p.pidfds[pid]; known && !p.gone(pid) {
			continue
		}
		p.forget(pid)
		fd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue
		}
		if err != nil {
			for _, pid := range met {
				p.forget(pid)
			}
			return nil, os.NewSyscallError("pidfd_open", err)
		}
		if p.pidfds == nil {
			p.pidfds = make(map[int]int)
		}
		p.pidfds[pid] = fd
		met = append(met, pid)
	}
	return met, nil
}

func (p *processes) held(pids []int) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
		_, held := p.pidfds[pid]
		return !held
	})
}

// gone tells whether a process that was met has ended and its number is free.
func (p *processes) gone(pid int) bool {
	return unix.PidfdSendSignal(p.pidfds[pid], 0, nil, 0) == unix.ESRCH
}

func (p *processes) forget(pid int) {
	if fd, ok := p.pidfds[pid]; ok {
		unix.Close(fd)
		delete(p.pidfds, pid)
	}
}

// duplicate returns a descriptor of the caller's for a socket. The number may belong to something else since it was seen: then
// the inode differs, and the error is ESTALE.
func (p *processes) duplicate(inode uint64, at place) (int, error) {
	pidfd, ok := p.pidfds[at.pid]
	if !ok {
		return -1, unix.ESRCH
	}
	fd, err := unix.PidfdGetfd(pidfd, at.fd, 0)
	if err != nil {
		return -1, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Ino != inode {
		return -1, errors.Join(unix.ESTALE, unix.Close(fd))
	}
	return fd, nil
}

// MayDuplicate tells whether this process may have the connections of another. A bad descriptor comes after the right to have
// it (pidfd_getfd in kernel/pid.c).
func MayDuplicate(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, 0, 0)
	switch err {
	case nil:
		return unix.Close(fd)
	case unix.EBADF:
		return nil
	}
	return denied(err)
}

func denied(err error) error {
	return fmt.Errorf("%w: grace needs CAP_SYS_PTRACE if the app runs as another user, or under a seccomp profile such as Docker's", os.NewSyscallError("pidfd_getfd", err))
}

func (p *processes) close() error {
	var errs []error
	for _, fd := range p.pidfds {
		errs = append(errs, unix.Close(fd))
	}
	p.pidfds = nil
	return errors.Join(errs...)
}
