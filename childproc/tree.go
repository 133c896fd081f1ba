package childproc

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Tree lists pid first and then all its living descendants. It is a snapshot: a process that is born or orphaned during
// the look may be missing. The error is os.ErrNotExist if there is no process pid.
func Tree(pid int) ([]int, error) {
	offspring, err := offspring()
	if err != nil {
		return nil, fmt.Errorf("cannot list the descendants of process %d: %w", pid, err)
	}
	return treeOf(pid, offspring)
}

// offspring is a way to list the living children of a process. Kernels without CONFIG_PROC_CHILDREN have no
// files for it.
func offspring() (func(pid int) ([]int, error), error) {
	if childrenListed() {
		return childrenOf, nil
	}
	return scanChildren()
}

// scanChildren finds them by the parents of all processes.
func scanChildren() (of func(pid int) ([]int, error), err error) {
	found := map[int][]int{}
	err = eachProcess(func(int) bool { return true }, func(pid int, stat procStat) {
		if stat.living() {
			found[stat.parent] = append(found[stat.parent], pid)
		}
	})
	return func(pid int) ([]int, error) { return found[pid], nil }, err
}

func childrenListed() bool { return inProc(unix.AT_FDCWD, "/proc/thread-self/children") == nil }

// Everybody lists all processes that can be seen.
func Everybody() ([]int, error) {
	pids, err := numbersIn("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	return pids, nil
}

func treeOf(pid int, offspring func(int) ([]int, error)) ([]int, error) {
	if err := inProc(unix.AT_FDCWD, "/proc/"+strconv.Itoa(pid)); err != nil {
		return nil, fmt.Errorf("cannot list the descendants of process %d: %w", pid, err)
	}
	tree, err := below([]int{pid}, offspring)
	if err != nil {
		return nil, fmt.Errorf("cannot list the descendants of process %d: %w", pid, err)
	}
	return tree, nil
}

// below lists the processes and all that descend from them.
func below(pids []int, children func(pid int) ([]int, error)) ([]int, error) {
	for i := 0; i < len(pids); i++ {
		more, err := children(pids[i])
		if err != nil {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

func childrenOf(pid int) ([]int, error) {
	children, err := listedChildren(pid)
	if err != nil {
		return nil, ignoreGone(err)
	}
	var living []int
	for _, child := range children {
		stat, err := readStat(child)
		if ignoreGone(err) != nil {
			return nil, err
		}
		if err == nil && stat.living() {
			living = append(living, child)
		}
	}
	return living, nil
}

// listedChildren asks each thread, because a child belongs to the one that made it.
func listedChildren(pid int) ([]int, error) {
	threads, err := numbersIn("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return nil, err
	}
	var pids []int
	var list []byte
	for _, thread := range threads {
		if list, err = listedChildrenOf(pid, thread, list); ignoreGone(err) != nil {
			return nil, err
		}
		pids = appendNumbers(pids, list)
	}
	return pids, nil
}

// listedChildrenOf gives the numbers as they are written in the file. It uses the room that list has.
func listedChildrenOf(pid, thread int, list []byte) ([]byte, error) {
	return readProcInto(list, "/proc/"+strconv.Itoa(pid)+"/task/"+strconv.Itoa(thread)+"/children")
}

func appendNumbers(numbers []int, list []byte) []int {
	for field := range bytes.FieldsSeq(list) {
		if n, err := strconv.Atoi(string(field)); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// Descends reports whether ancestor is pid or one of its line of parents. An orphan descends from whoever took it in.
// The error is os.ErrNotExist if there is no process pid any more, and so nobody knows its line.
func Descends(pid, ancestor int) (bool, error) {
	descends, err := comesFrom(pid, func(pid int) bool { return pid == ancestor })
	if err != nil {
		return false, fmt.Errorf("cannot check whether process %d descends from %d: %w", pid, ancestor, err)
	}
	return descends, nil
}

// comesFrom reports whether a process or one of its line of parents is wanted.
func comesFrom(pid int, wanted func(pid int) bool) (bool, error) {
	for line := pid; !wanted(line); {
		if line <= 1 {
			return false, nil
		}
		stat, err := readStat(line)
		if gone(err) && line != pid && unix.Kill(line, 0) == unix.ESRCH {
			line = pid // a parent has ended meanwhile, which makes the line a shorter one
			continue
		}
		if err != nil {
			return false, err
		}
		line = stat.parent
	}
	return true, nil
}
