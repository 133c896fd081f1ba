package socket

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Alarm waits for descriptors to become readable by Go's poller. poll(2) would hold a thread as long, and where the limit of
// processes is reached Go gets no other for its work, and ends the program.
type Alarm struct {
	set     *os.File // an epoll set with the descriptors
	watched []unix.PollFd
}

// NewAlarm leaves the descriptors to its caller, who keeps them open until Close.
func NewAlarm(fds ...int) (*Alarm, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	a := &Alarm{}
	for _, fd := range fds {
		a.watched = append(a.watched, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		err = errors.Join(err, unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
	}
	if err = errors.Join(err, unix.SetNonblock(epoll, true)); err != nil { // for os.NewFile, which asks for it
		return nil, errors.Join(err, unix.Close(epoll))
	}
	a.set = os.NewFile(uintptr(epoll), "epoll")
	return a, nil
}

// Wait returns when one of the descriptors is readable.
func (a *Alarm) Wait() error {
	conn, err := a.set.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Read(func(uintptr) bool {
		n, err := unix.Poll(a.watched, 0)
		failed = err
		return n > 0 || err != nil && err != unix.EINTR
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("cannot wait for descriptors: %w", err)
	}
	return nil
}

// Close ends no Wait: whoever waits has to be woken before, by one of the descriptors. Of a nil Alarm it does nothing.
func (a *Alarm) Close() error {
	if a == nil {
		return nil
	}
	return a.set.Close()
}
