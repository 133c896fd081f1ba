//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of the tests that only a defect makes long.
const patience = 60 * time.Second

var graceBinary, appBinary string

func TestMain(m *testing.M) { os.Exit(withBinaries(m.Run)) }

func withBinaries(run func() int) int {
	dir, err := os.MkdirTemp("", "grace-grpc-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	graceBinary, appBinary = filepath.Join(dir, "grace"), filepath.Join(dir, "app")
	for _, b := range []struct{ from, binary string }{{"../../..", graceBinary}, {".", appBinary}} {
		build := exec.Command("go", "build", "-o", b.binary, ".")
		build.Dir = b.from
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build %s: %v\n%s", b.from, err, out)
			return 1
		}
	}
	return run()
}

// entry is one line of grace's log.
type entry struct {
	Message    string
	Generation int
	Pid        int
	Why        string
}

// supervised is a running `grace run`.
type supervised struct {
	t       *testing.T
	cmd     *exec.Cmd
	entries chan entry // closed when all that write to the log have ended
}

func grace(t *testing.T, arguments ...string) *supervised {
	t.Helper()
	cmd := exec.Command(graceBinary, append([]string{"run", "--log-format", "json"}, arguments...)...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &supervised{t: t, cmd: cmd, entries: make(chan entry, 1000)}
	go s.read(log)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			s.signal(syscall.SIGQUIT)
			s.wait()
		}
	})
	return s
}

// read shows the app's own lines, which are no JSON, in the test's log only.
func (s *supervised) read(log io.Reader) {
	defer close(s.entries)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		fmt.Fprintln(s.t.Output(), lines.Text())
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			s.entries <- e
		}
	}
}

// await passes over all other messages.
func (s *supervised) await(messages ...string) entry {
	s.t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case e, ok := <-s.entries:
			if !ok {
				s.t.Fatalf("grace ended before it said %q", messages)
			}
			if slices.Contains(messages, e.Message) {
				return e
			}
		case <-timeout:
			s.t.Fatalf("grace does not say %q", messages)
		}
	}
}

// ready waits for a generation, and gives the pid of its instance.
func (s *supervised) ready() (pid int) {
	s.t.Helper()
	for {
		switch e := s.await("instance started", "generation ready", "upgrade failed", "first generation failed"); e.Message {
		case "instance started":
			pid = e.Pid
		case "generation ready":
			return pid
		default:
			s.t.Fatalf("%s: %s", e.Message, e.Why)
		}
	}
}

func (s *supervised) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *supervised) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.wait()
	if status := s.cmd.ProcessState.ExitCode(); status != 0 {
		s.t.Errorf("grace ended with status %d", status)
	}
}

// wait reads the log to its end first, as Wait closes it.
func (s *supervised) wait() {
	s.t.Helper()
	kill := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	for range s.entries {
	}
	s.cmd.Wait() // its status is in ProcessState
}
