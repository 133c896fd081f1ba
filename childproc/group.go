package childproc

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrStopped is what a wait gives that was ended by its stop channel.
var ErrStopped = errors.New("stopped waiting")

// Group lists the living members of a process group, zombies left out.
func Group(pgid int) ([]int, error) {
	var members []int
	inGroup := func(pid int) bool { // asking the kernel so is far quicker than reading files
		group, err := unix.Getpgid(pid)
		return err == nil && group == pgid
	}
	err := eachProcess(inGroup, func(pid int, stat procStat) {
		if stat.group == pgid && stat.living() {
			members = append(members, pid)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list process group %d: %w", pgid, err)
	}
	return members, nil
}

// endOf gives Go's poller a pidfd, which becomes readable when its process ends. It takes the pidfd over: PIDFD_NONBLOCK
// would need Linux 5.10.
func endOf(pidfd int) (*os.File, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, errors.Join(err, unix.Close(pidfd))
	}
	return os.NewFile(uintptr(pidfd), "pidfd"), nil
}

// waitReadable gives ErrStopped if stop is closed before. A nil stop never is.
func waitReadable(f *os.File, stop <-chan struct{}) error {
	if unpolled(f) {
		return waitByThread(f, stop)
	}
	done := make(chan struct{})
	defer close(done)
	if stop != nil {
		go func() {
			select {
			case <-stop:
				f.SetReadDeadline(time.Now())
			case <-done:
			}
		}()
	}
	err := waitFor(f, unix.POLLIN)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrStopped
	}
	return err
}

// waitFor leaves the waiting for an event, or a hangup, to Go's poller: no thread is held.
func waitFor(f *os.File, events int16) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return conn.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 0)
		return n > 0
	})
}

// unpolled reports whether Go's poller has not taken a file (fs.epoll.max_user_watches).
func unpolled(f *os.File) bool { return errors.Is(f.SetReadDeadline(time.Time{}), os.ErrNoDeadline) }

// stopSeenWithin is how long a thread waits that cannot be woken.
const stopSeenWithin = 100 * time.Millisecond

func waitByThread(f *os.File, stop <-chan struct{}) error {
	conn, err := f.SyscallConn()
	for ready := 0; err == nil && ready == 0; {
		select {
		case <-stop:
			return ErrStopped
		default:
		}
		err = conn.Control(func(fd uintptr) {
			ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(stopSeenWithin.Milliseconds()))
			ready = max(ready, 0) // a signal has come
		})
	}
	return err
}
