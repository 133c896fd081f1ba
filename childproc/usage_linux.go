package childproc

import (
	"os"
	"strconv"
	"time"
)

// clockTicks is USER_HZ, in which /proc counts on every architecture that Go has
// (include/uapi/asm-generic/param.h).
const clockTicks = 100

// Used sums what processes use now. Those that have ended count nothing.
func Used(pids []int) Usage {
	var sum Usage
	for _, pid := range pids {
		u, ok := usedBy(pid)
		if ok {
			sum.Resident += u.Resident
			sum.CPU += u.CPU
		}
	}
	return sum
}

// usedBy reads the fields utime, stime and rss of proc_pid_stat(5).
func usedBy(pid int) (Usage, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return Usage{}, false
	}
	fields := statFields(text)
	if len(fields) < 22 {
		return Usage{}, false
	}
	var numbers [3]int64
	for n, field := range []int{11, 12, 21} {
		if numbers[n], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return Usage{}, false
		}
	}
	return Usage{
		Resident: numbers[2] * int64(os.Getpagesize()),
		CPU:      time.Duration(numbers[0]+numbers[1]) * time.Second / clockTicks,
	}, true
}
