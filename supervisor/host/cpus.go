package host

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// CPUs is how many the app can use, which has grace's affinity and cgroup: a fraction counts as one, as the smaller half of it is
// idle else.
func CPUs() int {
	cpus := runtime.NumCPU()
	if os.Getenv("GOMAXPROCS") == "" { // Go knows the limits of cgroup v1 too, but none below 2, nor those further up
		cpus = min(cpus, runtime.GOMAXPROCS(0))
	}
	membership, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return cpus
	}
	return min(cpus, cgroupCPUs("/sys/fs/cgroup", string(membership)))
}

// cgroupCPUs is the least limit of the folders of a cgroup v2, from the process's own to the root.
func cgroupCPUs(root, membership string) int {
	least := math.MaxInt
	for line := range strings.Lines(membership) {
		dir, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !found {
			continue
		}
		for dir = path.Clean("/" + dir); ; dir = path.Dir(dir) {
			if text, err := os.ReadFile(filepath.Join(root, dir, "cpu.max")); err == nil {
				least = min(least, cpuLimit(string(text)))
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// cpuLimit reads "QUOTA PERIOD", or "max PERIOD" (cpu.max in Documentation/admin-guide/cgroup-v2.rst).
func cpuLimit(text string) int {
	var quota, period float64
	if n, _ := fmt.Sscan(text, &quota, &period); n != 2 || quota <= 0 || period <= 0 {
		return math.MaxInt
	}
	return int(math.Ceil(quota / period))
}
