package operate

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gracerun/grace/test/harness"
)

const talks = "#!/bin/sh\ntrap 'echo the app got USR1' USR1\ntrap 'exit 0' TERM\necho the app begins\nwhile :; do sleep 0.01; done\n"

func logsOf(name string, more ...string) *exec.Cmd {
	c := exec.Command(harness.GraceBinary(), append([]string{"logs", name}, more...)...)
	c.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	return c
}

// What grace and the app have written to a file is shown, and followed.
func TestLogsInAFile(t *testing.T) {
	dir, name := t.TempDir(), fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(harness.GraceBinary(), "run", "--name", name, "--ready-delay", "1ms", "--", harness.Write(t, dir, "app", talks, 0o755))
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Signal(syscall.SIGTERM)
	harness.Until(t, "it serves", func() bool {
		return strings.Contains(harness.Read(t, log.Name()), `"message":"serving"`) && strings.Contains(harness.Read(t, log.Name()), "the app begins\n")
	})
	if out, err := logsOf(name).CombinedOutput(); err != nil || string(out) != harness.Read(t, log.Name()) {
		t.Errorf("%v: logs shows\n%s\nand the file has\n%s", err, out, harness.Read(t, log.Name()))
	}
	if out, err := logsOf(name, "-n", "1").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v: logs shows\n%s", err, out)
	}
	follow := logsOf(name, "--follow", "--lines", "0")
	lines, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer follow.Wait()
	defer follow.Process.Kill()
	seen := make(chan bool, 1)
	go func() {
		text := bufio.NewScanner(lines)
		for text.Scan() && text.Text() != "the app got USR1" {
		}
		seen <- text.Err() == nil && text.Text() == "the app got USR1"
	}()
	harness.Until(t, "the line of the app is shown", func() bool {
		if err := c.Process.Signal(syscall.SIGUSR1); err != nil { // until the follower follows
			t.Fatal(err)
		}
		select {
		case found := <-seen:
			return found
		default:
			return false
		}
	})
}

// Where nothing can be read again, it is said who reads it.
func TestLogsThatGoToAProcess(t *testing.T) {
	name := fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	s := harness.Start(t, "--name", name, "--listen", "web=127.0.0.1:0", "--", harness.AppBinary())
	s.AwaitReady(1)
	out, err := logsOf(name).CombinedOutput()
	want := fmt.Sprintf("grace: the output of %s goes to a pipe that process %d (", name, os.Getpid())
	if ended, ok := err.(*exec.ExitError); !ok || ended.ExitCode() != 1 || !strings.HasPrefix(string(out), want) {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
	s.Stop()
}
