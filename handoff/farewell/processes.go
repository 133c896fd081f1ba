package farewell

import (
	"errors"

	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// processes takes duplicates from a generation's processes. A pidfd is kept for each that was met, until close.
type processes struct {
	pids   func() ([]int, error)
	pidfds map[int]int
}

// place is where a socket was seen.
type place struct{ pid, fd int }

// sockets lists what the processes have open, by inode. One that has gone has nothing.
func (p *processes) sockets() (map[uint64]place, error) {
	found := make(map[uint64]place)
	pids, err := p.pids()
	if err != nil {
		return nil, err
	}
	err = sockdiag.Descriptors(pids, func(pid, fd int, inode uint64) { found[inode] = place{pid, fd} })
	if err != nil {
		return nil, err
	}
	return found, nil
}

// duplicate returns a descriptor of the caller's for a socket. The number may belong to something else since it was seen: then
// the inode differs, and the error is ESTALE.
func (p *processes) duplicate(inode uint64, at place) (int, error) {
	pidfd, err := p.pidfd(at.pid)
	if err != nil {
		return -1, err
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

func (p *processes) pidfd(pid int) (int, error) {
	if fd, ok := p.pidfds[pid]; ok {
		return fd, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	if p.pidfds == nil {
		p.pidfds = make(map[int]int)
	}
	p.pidfds[pid] = fd
	return fd, nil
}

func (p *processes) close() error {
	var errs []error
	for _, fd := range p.pidfds {
		errs = append(errs, unix.Close(fd))
	}
	p.pidfds = nil
	return errors.Join(errs...)
}
