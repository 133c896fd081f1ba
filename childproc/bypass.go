package childproc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Untold lists the children of a process that was sent a signal and ignores or blocks it: nobody passes it on to them. The
// caller sends it, and closes them. unshare --fork blocks SIGTERM and only waits for its child.
func (p *Process) Untold(sig syscall.Signal) ([]Leftover, error) {
	if p.PIDFD < 0 {
		return nil, nil
	}
	return Leftover{PID: p.PID, pidfd: p.PIDFD}.untold(sig)
}

// Untold does the same for each of the processes.
func Untold(told []Leftover, sig syscall.Signal) (children []Leftover, err error) {
	for _, l := range told {
		below, err2 := l.untold(sig)
		children, err = append(children, below...), errors.Join(err, err2)
	}
	return children, err
}

func (l Leftover) untold(sig syscall.Signal) ([]Leftover, error) {
	if takes, err := takes(l.PID, sig); takes || err != nil {
		return nil, err
	}
	return l.children()
}

// SignalRest sends sig to each.
func SignalRest(rest []Leftover, sig syscall.Signal) (err error) {
	for _, l := range rest {
		err = errors.Join(err, l.Signal(sig))
	}
	return err
}

// children gives none of a process that has ended, whose number may be another one's by now.
func (l Leftover) children() ([]Leftover, error) {
	pids, err := childrenOf(l.PID)
	if err != nil {
		return nil, fmt.Errorf("cannot list the children of process %d: %w", l.PID, err)
	}
	var children []Leftover
	for _, pid := range pids {
		child, err2 := childOf(l.PID, pid)
		if err2 == nil {
			children = append(children, child)
		}
		err = errors.Join(err, ignoreGone(err2))
	}
	if unix.PidfdSendSignal(l.pidfd, 0, nil, 0) == unix.ESRCH {
		CloseRest(children)
		return nil, nil
	}
	return children, err
}

// childOf gives os.ErrNotExist if the number is another process's by now.
func childOf(parent, pid int) (Leftover, error) {
	return openLeftover(pid, func(_ *Leftover, stat procStat) (bool, error) { return stat.parent == parent, nil })
}

// takes is false for a signal that the process ignores, or that is blocked and pending: a process that reads signals by
// sigwait(3) or signalfd(2) blocks them too, but they are not pending for long.
func takes(pid int, sig syscall.Signal) (bool, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if gone(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read which signals process %d handles: %w", pid, err)
	}
	set := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil {
			set[name] = mask
		}
	}
	lost := set["SigIgn"] | set["SigBlk"]&set["ShdPnd"]
	return lost>>(sig-1)&1 == 0, nil
}
