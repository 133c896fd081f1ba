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
		r.children.Lock()
		defer r.children.Unlock()
		return r.orphanedChildren()
	}
	return orphans(roots, func(pid int) (bool, error) {
		its, err := tagOf(pid)
		return its == tag, err
	})
}

// orphanedChildren lists the children that grace has not started. Its caller holds r.children.
func (r *Reaper) orphanedChildren() ([]int, error) {
	pids, err := children()
	r.mu.Lock() // after the list: who was listed while it was forked is known by now
	defer r.mu.Unlock()
	return r.withoutOwn(pids), err
}

// suspendedOrphans is orphanedChildren between Suspend and Resume. Who has started a successor reaps it beside r.children, and a
// list from which one goes while it is read can lack others: so it has to be the same twice.
func (r *Reaper) suspendedOrphans() ([]int, error) {
	pids, err := children()
	for range enoughLooks {
		again, failed := children()
		if err = errors.Join(err, failed); err != nil || slices.Equal(pids, again) {
			break
		}
		pids = again
	}
	return r.withoutOwn(pids), err
}

func (r *Reaper) withoutOwn(pids []int) []int {
	return slices.DeleteFunc(pids, func(pid int) bool { return r.own[pid] != nil })
}

// nothingLeft reports whether an ended process is known to have left nothing behind, at the price of one file. Whoever has lost his
// parent by its end is a child of grace by then (forget_original_parent before do_notify_pidfd in exit_notify, kernel/exit.c), and
// whoever else it has started is below one. So no child may be another than those that grace has forked itself: an adopted one can be
// of this start. false means that one has to look.
func (r *Reaper) nothingLeft(p *Process) bool {
	if !p.forked || !p.ended() || r.follows() {
		return false
	}
	r.children.Lock()
	defer r.children.Unlock()
	return r.noneButOwn(func(its *Process) bool { return its.forked })
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
