package childproc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Resident sums the memory of processes in bytes, without what the kernel can read from files again: of that a cache takes
// part, and no fresh process would have less. Pages that processes share, as forked ones do, are counted for each of them, so
// that it is a bound for Proportional; but it costs little.
func Resident(pids []int) (int64, error) {
	return sumMemory(pids, "status", func(m map[string]int64) int64 { return m["RssAnon"] + m["RssShmem"] + m["VmSwap"] })
}

// Proportional sums the same, and counts shared pages once: each process has its part of them. The kernel walks through
// all pages, which takes some milliseconds for a gigabyte. The error is ErrCannotLook for processes that grace may not look into.
func Proportional(pids []int) (int64, error) {
	return sumMemory(pids, "smaps_rollup", proportional)
}

// proportional: before Linux 5.3 only the sum with files is there.
func proportional(m map[string]int64) int64 {
	if anonymous, ok := m["Pss_Anon"]; ok {
		return anonymous + m["Pss_Shmem"] + m["SwapPss"]
	}
	return min(m["Pss"], m["Anonymous"]) + m["SwapPss"]
}

func sumMemory(pids []int, file string, of func(map[string]int64) int64) (sum int64, err error) {
	for _, pid := range pids {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + file)
		if ignoreGone(err) != nil {
			return 0, fmt.Errorf("%w: cannot read the memory of process %d: %w", ErrCannotLook, pid, err)
		}
		sum += of(memoryFields(string(text)))
	}
	return sum, nil
}

// memoryFields are those in kB, in bytes.
func memoryFields(text string) map[string]int64 {
	fields := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		number, isSize := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if n, err := strconv.ParseInt(number, 10, 64); isSize && err == nil {
			fields[name] = n << 10
		}
	}
	return fields
}
