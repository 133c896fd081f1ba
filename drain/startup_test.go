package drain

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// startSlowly is in its start-up until its stdin ends.
func startSlowly() {
	d := New()
	d.On(Resources, "database", func(context.Context) error {
		fmt.Println("database closed")
		return nil
	})
	go func() {
		<-d.Draining()
		fmt.Println("draining")
	}()
	fmt.Println("starting")
	io.Copy(io.Discard, os.Stdin)
	fmt.Println("ended:", d.Wait())
}

// slowStart is a process between New and Wait.
type slowStart struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

func newSlowStart(t *testing.T) *slowStart {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=slow start", "GORACE=atexit_sleep_ms=0")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := &slowStart{t, cmd, stdin, bufio.NewScanner(stdout)}
	s.await("starting")
	return s
}

func (s *slowStart) await(line string) {
	s.t.Helper()
	for s.lines.Scan() {
		if s.lines.Text() == line {
			return
		}
	}
	s.t.Fatalf("it does not say %q", line)
}

func (s *slowStart) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// end returns how the process ended, and what it said until then.
func (s *slowStart) end() (syscall.WaitStatus, string) {
	s.t.Helper()
	var said []string
	for s.lines.Scan() {
		said = append(said, s.lines.Text())
	}
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return s.cmd.ProcessState.Sys().(syscall.WaitStatus), strings.Join(said, "\n")
}

// TERM in the start-up ends what was given to the Drain. The program itself goes on as far as Wait, which returns.
func TestTermInTheStartUpBeginsTheDrain(t *testing.T) {
	s := newSlowStart(t)
	s.signal(syscall.SIGTERM)
	s.await("database closed")
	s.stdin.Close()
	if status, said := s.end(); status.ExitStatus() != 0 || !strings.HasSuffix(said, "ended: <nil>") {
		t.Errorf("it ends with status %d, and says %q", status.ExitStatus(), said)
	}
}

// QUIT in the start-up ends the process, however long that would go on. Go's runtime exits with 2.
func TestQuitInTheStartUpEndsTheProcess(t *testing.T) {
	s := newSlowStart(t)
	s.signal(syscall.SIGQUIT)
	if status, said := s.end(); status.ExitStatus() != 2 || strings.Contains(said, "ended") {
		t.Errorf("it ends with status %d, and says %q", status.ExitStatus(), said)
	}
}

func TestSecondSignalInTheStartUpEndsTheProcess(t *testing.T) {
	s := newSlowStart(t)
	s.signal(syscall.SIGTERM)
	s.await("draining")
	s.signal(syscall.SIGINT)
	if status, said := s.end(); status.Signal() != syscall.SIGINT || strings.Contains(said, "ended") {
		t.Errorf("it ends by %v, and says %q", status.Signal(), said)
	}
}
