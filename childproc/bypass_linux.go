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

// Bypass sends a signal that the process was sent and does not take to its children instead, and returns them, closed.
// unshare --fork blocks SIGTERM and only waits for its child.
func (p *Process) Bypass(sig syscall.Signal) ([]Remnant, error) {
	if takes, err := p.takes(sig); takes || err != nil {
		return nil, err
	}
	children, err := childrenOf(p.PID)
	if err != nil {
		return nil, fmt.Errorf("cannot list the children of process %d: %w", p.PID, err)
	}
	var told []Remnant
	for _, pid := range children {
		child, err2 := p.child(pid)
		if err2 == nil {
			err2 = child.Signal(sig)
			told = append(told, child)
			unix.Close(child.pidfd)
		}
		err = errors.Join(err, ignoreGone(err2))
	}
	return told, err
}

// child gives os.ErrNotExist if the number is another process's by now.
func (p *Process) child(pid int) (Remnant, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Remnant{}, os.NewSyscallError("pidfd_open", err)
	}
	stat, err := readStat(pid)
	if err == nil && (!stat.living() || stat.parent != p.PID) {
		err = os.ErrNotExist
	}
	if err != nil {
		unix.Close(pidfd)
		return Remnant{}, err
	}
	return Remnant{PID: pid, Command: commandOf(pid), Group: stat.group == p.PID, pidfd: pidfd}, nil
}

// takes is false of a signal that the process ignores, or that it has blocked and that waits: who fetches signals by
// sigwait(3) or signalfd(2) has them blocked too, but none of them waits for long.
func (p *Process) takes(sig syscall.Signal) (bool, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/status")
	if gone(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot see which signals process %d takes: %w", p.PID, err)
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
