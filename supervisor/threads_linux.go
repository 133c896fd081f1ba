package supervisor

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processRoom says how many processes and threads there may be more, as far as that can be told. Those of the user outside
// of a cgroup's limit are not counted.
func processRoom() int {
	room := math.MaxInt
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && limit.Cur < math.MaxInt {
		room = int(limit.Cur)
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return room
	}
	for line := range strings.Lines(string(text)) {
		room = min(room, cgroupRoom(strings.TrimSpace(line)))
	}
	return room
}

// cgroupRoom looks at the cgroup of one hierarchy and all above it (cgroups(7)). In a container the path may be the
// host's, and what can be seen begins with the container's own.
func cgroupRoom(line string) int {
	fields := strings.SplitN(line, ":", 3)
	room := math.MaxInt
	if len(fields) != 3 || fields[1] != "" && fields[1] != "pids" {
		return room
	}
	mount := filepath.Join("/sys/fs/cgroup", fields[1])
	for path := filepath.Clean("/" + fields[2]); ; path = filepath.Dir(path) {
		most, err := readNumber(filepath.Join(mount, path, "pids.max"))
		now, err2 := readNumber(filepath.Join(mount, path, "pids.current"))
		if err == nil && err2 == nil {
			room = min(room, max(0, most-now))
		}
		if path == "/" {
			return room
		}
	}
}

// readNumber fails for "max", which is no limit.
func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
