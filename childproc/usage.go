package childproc

import (
	"os"
	"time"
)

// Usage is what some processes take of the machine.
type Usage struct {
	Resident int64         // bytes of memory; pages that they share count for each of them
	CPU      time.Duration // since they were started
}

// clockTicks is USER_HZ, in which /proc counts on every architecture that Go has
// (include/uapi/asm-generic/param.h).
const clockTicks = 100

// Used sums what processes use now. Those that have ended count nothing.
func Used(pids []int) Usage {
	var sum Usage
	for _, pid := range pids {
		if stat, err := readStat(pid); err == nil {
			sum.Resident += stat.usage().Resident
			sum.CPU += stat.usage().CPU
		}
	}
	return sum
}

func (s procStat) usage() Usage {
	return Usage{
		Resident: s.resident * int64(os.Getpagesize()),
		CPU:      time.Duration(s.ticks) * time.Second / clockTicks,
	}
}
