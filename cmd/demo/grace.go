package demo

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gracerun/grace/internal/gracelog"
)

// grace is a running `grace run`, in a process group of its own: a Ctrl-C in the terminal reaches the demo alone.
type grace struct {
	cmd   *exec.Cmd
	log   <-chan gracelog.Entry // closed when grace and all that it started have closed their stderr
	ended chan struct{}         // closed when grace has exited
	exit  error                 // how, from then on
}

const stopPatience = 15 * time.Second

// startGrace starts this program as `grace run` with this program as the app. The caller stops it.
func startGrace() (*grace, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find grace's own executable: %w", err)
	}
	cmd := exec.Command(self, "run", "--listen", socketName+"=127.0.0.1:0", "--ready", "notify",
		"--drain-timeout", "10s", "--log-format", "json", "--log-level", "info", "--", self, appCommand)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GRACE_") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot start grace: %w", err)
	}
	defer theirs.Close()
	cmd.Stderr = theirs
	if err := cmd.Start(); err != nil {
		stderr.Close()
		return nil, fmt.Errorf("cannot start grace: %w", err)
	}
	log := make(chan gracelog.Entry, 100)
	go readLog(stderr, log)
	g := &grace{cmd: cmd, log: log, ended: make(chan struct{})}
	go func() {
		defer close(g.ended)
		g.exit = cmd.Wait()
	}()
	return g, nil
}

// readLog owns the pipe. A line that is no entry is told as an error: grace and its app write none when all is well.
func readLog(stderr io.ReadCloser, log chan<- gracelog.Entry) {
	defer stderr.Close()
	defer close(log)
	_ = gracelog.Read(stderr, func(e gracelog.Entry) {
		if e.Message == "" {
			e.Level = "error"
		}
		log <- e
	})
}

func (g *grace) upgrade() error { return g.cmd.Process.Signal(syscall.SIGHUP) }

// stop ends grace, and its app with it, and returns how it ended. It is killed when it does not end in time.
func (g *grace) stop() error {
	g.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(stopPatience, func() { g.cmd.Process.Kill() })
	defer kill.Stop()
	for {
		select {
		case _, more := <-g.log:
			if !more {
				g.log = nil
			}
		case <-g.ended:
			return g.exit
		}
	}
}
