package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// bareStart starts the app without anything that replaces another process, beside a server that has the load.
type bareStart struct {
	bench
	app    []string
	beside string
}

func (s *bareStart) serves() string         { return s.beside }
func (s *bareStart) replace() time.Duration { return s.bareStart(s.app) }
func (s *bareStart) stop()                  {}

// bareStart measures from the fork to the first response, and returns when the process has ended.
func (b bench) bareStart(app []string) time.Duration {
	address := freeAddress()
	p, begun := newProbe(address), time.Now()
	pid := must(syscall.ForkExec(b.app, append([]string{b.app, "-addr", address}, app...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	}))
	var answered time.Time
	err := attempt(func() { _, answered = p.awaitOther(0) })
	check(errors.Join(err, endApp(pid)))
	return answered.Sub(begun)
}

func endApp(pid int) error { return errors.Join(syscall.Kill(pid, syscall.SIGTERM), reap(pid)) }

func freeAddress() string {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	return ln.Addr().String()
}

func reap(pid int) error {
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, 0, nil)
	if err == nil && status.ExitStatus() != 0 {
		return fmt.Errorf("process %d ended with %#x", pid, status)
	}
	return err
}
