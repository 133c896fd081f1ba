package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ideal is the least that a replacement without loss takes, played by the bench itself: it keeps the socket, starts
// the new process with it, waits for READY=1, and tells the old one to stop.
type ideal struct {
	bench
	app      []string
	address  string
	listener int
	ready    int // receives READY=1
	path     string
	pid      int
}

func (b bench) startIdeal(app []string) *ideal {
	listener, address := keptListener()
	s := b.keepIdeal(listener, app)
	s.address = address
	return s
}

// keepIdeal takes the listener over.
func (b bench) keepIdeal(listener int, app []string) *ideal {
	s := &ideal{bench: b, app: app, listener: listener}
	s.path = fmt.Sprintf("@grace-bench-%d", os.Getpid())
	s.ready = must(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	check(unix.Bind(s.ready, &unix.SockaddrUnix{Name: s.path}))
	timeout := unix.NsecToTimeval(int64(patience))
	check(unix.SetsockoptTimeval(s.ready, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout))
	s.pid = must(s.start())
	check(s.awaitReady())
	return s
}

// keptListener is a descriptor that no os.File has: its Fd takes O_NONBLOCK from all that share the socket, and then an old
// process waits in accept(2) when it has to end.
func keptListener() (fd int, address string) {
	ln := must(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	raw := must(ln.(*net.TCPListener).SyscallConn())
	var err error
	check(raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }))
	check(err)
	return fd, ln.Addr().String()
}

func (s *ideal) serves() string { return s.address }

func (s *ideal) replace() time.Duration {
	old, begun := s.pid, time.Now()
	started := make(chan error, 1)
	go func() { started <- s.overlap(old) }()
	_, answered := newProbe(s.address).awaitOther(old)
	check(errors.Join(<-started, reap(old)))
	return answered.Sub(begun)
}

// overlap returns when the old process has been told to stop.
func (s *ideal) overlap(old int) (err error) {
	if s.pid, err = s.start(); err != nil {
		return err
	}
	if err := s.awaitReady(); err != nil {
		return err
	}
	return syscall.Kill(old, syscall.SIGTERM)
}

func (s *ideal) start() (pid int, err error) {
	return syscall.ForkExec(s.bench.app, slices.Concat([]string{s.bench.app, "-fd", "3"}, s.app), &syscall.ProcAttr{
		Env: append(os.Environ(), "NOTIFY_SOCKET="+s.path), Files: []uintptr{0, 1, 2, uintptr(s.listener)},
	})
}

func (s *ideal) awaitReady() error {
	var message [64]byte
	for {
		n, _, err := unix.Recvfrom(s.ready, message[:], 0)
		switch {
		case err == unix.EINTR: // signal(7): a read with a timeout is not restarted
		case err != nil:
			return fmt.Errorf("the new process does not say READY=1: %w", err)
		case slices.Contains(strings.Split(string(message[:n]), "\n"), "READY=1"):
			return nil
		}
	}
}

func (s *ideal) stop() {
	check(errors.Join(endApp(s.pid), unix.Close(s.listener), unix.Close(s.ready)))
}
