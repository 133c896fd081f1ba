package compare

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adoptOrphans lets processes whose parent has ended become children of this one, so that each of them is found and killed:
// some tools start daemons, and others end before what they have started.
func adoptOrphans() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// stat is what /proc/PID/stat says.
type stat struct {
	parent int
	dead   bool
}

func statOf(pid int) (stat, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text)), nil
}

// parseStat knows that the name, in parentheses, can have spaces and parentheses.
func parseStat(text string) stat {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	parent, _ := strconv.Atoi(fields[1])
	return stat{parent, fields[0] == "Z" || fields[0] == "X"}
}

// alive reports whether a process below this one calls itself by a number, which is another one here if it has a namespace of its
// own.
func alive(pid int) bool {
	return slices.ContainsFunc(descendants(), func(outside int) bool {
		s, err := statOf(outside)
		return err == nil && !s.dead && insideOf(outside) == pid
	})
}

func insideOf(pid int) int {
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	_, rest, _ := strings.Cut(string(text), "\nNSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	numbers := strings.Fields(line)
	if len(numbers) == 0 {
		return pid
	}
	inside, _ := strconv.Atoi(numbers[len(numbers)-1])
	return inside
}

// descendants are the processes below this one.
func descendants() []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if s, err := statOf(pid); err == nil {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	all := children[os.Getpid()]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// sweep kills all processes below this one, and returns when they are gone.
func sweep() {
	for deadline := time.Now().Add(sweepTime); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left := descendants()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			reap(pid)
		}
	}
}

const sweepTime = 5 * time.Second

// reap takes the status of an orphan; that of a child which os/exec waits for stays there.
func reap(pid int) {
	var status syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
}
