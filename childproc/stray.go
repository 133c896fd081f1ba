package childproc

import (
	"errors"
	"slices"
)

// strays lists the living processes with this mark that no process of the family looks after. While there are any it
// lists at least one, even if each ends as soon as it has forked the next.
func (f *Reaper) strays(mark uint64) ([]int, error) {
	if mark == 0 {
		return nil, nil
	}
	if f.mayBeElsewhere(mark) || !childrenListed() {
		return f.marked(mark)
	}
	roots := func() ([]int, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.orphanedChildren()
	}
	return orphans(roots, func(pid int) (bool, error) {
		found, err := markOf(pid)
		return found == mark, err
	})
}

// orphanedChildren lists the children that the family has not started. It takes the lock, with which no child is reaped:
// of a list that loses some while it is read the kernel leaves out others (get_children_pid in fs/proc/array.c).
func (f *Reaper) orphanedChildren() ([]int, error) {
	pids, err := children()
	return slices.DeleteFunc(pids, func(pid int) bool { _, own := f.own[pid]; return own }), err
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

// marked looks through all processes.
func (f *Reaper) marked(mark uint64) ([]int, error) {
	var strays []int
	var failed error
	has := func(pid int) bool {
		found, err := markOf(pid)
		failed = errors.Join(failed, err)
		return found == mark
	}
	err := eachProcess(has, func(pid int, stat procStat) {
		after, err := f.looksAfter(pid)
		failed = errors.Join(failed, err)
		if stat.living() && !after {
			strays = append(strays, pid)
		}
	})
	return strays, errors.Join(failed, err)
}

// looksAfter reports whether a process is of the family, or below one that is, or has ended. One whose parent cannot be
// seen counts as looked after.
func (f *Reaper) looksAfter(pid int) (bool, error) {
	ours, err := comesFrom(pid, f.owns)
	return ours || gone(err), ignoreGone(err)
}

// union appends those of the strays that the pids lack.
func union(pids, strays []int) []int {
	for _, stray := range strays {
		if !slices.Contains(pids, stray) {
			pids = append(pids, stray)
		}
	}
	return pids
}
