package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The clock has to be that of the process, not that of the thread or of the machine.
func TestCPUOfAProcess(t *testing.T) {
	own := func() time.Duration {
		var used unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used); err != nil {
			t.Fatal(err)
		}
		return time.Duration(used.Nano())
	}
	before := own()
	got := cpuOf(os.Getpid())
	if after := own(); got < before || got > after {
		t.Errorf("%v, not between %v and %v", got, before, after)
	}
}
