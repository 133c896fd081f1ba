package childproc

import (
	"os"
	"strconv"
	"syscall"
)

// exitCode is where statFields has the field exit_code of proc_pid_stat(5). Of a stopped process it is the signal
// (do_task_stat in fs/proc/array.c), for who may trace it.
const exitCode = 49

// Stopped gives the first of pids that job control has stopped (state T), and the signal, or 0 if the kernel does not say it.
// A pid of 0 says that none is. Processes that cannot be seen are passed over.
func Stopped(pids []int) (pid int, by syscall.Signal) {
	for _, pid := range pids {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		fields := statFields(text)
		if len(fields) <= exitCode || fields[0] != "T" {
			continue
		}
		signal, err := strconv.Atoi(fields[exitCode])
		if err != nil {
			signal = 0
		}
		return pid, syscall.Signal(signal)
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
