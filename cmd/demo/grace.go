package demo

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

const stopPatience = 15 * time.Second

func startGrace() (*gracelog.Process, error) {
	return launchGrace(appCommand, "--listen", socketName+"=127.0.0.1:0", "--ready", "notify")
}

// nameOf keeps the name of the working directory free for a server that is started there.
func nameOf(app string) string { return fmt.Sprintf("%s-%d", app, os.Getpid()) }

// launchGrace starts this program as `grace run` with this program as the app, in a process group of its own: a Ctrl-C in the
// terminal reaches the demo alone. The caller stops it.
func launchGrace(app string, flags ...string) (*gracelog.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find grace's own executable: %w", err)
	}
	words := append([]string{"run", "--name", nameOf(app), "--drain-timeout", "10s", "--log-format", "json", "--log-level", "info"}, flags...)
	cmd := exec.Command(self, append(words, "--", self, app)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GRACE_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	g, err := gracelog.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("cannot start grace: %w", err)
	}
	return g, nil
}
