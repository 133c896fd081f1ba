package main

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// flipped is the app when it replaces itself by tableflip.
type flipped struct {
	address string
	pid     int
}

func (b bench) startFlipped(app []string) *flipped {
	becomeSubreaper(true) // each process is the child of the one before it
	s := &flipped{address: freeAddress()}
	first := must(syscall.ForkExec(b.app, slices.Concat([]string{b.app, "-tableflip", "-addr", s.address}, app), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	}))
	s.pid, _ = newProbe(s.address).awaitOther(0)
	if s.pid != first {
		panic("another process answers")
	}
	return s
}

func becomeSubreaper(on bool) {
	var flag uintptr
	if on {
		flag = 1
	}
	check(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, flag, 0, 0, 0))
}

func (s *flipped) serves() string { return s.address }

func (s *flipped) replace() time.Duration {
	old, begun := s.pid, time.Now()
	check(syscall.Kill(old, syscall.SIGHUP))
	pid, answered := newProbe(s.address).awaitOther(old)
	s.pid = pid
	check(reap(old))
	return answered.Sub(begun)
}

func (s *flipped) stop() {
	check(endApp(s.pid))
	becomeSubreaper(false)
}
