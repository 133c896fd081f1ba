package childproc

import (
	"errors"
	"slices"
)

// orphansOf lists the living processes with this tag that no process of grace's looks after. While there are any it
// lists at least one, even if each ends as soon as it has forked the next.
func (r *Reaper) orphansOf(tag uint64) ([]int, error) {
	if tag == 0 {
		return nil, nil
	}
	if r.mayBeElsewhere(tag) || !childrenListed() {
		return r.searchAll(tag)
	}
	roots := func() ([]int, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.orphanedChildren()
	}
	return orphans(roots, func(pid int) (bool, error) {
		its, err := tagOf(pid)
		return its == tag, err
	})
}

// orphanedChildren lists the children that grace has not started. It takes the lock, with which no child is reaped:
// of a list that loses some while it is read the kernel leaves out others (get_children_pid in fs/proc/array.c).
func (r *Reaper) orphanedChildren() ([]int, error) {
	pids, err := children()
	return slices.DeleteFunc(pids, func(pid int) bool { _, own := r.own[pid]; return own }), err
}

// enoughLooks are taken where something has been found, and something else ends all the time.
const enoughLooks = 5

// orphans lists the wanted ones of the living processes from some children of grace on. It looks again if it has met one
// that has ended: the children of that are moved to where the look has been (forget_original_parent in kernel/exit.c),
// unless it had ended before the look.
func orphans(roots func() ([]int, error), wanted func(pid int) (bool, error)) ([]int, error) {
	known := map[int]bool{} // to have ended
	for look := 1; ; look++ {
		pids, err := allBelow(roots)
		if err != nil {
			return nil, err
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return known[pid] })
		living, ended, err := whoLives(pids, wanted)
		if err != nil || len(ended) == 0 || len(living) > 0 && look >= enoughLooks {
			return living, err
		}
		for _, pid := range ended {
			known[pid] = true
		}
	}
}

// allBelow lists the roots and all below them, zombies too.
func allBelow(roots func() ([]int, error)) ([]int, error) {
	pids, err := roots()
	if err != nil {
		return nil, err
	}
	return below(pids, func(pid int) ([]int, error) {
		children, err := listedChildren(pid)
		return children, ignoreGone(err)
	})
}

// whoLives asks whether a process is wanted before it is seen to live: of one that has ended the answer would say nothing.
func whoLives(pids []int, wanted func(pid int) (bool, error)) (living, ended []int, err error) {
	for _, pid := range pids {
		want, err1 := wanted(pid)
		stat, err2 := readStat(pid)
		if err := errors.Join(err1, ignoreGone(err2)); err != nil {
			return nil, nil, err
		}
		switch {
		case err2 != nil || !stat.living():
			ended = append(ended, pid)
		case want:
			living = append(living, pid)
		}
	}
	return living, ended, nil
}

// searchAll looks through all processes.
func (r *Reaper) searchAll(tag uint64) ([]int, error) {
	var found []int
	var failed error
	has := func(pid int) bool {
		its, err := tagOf(pid)
		failed = errors.Join(failed, err)
		return its == tag
	}
	err := eachProcess(has, func(pid int, stat procStat) {
		after, err := r.looksAfter(pid)
		failed = errors.Join(failed, err)
		if stat.living() && !after {
			found = append(found, pid)
		}
	})
	return found, errors.Join(failed, err)
}

// looksAfter reports whether grace has started a process, or one that it is below, or it has ended. One whose parent cannot be
// seen counts as looked after.
func (r *Reaper) looksAfter(pid int) (bool, error) {
	ours, err := comesFrom(pid, r.owns)
	return ours || gone(err), ignoreGone(err)
}

// union appends those of the others that the pids lack.
func union(pids, others []int) []int {
	for _, pid := range others {
		if !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}
