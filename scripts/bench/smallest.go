package main

import (
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// smallest is the ideal overlap played by a process of its own, on SIGHUP: what is left of a supervisor in Go that does nothing
// else. It looks after nothing, and an app that is killed, hangs or is not ready ends it.
type smallest struct {
	address    string
	supervisor int // the process
	pid        int // of the app
}

func (b bench) startSmallest(app []string) *smallest {
	listener, address := keptListener()
	defer unix.Close(listener)
	return b.startSmallestAt(listener, address, app)
}

// startSmallestAt returns when the app has answered. The listener stays the caller's.
func (b bench) startSmallestAt(listener int, address string, app []string) *smallest {
	s := &smallest{address: address}
	self := must(os.Executable())
	s.supervisor = must(syscall.ForkExec(self, slices.Concat([]string{self, "smallest", b.app}, app), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2, uintptr(listener)},
	}))
	s.pid, _ = newProbe(address).awaitOther(0)
	return s
}

func (s *smallest) serves() string { return s.address }

func (s *smallest) replace() time.Duration {
	old, end := s.pid, must(unix.PidfdOpen(s.pid, 0))
	defer unix.Close(end)
	begun := time.Now()
	check(syscall.Kill(s.supervisor, syscall.SIGHUP))
	var answered time.Time
	s.pid, answered = newProbe(s.address).awaitOther(old)
	check(awaitEnd(end))
	return answered.Sub(begun)
}

func (s *smallest) stop() { check(endApp(s.supervisor)) }

func awaitEnd(pidfd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err == nil && n == 0:
			return errors.New("the old process does not end")
		default:
			return err
		}
	}
}

// superviseLeast is that process. The listener is descriptor 3.
func superviseLeast(app string, args []string) error {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP, syscall.SIGTERM)
	const listener = 3
	unix.CloseOnExec(listener)
	return attempt(func() {
		s := bench{app: app}.keepIdeal(listener, args)
		for sig := range asked {
			if sig == syscall.SIGTERM {
				s.stop()
				return
			}
			old := s.pid
			check(errors.Join(s.overlap(old), reap(old)))
		}
	})
}
