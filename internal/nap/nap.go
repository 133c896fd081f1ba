// Package nap waits for less than a millisecond. Go's own timers wait in the poller, which counts whole ones (netpoll in the runtime's
// netpoll_epoll.go). nanosleep(2) takes up one of the threads that run Go code (GOMAXPROCS) until the runtime looks after it (retake in its
// proc.go).
package nap

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// For waits for d, or for a millisecond or more where the system gives no timer. It may be called by any goroutine.
func For(d time.Duration) {
	if d > 0 && wait(d) != nil {
		time.Sleep(d)
	}
}

// wait waits for a timerfd_create(2) in Go's poller.
func wait(d time.Duration) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return err
	}
	timer := os.NewFile(uintptr(fd), "timer")
	defer timer.Close()
	once := unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}
	if err := unix.TimerfdSettime(fd, 0, &once, nil); err != nil {
		return err
	}
	var expirations [8]byte
	_, err = timer.Read(expirations[:])
	return err
}
