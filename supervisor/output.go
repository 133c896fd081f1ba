package supervisor

import (
	"fmt"
	"os"
	"strings"
)

// describeOutput says where the app's output goes, which it inherits from grace.
func describeOutput() string {
	target, err := os.Readlink("/proc/self/fd/2")
	switch {
	case err != nil:
		return "grace's standard error"
	case strings.HasPrefix(target, "socket:") && os.Getenv("JOURNAL_STREAM") != "":
		return fmt.Sprintf("the journal (journalctl _PID=%d, or -u and the unit)", os.Getpid())
	case strings.HasPrefix(target, "pipe:"), strings.HasPrefix(target, "socket:"):
		return "grace's standard error, a " + strings.TrimSuffix(strings.SplitN(target, ":", 2)[0], ":") + " to whoever started it"
	}
	return target
}
