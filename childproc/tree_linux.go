package childproc

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree lists pid first and then all its living descendants. It is a snapshot: a
// process that is born or orphaned during the look may be missing. The error is
// ESRCH if there is no such process.
func Tree(pid int) ([]int, error) {
	if !exists(pid) {
		return nil, fmt.Errorf("cannot list the descendants of process %d: %w", pid, unix.ESRCH)
	}
	offspring := listedChildren
	// Kernels without CONFIG_PROC_CHILDREN have no such file.
	if _, err := os.Stat("/proc/thread-self/children"); err != nil {
		parents, err := parentsByScan()
		if err != nil {
			return nil, fmt.Errorf("cannot list the descendants of process %d: %w", pid, err)
		}
		offspring = parents.children
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		young, err := offspring(tree[i])
		if err != nil {
			return nil, fmt.Errorf("cannot list the descendants of process %d: %w", pid, err)
		}
		tree = append(tree, young...)
	}
	return tree, nil
}

func exists(pid int) bool {
	return unix.Access("/proc/"+strconv.Itoa(pid)+"/stat", unix.F_OK) == nil
}

// listedChildren asks each thread, because a child belongs to the one that made it.
func listedChildren(pid int) ([]int, error) {
	tasks := "/proc/" + strconv.Itoa(pid) + "/task"
	threads, err := numbersIn(tasks)
	if gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var living []int
	for _, thread := range threads {
		list, err := os.ReadFile(tasks + "/" + strconv.Itoa(thread) + "/children")
		if err != nil && !gone(err) {
			return nil, err
		}
		for field := range strings.FieldsSeq(string(list)) {
			child, _ := strconv.Atoi(field)
			if stat, err := readStat(child); err == nil && stat.living() {
				living = append(living, child)
			}
		}
	}
	return living, nil
}

// parents maps a parent to its living children.
type parents map[int][]int

func (p parents) children(pid int) ([]int, error) { return p[pid], nil }

func parentsByScan() (parents, error) {
	found := parents{}
	err := eachProcess(func(pid int, stat procStat) {
		if stat.living() {
			found[stat.parent] = append(found[stat.parent], pid)
		}
	})
	return found, err
}

// Descends reports whether ancestor is pid or a parent of a parent of pid. An
// orphan descends from whoever took it in. The error is ESRCH if pid has ended,
// because nobody knows its line any more.
func Descends(pid, ancestor int) (bool, error) {
	line := pid
	for line != ancestor {
		if line <= 1 {
			return false, nil
		}
		stat, err := readStat(line)
		if gone(err) && line != pid {
			line = pid // a parent has ended meanwhile: pid's line is a shorter one now
			continue
		}
		if err != nil {
			return false, fmt.Errorf("cannot tell whether process %d descends from %d: %w", pid, ancestor, err)
		}
		line = stat.parent
	}
	return true, nil
}
