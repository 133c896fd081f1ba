package host

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// root is a process whose descendants belong to a generation: a main process, or what an ended one has left behind. Its
// connections may be kept for longer than it lives, and its number is another's then.
type root struct {
	pid, pidfd int
	err        error // without a pidfd nothing is known of it
}

// withRoots adds those that are not there yet. The loop calls it, which reaps: their numbers are theirs still.
func withRoots(roots []root, pids []int) []root {
	roots = slices.DeleteFunc(slices.Clone(roots), func(r root) bool { return r.err != nil })
	for _, pid := range pids {
		if slices.ContainsFunc(roots, func(r root) bool { return r.pid == pid && !r.gone() }) {
			continue
		}
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err == unix.ESRCH {
			continue
		}
		if err != nil {
			err = fmt.Errorf("cannot hold process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
		}
		roots = append(roots, root{pid, pidfd, err})
	}
	return roots
}

// gone tells whether it has ended and was reaped.
func (r root) gone() bool {
	return r.err == nil && unix.PidfdSendSignal(r.pidfd, 0, nil, 0) == unix.ESRCH
}

func closeRoots(roots []root) {
	for _, r := range roots {
		if r.err == nil {
			unix.Close(r.pidfd)
		}
	}
}

// below lists the roots that live, and their descendants.
func (a *Host) below(roots []root) (pids []int, err error) {
	for _, r := range roots {
		if r.err != nil {
			return nil, r.err
		}
		tree, err := a.Reaper.Tree(r.pid)
		if r.gone() {
			continue // what was listed may be another's
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		pids = append(pids, tree...)
	}
	return pids, nil
}
