package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// growth is what must not grow: of grace, when only one generation is left.
type growth struct {
	pid, threads int
	descriptors  []string // what each leads to
	memory       int      // resident and no page of a file, as grace unmaps those of its own file while it is idle; in KiB
}

func (m growth) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB", len(m.descriptors), m.threads, m.memory)
}

// measureEach so many faults.
const measureEach = 50

// measure waits until only one generation is left, and finds whatever is there besides.
func (g *grace) measure() {
	s := g.quiet()
	known := map[int]bool{}
	for _, i := range s.Generations[0].Instances {
		known[i.PID] = true
	}
	m := growth{}
	m.pid, _ = g.pid()
	known[m.pid] = true
	for _, pid := range g.processes() {
		if !known[pid] && state(pid) != "Z" && state(pid) != "" {
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			g.find("process %d (%s), which generation %s has started, belongs to nothing that is left", pid, bytes.ReplaceAll(command, []byte{0}, []byte(" ")), generationOf(pid))
			_ = syscall.Kill(pid, syscall.SIGKILL) // one finding each; it may have ended
		}
	}
	m.descriptors = g.descriptors(m.pid)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	g.must(err)
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Threads: %d", &m.threads)
		fmt.Sscanf(line, "RssAnon: %d", &m.memory)
	}
	g.run.book.note(g.name, "%v", m)
	g.measured = append(g.measured, m)
}

func (g *grace) descriptors(pid int) (targets []string) {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	g.must(err)
	for _, e := range entries {
		target, err := os.Readlink(dir + e.Name())
		if err != nil { // it was closed meanwhile
			target = err.Error()
		}
		targets = append(targets, target)
	}
	return targets
}

// descriptorsUpTo waits until there are not more: a grace process that has just begun has those of the tests with which it
// learns what the kernel can do. A leak stays.
func (g *grace) descriptorsUpTo(most, pid int) []string {
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if targets := g.descriptors(pid); len(targets) <= most || time.Now().After(limit) {
			return targets
		}
	}
}

// more are the descriptors that were not there before.
func (m growth) more(before growth) (targets []string) {
	for _, target := range m.descriptors {
		if !slices.Contains(before.descriptors, target) {
			targets = append(targets, target)
		}
	}
	return targets
}

// generationOf reads in the environment whom a process belongs to.
func generationOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have ended
	for variable := range strings.SplitSeq(string(text), "\x00") {
		if number, found := strings.CutPrefix(variable, "GRACE_GENERATION="); found {
			return number
		}
	}
	return "unknown"
}

// processes are all that were started for a grace process, itself included: they have its mark in their environment.
func (g *grace) processes() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is well formed
	for _, file := range files {
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))); g.has(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// has reports whether a process was started for this grace: a number alone may be somebody else's by now.
func (g *grace) has(pid int) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have ended
	return bytes.Contains(text, []byte(mark+g.name+"\x00"))
}

const mark = "CHAOS_GRACE="

// What may come and go: a connection to the control socket, threads in calls.
const (
	moreDescriptors = 4
	moreThreads     = 16
	moreMemory      = 16 << 10
	shadow          = 8 // what the race detector needs for each byte at most
)

// compare is for the end. The first measure is of a grace process that has done everything once.
func (g *grace) compare() {
	first, last := g.measured[0], g.measured[len(g.measured)-1]
	last.descriptors = g.descriptorsUpTo(len(first.descriptors)+moreDescriptors, last.pid)
	g.run.book.grew(fmt.Sprintf("  %s: %v at first, %v at the end", g.name, first, last))
	if len(last.descriptors) > len(first.descriptors)+moreDescriptors {
		g.find("descriptors have grown from %d to %d, by some of %s", len(first.descriptors), len(last.descriptors), strings.Join(last.more(first), ", "))
	}
	if last.threads > first.threads+moreThreads {
		g.find("threads have grown from %d to %d", first.threads, last.threads)
	}
	limit := first.memory + moreMemory
	if *race {
		limit = first.memory + shadow*moreMemory
	}
	if last.memory > limit {
		g.find("memory has grown from %d to %d KiB", first.memory, last.memory)
	}
}
