package childproc

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

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

// WaitGroup blocks until a process group has no living member, and gives
// ErrStopped if stop is closed before that. The caller makes sure that the
// group's number is not used again meanwhile: by keeping the group's ended
// leader unreaped. A member that leaves the group while it is waited for is
// waited for nevertheless: the kernel does not tell.
func WaitGroup(pgid int, stop <-chan struct{}) error {
	for {
		members, err := Group(pgid)
		if err != nil || len(members) == 0 {
			return err
		}
		for _, pid := range members {
			if err := waitMember(pid, pgid, stop); err != nil {
				return err
			}
		}
	}
}

func waitMember(pid, pgid int, stop <-chan struct{}) error {
	end, err := openEnd(pid)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot wait for process %d of group %d: %w", pid, pgid, err)
	}
	defer end.Close()
	// The number may have changed hands before the pidfd held it.
	stat, err := readStat(pid)
	if gone(err) || err == nil && (stat.group != pgid || !stat.living()) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot wait for process %d of group %d: %w", pid, pgid, err)
	}
	return waitReadable(end, stop)
}

// openEnd opens what becomes readable when a process ends, for Go's poller.
// PIDFD_NONBLOCK would need Linux 5.10.
func openEnd(pid int) (*os.File, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(pidfd, true); err != nil {
		return nil, errors.Join(err, unix.Close(pidfd))
	}
	return os.NewFile(uintptr(pidfd), "pidfd"), nil
}

// waitReadable gives ErrStopped if stop is closed before. A nil stop never is.
func waitReadable(f *os.File, stop <-chan struct{}) error {
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
