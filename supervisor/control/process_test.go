package control

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

const (
	asListener = "CONTROL_TEST_LISTENS_AS"
	asHeir     = "CONTROL_TEST_ADOPTS" // a path; the descriptors are 3 and 4
)

// TestMain lets the test binary be a process that has a control socket, until its stdin ends.
func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(asListener) != "":
		_, err = Open(os.Getenv(asListener))
	case os.Getenv(asHeir) != "":
		_, err = Adopt(os.Getenv(asHeir), 3, 4)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString("listening")
	os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

func TestWaitForTheEnd(t *testing.T) {
	dir := inPlace(t)
	for name, blind := range map[string]bool{"by pidfd": false, "of another pid namespace": true} {
		t.Run(name, func(t *testing.T) {
			end := listener(t, asListener+"=web")
			p, err := Watch(t.Context(), dir+"/web.sock")
			if err != nil {
				t.Fatal(err)
			}
			if blind {
				p.Close()
				p.pidfd = -1
			}
			defer p.Close()
			short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := p.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("it has ended: %v", err)
			}
			end()
			long, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.Wait(long); err != nil {
				t.Errorf("it has not ended: %v", err)
			}
		})
	}
	if _, err := Watch(t.Context(), dir+"/web.sock"); err == nil {
		t.Error("the dead can be watched")
	}
}

// Clients see the successor, though the one that made the socket still lives.
func TestWaitForTheEndOfASuccessor(t *testing.T) {
	inPlace(t)
	s := open(t, "web")
	l, lock := s.Descriptors()
	end := listener(t, asHeir+"="+s.Path, os.NewFile(uintptr(duplicate(t, l)), "listener"), os.NewFile(uintptr(duplicate(t, lock)), "lock"))
	if pid := readPID(s.lockPath()); pid == 0 || pid == os.Getpid() {
		t.Errorf("the lock names process %d", pid)
	}
	p, err := Watch(t.Context(), s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	end()
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Wait(long); err != nil {
		t.Errorf("it has not ended: %v", err)
	}
}

// listener starts a process that has a socket until end is called.
func listener(t *testing.T, role string, files ...*os.File) (end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), role, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	end = func() {
		in.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return end
}
