package childproc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Leftover is a process that another one has left behind, held by a pidfd until Close.
type Leftover struct {
	PID     int
	Command string // one line, safe to print
	Group   bool   // it is in the process group of the one that left it
	pidfd   int
}

// Rest lists what a process has started and does not look after any more: the others in its group, and its descendants
// outside of it that have become grace's own children. Zombies are left out. The caller closes each.
func (p *Process) Rest() ([]Leftover, error) {
	pids, err := p.rest()
	if err != nil {
		return nil, err
	}
	var held []Leftover
	for _, pid := range pids {
		r, err := p.remnant(pid)
		if gone(err) {
			continue
		}
		if err != nil {
			CloseRest(held)
			return nil, err
		}
		held = append(held, r)
	}
	return held, nil
}

// CloseRest closes them all.
func CloseRest(rest []Leftover) {
	for _, r := range rest {
		unix.Close(r.pidfd)
	}
}

func (p *Process) rest() ([]int, error) {
	var pids []int
	if p.leadsGroup() {
		members, err := Group(p.PID)
		if err != nil {
			return nil, err
		}
		pids = slices.DeleteFunc(members, func(pid int) bool { return pid == p.PID })
	}
	strays, err := p.family.strays(p.mark)
	if err != nil {
		return nil, fmt.Errorf("cannot find the processes that process %d has left behind: %w", p.PID, err)
	}
	return union(pids, strays), nil
}

// remnant gives os.ErrNotExist if the process has ended, or its number is another one's by now.
func (p *Process) remnant(pid int) (Leftover, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Leftover{}, os.NewSyscallError("pidfd_open", err)
	}
	r := Leftover{PID: pid, pidfd: pidfd}
	stat, err := readStat(pid)
	r.Group = stat.group == p.PID
	ours := r.Group
	if err == nil && !ours {
		ours, err = p.marked(pid)
	}
	if err == nil && (!ours || !stat.living()) {
		err = os.ErrNotExist
	}
	if err != nil {
		unix.Close(pidfd)
		return Leftover{}, err
	}
	r.Command = commandOf(pid)
	return r, nil
}

func (p *Process) marked(pid int) (bool, error) {
	mark, err := markOf(pid)
	return p.mark != 0 && mark == p.mark, err
}

// Signal sends sig; a process that has ended already is no error.
func (r Leftover) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(r.pidfd, sig, nil, 0)
	if err == nil || err == unix.ESRCH {
		return nil
	}
	return fmt.Errorf("cannot send %s to process %d (%s): %w", unix.SignalName(sig), r.PID, r.Command, err)
}

// KillRest sends KILL to what a process has left behind, and again as long as that finds another one: a process can have
// started one more before it was hit.
func (p *Process) KillRest() error {
	hit := map[int]bool{}
	for {
		rest, err := p.Rest()
		if err != nil {
			return err
		}
		fresh := false
		for _, r := range rest {
			fresh = fresh || !hit[r.PID]
			hit[r.PID] = true
			err = errors.Join(err, r.Signal(unix.SIGKILL))
		}
		CloseRest(rest)
		if err != nil || !fresh {
			return err
		}
	}
}

// EndRest kills what an ended process has left behind, waits until nothing is left of it, however long something is short
// that this takes, and reaps the process.
func (p *Process) EndRest() error {
	kill := Retry(nil, p.KillRest)
	wait := Retry(nil, func() error { return p.WaitRest(nil) })
	return errors.Join(kill, wait, p.Reap())
}

// Sockets lists the inodes of the sockets that the process has, but for those of stdin, stdout and stderr.
func (r Leftover) Sockets() ([]uint64, error) {
	fds := "/proc/" + strconv.Itoa(r.PID) + "/fd"
	numbers, err := numbersIn(fds)
	if err != nil {
		return nil, fmt.Errorf("cannot inspect process %d: %w", r.PID, err)
	}
	var inodes []uint64
	for _, fd := range numbers {
		link, err := os.Readlink(fds + "/" + strconv.Itoa(fd))
		if fd <= 2 || err != nil {
			continue // closed meanwhile
		}
		name, found := strings.CutPrefix(link, "socket:[")
		if inode, err := strconv.ParseUint(strings.TrimSuffix(name, "]"), 10, 64); found && err == nil {
			inodes = append(inodes, inode)
		}
	}
	return inodes, nil
}

// longestCommand is as much as tells programs apart.
const longestCommand = 80

// commandOf gives the arguments, or the name where there are none.
func commandOf(pid int) string {
	place := "/proc/" + strconv.Itoa(pid)
	text, _ := os.ReadFile(place + "/cmdline") // who has ended has no name
	if strings.Trim(string(text), "\x00 ") == "" {
		text, _ = os.ReadFile(place + "/comm")
	}
	words := []rune(printable(strings.Trim(string(text), "\x00 \n")))
	if len(words) > longestCommand {
		words = append(words[:longestCommand-3], []rune("...")...)
	}
	return string(words)
}

// WaitRest blocks until nothing but the ended process is left of its group, nor of what it has started, or
// until stop is closed. It is to be called after Wait.
func (p *Process) WaitRest(stop <-chan struct{}) error {
	for {
		pids, err := p.rest()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := p.waitRemnant(pid, stop); err != nil {
				return err
			}
		}
	}
}

func (p *Process) waitRemnant(pid int, stop <-chan struct{}) error {
	r, err := p.remnant(pid)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot wait for process %d, which process %d has left behind: %w", pid, p.PID, err)
	}
	end, err := endOf(r.pidfd)
	if err != nil {
		return err
	}
	defer end.Close()
	return waitReadable(end, stop)
}
