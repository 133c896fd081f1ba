package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// wakeups returns how often the threads of processes were switched to, each thread's number by its id.
func wakeups(pids ...int) map[string]int {
	switches := map[string]int{}
	for _, pid := range pids {
		tasks := fmt.Sprintf("/proc/%d/task", pid)
		for _, thread := range must(os.ReadDir(tasks)) {
			status := fields(tasks + "/" + thread.Name() + "/status")
			switches[thread.Name()] = status["voluntary_ctxt_switches"] + status["nonvoluntary_ctxt_switches"]
		}
	}
	return switches
}

// since sums what the threads did after before was taken.
func since(before, now map[string]int) (sum int) {
	for thread, n := range now {
		sum += n - before[thread]
	}
	return sum
}

// cpuOf is what all threads of a process have used, to the nanosecond, with those that have ended: the clock that
// clock_getcpuclockid(3) gives for a pid. /proc/PID/stat counts in hundredths of a second.
func cpuOf(pid int) time.Duration {
	const processScheduled = 2 // CPUCLOCK_SCHED in the kernel's posix-timers_types.h
	var used unix.Timespec
	check(unix.ClockGettime(int32(^pid<<3|processScheduled), &used))
	return time.Duration(used.Nano())
}

// memory is in MB.
type memory struct{ resident, shared, private float64 }

func memoryOf(pid int) memory {
	status, rollup := fields(fmt.Sprintf("/proc/%d/status", pid)), fields(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	mb := func(kilobytes int) float64 { return float64(kilobytes) / 1024 }
	return memory{mb(status["VmRSS"]), mb(rollup["Pss"]), mb(rollup["Private_Clean"] + rollup["Private_Dirty"])}
}

// fields reads the numbers of a file with lines like "Name:  12 kB".
func fields(path string) map[string]int {
	numbers := map[string]int{}
	for line := range strings.Lines(string(must(os.ReadFile(path)))) {
		name, rest, _ := strings.Cut(line, ":")
		first, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if n, err := strconv.Atoi(first); err == nil {
			numbers[name] = n
		}
	}
	return numbers
}
