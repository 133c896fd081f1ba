package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// probe asks an address who answers there, with so little work that what is measured hardly notices.
type probe struct{ to unix.SockaddrInet4 }

func newProbe(address string) *probe {
	at := must(netip.ParseAddrPort(address))
	return &probe{unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}}
}

// between two questions. Both a bare start and an upgrade are seen late by half of it on average; to ask more often would
// take the processor from the start that is measured.
const between = 500 * time.Microsecond

// awaitOther asks until another process than old answers, and returns which one that was and when.
func (p *probe) awaitOther(old int) (pid int, at time.Time) {
	pause := unix.NsecToTimespec(int64(between))
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		pid, err := p.ask()
		switch {
		case err == nil && pid != old:
			return pid, time.Now()
		case err != nil && (old != 0 || !errors.Is(err, unix.ECONNREFUSED)):
			check(err)
		}
		// Go's timers wait a millisecond at least.
		unix.Nanosleep(&pause, nil)
	}
	panic(failure{errors.New("nobody else answered")})
}

var question = []byte("GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")

// ask returns the pid of who answered.
func (p *probe) ask() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(int64(patience))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return 0, err
	}
	if err := unix.Connect(fd, &p.to); err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, question); err != nil {
		return 0, err
	}
	var answer [1024]byte
	n, err := unix.Read(fd, answer[:])
	for err == unix.EINTR { // signal(7): a read with a timeout is not restarted
		n, err = unix.Read(fd, answer[:])
	}
	if err != nil {
		return 0, err
	}
	return answerer(answer[:n])
}

func answerer(response []byte) (int, error) {
	_, rest, found := bytes.Cut(response, []byte("\r\nX-Pid: "))
	pid, _, ended := bytes.Cut(rest, []byte("\r\n"))
	if !found || !ended {
		return 0, fmt.Errorf("no answer of the app: %q", response)
	}
	return strconv.Atoi(string(pid))
}
