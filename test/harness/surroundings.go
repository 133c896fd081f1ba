package harness

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Surroundings are what an app is born with: its descriptors and its variables, without what is every instance's own.
func Surroundings(t *testing.T, pid int) string {
	t.Helper()
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	own := []string{"GRACE_GENERATION=", "GRACE_INSTANCE=", "LISTEN_PID=", "NOTIFY_SOCKET=", "SERVER_STARTER_GENERATION="}
	variables := slices.DeleteFunc(strings.Split(string(env), "\x00"), func(v string) bool {
		return slices.ContainsFunc(own, func(name string) bool { return strings.HasPrefix(v, name) })
	})
	slices.Sort(variables)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "SigIgn") { // what is blocked differs among the threads of a Go program
			variables = append(variables, line)
		}
	}
	return strings.Join(variables, "\n") + strings.Join(inherited(t, pid), "\n")
}

// inherited are the descriptors that are no epoll set, event or connection of the app's own.
func inherited(t *testing.T, pid int) []string {
	t.Helper()
	var list []string
	for fd := range 32 {
		link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil || strings.HasPrefix(link, "anon_inode:") {
			continue
		}
		kind, _, _ := strings.Cut(link, "[")
		if kind == "socket:" { // it can be ready before it has closed the one that it has made a listener of
			continue
		}
		list = append(list, fmt.Sprint(fd, " ", kind))
	}
	return list
}
