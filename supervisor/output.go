package supervisor

import (
	"fmt"
	"os"
	"strings"
)

// describeOutput says where the app's output goes, which it inherits from grace.
func describeOutput() string {
	out, err := describeStream(1, "standard output"), describeStream(2, "standard error")
	if sameStreams() {
		return err
	}
	return fmt.Sprintf("%s (standard output) and %s (standard error)", out, err)
}

func sameStreams() bool {
	out, err := os.Readlink("/proc/self/fd/1")
	target, err2 := os.Readlink("/proc/self/fd/2")
	return err == nil && err2 == nil && out == target
}

func describeStream(fd int, name string) string {
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	switch {
	case err != nil:
		return "grace's " + name
	case strings.HasPrefix(target, "socket:") && os.Getenv("JOURNAL_STREAM") != "":
		return fmt.Sprintf("the journal (journalctl _PID=%d, or -u and the unit)", os.Getpid())
	case strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "socket:"):
		kind, _, _ := strings.Cut(target, ":")
		return fmt.Sprintf("grace's %s, a %s to whoever started grace", name, kind)
	}
	return target
}
