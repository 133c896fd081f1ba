package childproc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
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

// procStat is what is needed of /proc/PID/stat.
type procStat struct {
	state   byte
	parent  int
	group   int
	threads int
}

// living is false for a zombie; but a main thread that has ended before the
// others looks like one too.
func (s procStat) living() bool {
	return s.state != 'X' && (s.state != 'Z' || s.threads > 1)
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if gone(err) {
		return procStat{}, unix.ESRCH
	}
	if err != nil {
		return procStat{}, err
	}
	return parseStat(text)
}

// parseStat begins behind the last parenthesis: a program's name may contain
// blanks and parentheses, what follows it does not.
func parseStat(text []byte) (procStat, error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 18 {
		return procStat{}, fmt.Errorf("cannot read the kernel's process status %q", text)
	}
	stat := procStat{state: fields[0][0]}
	for i, field := range map[int]*int{1: &stat.parent, 2: &stat.group, 17: &stat.threads} {
		var err error
		if *field, err = strconv.Atoi(fields[i]); err != nil {
			return procStat{}, fmt.Errorf("cannot read the kernel's process status %q", text)
		}
	}
	return stat, nil
}

// eachProcess calls visit for every process there is; those that end meanwhile
// are left out.
func eachProcess(visit func(pid int, stat procStat)) error {
	pids, err := numbersIn("/proc")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		stat, err := readStat(pid)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		visit(pid, stat)
	}
	return nil
}

func numbersIn(path string) ([]int, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

// gone is what /proc answers about processes, threads and descriptors that have
// ended: ENOENT to open, ESRCH to read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
