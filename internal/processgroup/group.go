// Package processgroup tells tests whether what they have started has ended.
package processgroup

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Group is a process group. Its number can be another one's by the end of a test: machines with few processors count
// processes up to 32768, and tests start many.
type Group struct {
	ID   int
	seen uint64 // when its leader had been started, in ticks since the boot
}

// Seen is for a group whose leader has been started by now.
func Seen(id int) Group {
	var uptime float64
	text, _ := os.ReadFile("/proc/uptime")
	_, _ = fmt.Sscan(string(text), &uptime)
	return Group{id, uint64(uptime*ticks) + 1}
}

// Remains tells whether there is a process of it still.
func (g Group) Remains() bool {
	if syscall.Kill(-g.ID, 0) == syscall.ESRCH {
		return false
	}
	started, ok := start(g.ID)
	return !ok || started <= g.seen
}

// ticks are those of a second, on all architectures that grace is built for.
const ticks = 100

// start is when a process began (proc_pid_stat(5)); the name in the second field may have blanks in it.
func start(pid int) (at uint64, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return 0, false
	}
	at, err = strconv.ParseUint(fields[19], 10, 64)
	return at, err == nil
}
