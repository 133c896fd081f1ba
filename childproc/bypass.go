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
	set, err := signalSets("/proc/" + strconv.Itoa(pid))
	if gone(err) {
		return true, nil
	}
	return !contains(set["SigIgn"]|set["SigBlk"]&set["ShdPnd"], sig), err
}

// Survives reports whether sig does not simply end each of the processes: one has a handler for it, ignores it, or blocks it in a
// thread, as all but one do where one waits for it (sigwait(3), signalfd(2)). It is a look at one moment, and what has ended does
// not count.
func Survives(pids []int, sig syscall.Signal) (bool, error) {
	for _, pid := range pids {
		survives, err := survives(pid, sig)
		if survives || err != nil && !gone(err) {
			return survives, err
		}
	}
	return false, nil
}

// survives looks at all threads: for one that is in sigwait the kernel does not show what that waits for as blocked
// (do_sigtimedwait in kernel/signal.c).
func survives(pid int, sig syscall.Signal) (bool, error) {
	tasks := "/proc/" + strconv.Itoa(pid) + "/task/"
	tids, err := numbersIn(tasks)
	for _, tid := range tids {
		set, err := signalSets(tasks + strconv.Itoa(tid))
		if contains(set["SigCgt"]|set["SigIgn"]|set["SigBlk"], sig) {
			return true, nil
		}
		if err != nil && !gone(err) {
			return false, err
		}
	}
	return false, err
}

func contains(set uint64, sig syscall.Signal) bool { return set>>(sig-1)&1 != 0 }

// signalSets reads the sets of signals of a process or thread by their names in proc_pid_status(5).
func signalSets(directory string) (map[string]uint64, error) {
	text, err := os.ReadFile(directory + "/status")
	if err != nil {
		return nil, fmt.Errorf("cannot read which signals a process handles: %w", err)
	}
	set := map[string]uint64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil {
			set[name] = mask
		}
	}
	return set, nil
}
