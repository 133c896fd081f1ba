package kubernetes

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// daemon is a program of the cluster. It runs until the test ends: its pid namespace ends then.
type daemon struct {
	name  string
	log   string
	ended chan struct{} // closed when it has been reaped
}

// start begins a daemon, whose end before that of the test fails the test.
func start(t *testing.T, name string, command ...string) {
	t.Helper()
	d := &daemon{name, filepath.Join(logFolder(), name+".log"), make(chan struct{})}
	out, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	err = cmd.Start()
	out.Close()
	if err != nil {
		t.Fatalf("cannot start %s: %v", name, err)
	}
	go func() {
		cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() { d.report(t) })
}

func logFolder() string {
	if *logs != "" {
		return *logs
	}
	return shared
}

// report gives the last lines of a daemon that ended, or whose test failed.
func (d *daemon) report(t *testing.T) {
	select {
	case <-d.ended:
		t.Errorf("%s has ended", d.name)
	default:
	}
	if !t.Failed() {
		return
	}
	text, _ := os.ReadFile(d.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	t.Logf("the end of %s:\n%s", d.log, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}

// do runs a command to its end and gives what it printed.
func do(t *testing.T, command ...string) string {
	t.Helper()
	out, err := try(t, command...)
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return out
}

func try(t *testing.T, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	return string(out), err
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func mustWrite(t *testing.T, path, text string) string {
	t.Helper()
	if err := write(path, text); err != nil {
		t.Fatal(err)
	}
	return path
}
