package childproc

import (
	"os"
	"strconv"
	"syscall"
	"time"
)

// Usage is what some processes take of the machine.
type Usage struct {
	Resident int64         // bytes of memory; pages that they share count for each of them
	CPU      time.Duration // since they were started
}

// clockTicks is USER_HZ, in which /proc counts on every architecture that Go has (include/uapi/asm-generic/param.h).
const clockTicks = 100

// Used sums what processes use now. Those that have ended count nothing.
func Used(pids []int) Usage {
	var sum Usage
	for _, pid := range pids {
		if stat, err := readStat(pid); err == nil {
			sum.Resident += stat.resident * int64(os.Getpagesize())
			sum.CPU += time.Duration(stat.ticks) * time.Second / clockTicks
		}
	}
	return sum
}

// Stopped gives the first of pids that job control has stopped (state T), and the signal, or 0 if the kernel does not say it.
// A pid of 0 says that none is. Processes that cannot be seen are passed over.
func Stopped(pids []int) (pid int, by syscall.Signal) {
	for _, pid := range pids {
		if stat, err := readStat(pid); err == nil && stat.state == 'T' {
			return pid, syscall.Signal(stat.exitCode)
		}
	}
	return 0, 0
}

// Living reports whether there is such a process, and it has not ended.
func Living(pid int) bool {
	stat, err := readStat(pid)
	return err == nil && stat.living()
}

// Called gives the name of a process, as top shows it, or "?".
func Called(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil || len(text) < 2 {
		return "?"
	}
	return string(text[:len(text)-1])
}
