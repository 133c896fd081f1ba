package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// growth is what must not grow: of grace, when only one generation is left.
type growth struct {
	pid                  int
	descriptors, threads int
	memory               int // resident, in KiB
}

func (m growth) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d KiB", m.descriptors, m.threads, m.memory)
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
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.pid))
	g.must(err)
	m.descriptors = len(descriptors)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	g.must(err)
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Threads: %d", &m.threads)
		fmt.Sscanf(line, "VmRSS: %d", &m.memory)
	}
	g.run.book.note(g.name, "%v", m)
	g.measured = append(g.measured, m)
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
	g.run.book.grew(fmt.Sprintf("  %s: %v at first, %v at the end", g.name, first, last))
	if last.descriptors > first.descriptors+moreDescriptors {
		g.find("descriptors have grown from %d to %d", first.descriptors, last.descriptors)
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
