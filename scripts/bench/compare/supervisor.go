package compare

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a supervisor has used and holds.
type usage struct {
	pid         int
	cpu         time.Duration
	memory      float64 // its share of resident memory (PSS), MB
	descriptors int
}

// usageOf is zero where there is no process.
func usageOf(pid int) usage {
	if pid == 0 {
		return usage{}
	}
	u := usage{pid: pid, cpu: cpuOf(pid), memory: memoryOf(pid)}
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // a process that has ended has none
	u.descriptors = len(entries)
	return u
}

// cpuOf is to the nanosecond, by the clock that clock_getcpuclockid(3) gives for a pid: /proc/PID/stat counts in hundredths of a
// second.
func cpuOf(pid int) time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED in the kernel's posix-timers_types.h
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &used); err != nil {
		return 0
	}
	return time.Duration(used.Nano())
}

func memoryOf(pid int) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0
	}
	kilobytes, _ := strconv.ParseFloat(words[0], 64)
	return kilobytes / 1024
}
