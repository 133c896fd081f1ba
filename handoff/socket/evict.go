package socket

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gracerun/grace/handoff/sockdiag"
	"golang.org/x/sys/unix"
)

// killTimeout is for a process that SIGKILL does not end at once, because it hangs in the kernel.
const killTimeout = 5 * time.Second

// Evict ends the holders of an address in use, so that Bind can be tried again: SIGTERM, and SIGKILL for those that
// are still there after the grace time. It returns when they have gone. It is meant for development.
//
// A process is signalled through a pidfd, and only if it holds one of the sockets still. The init process and grace
// itself are never ended; then, and when the holders cannot be seen, nobody is.
func Evict(e *InUseError, grace time.Duration) error {
	victims, err := openVictims(e)
	defer victims.close()
	if err != nil {
		return fmt.Errorf("cannot free %s: %w", e.Address.Addr, err)
	}
	if err := victims.end(grace); err != nil {
		return fmt.Errorf("cannot free %s: %w", e.Address.Addr, err)
	}
	return nil
}

// victims are processes by pidfd.
type victims []victim

type victim struct {
	sockdiag.Holder
	pidfd int
}

func openVictims(e *InUseError) (victims, error) {
	if len(e.Holders) == 0 {
		return nil, errors.New("cannot see which process has it: " + e.Unseen)
	}
	for _, h := range e.Holders {
		if h.PID == 1 || h.PID == os.Getpid() {
			return nil, fmt.Errorf("%s has it, which grace never ends (the socket may be a unit: systemctl stop NAME.socket)", h)
		}
	}
	var vs victims
	for _, h := range e.Holders {
		pidfd, err := unix.PidfdOpen(h.PID, 0)
		if err == unix.ESRCH {
			continue
		}
		if err != nil {
			return vs, fmt.Errorf("%s: %w", h, err)
		}
		// The check comes after the pidfd is there: before, the pid might change hands in between.
		if !sockdiag.HoldsAny(h.PID, e.inodes) {
			unix.Close(pidfd)
			continue
		}
		vs = append(vs, victim{h, pidfd})
	}
	return vs, nil
}

func (vs victims) close() {
	for _, v := range vs {
		unix.Close(v.pidfd)
	}
}

func (vs victims) end(grace time.Duration) error {
	if err := vs.signal(unix.SIGTERM); err != nil {
		return err
	}
	left, err := vs.wait(grace)
	if err != nil || len(left) == 0 {
		return err
	}
	if err := left.signal(unix.SIGKILL); err != nil {
		return err
	}
	left, err = left.wait(killTimeout)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s is still running %s after SIGKILL", left[0].Holder, killTimeout)
	}
	return err
}

func (vs victims) signal(signal unix.Signal) error {
	for _, v := range vs {
		if err := unix.PidfdSendSignal(v.pidfd, signal, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("%s: %w", v.Holder, err)
		}
	}
	return nil
}

// wait returns those that have not ended by the timeout. A pidfd is readable once its process has ended.
func (vs victims) wait(timeout time.Duration) (victims, error) {
	deadline := time.Now().Add(timeout)
	for left := timeout; len(vs) > 0 && left >= 0; left = time.Until(deadline) {
		fds := make([]unix.PollFd, len(vs))
		for i, v := range vs {
			fds[i] = unix.PollFd{Fd: int32(v.pidfd), Events: unix.POLLIN}
		}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return nil, err
		}
		var still victims
		for i, v := range vs {
			if fds[i].Revents == 0 {
				still = append(still, v)
			}
		}
		vs = still
	}
	return vs, nil
}
