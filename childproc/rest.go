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

// Leftover is a process that another one has left behind, held by a pidfd until CloseRest.
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
		l, err := p.leftover(pid)
		if gone(err) {
			continue
		}
		if err != nil {
			CloseRest(held)
			return nil, err
		}
		held = append(held, l)
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
	if p.reaper.nothingLeft(p) {
		return nil, nil
	}
	var pids []int
	if p.leadsGroup() {
		members, err := Group(p.PID)
		if err != nil {
			return nil, err
		}
		pids = slices.DeleteFunc(members, func(pid int) bool { return pid == p.PID })
	}
	orphans, err := p.reaper.orphansOf(p.Tag)
	if err != nil {
		return nil, fmt.Errorf("cannot find the processes that process %d has left behind: %w", p.PID, err)
	}
	return union(pids, orphans), nil
}

// leftover gives os.ErrNotExist if the process has ended, or its number is another one's by now.
func (p *Process) leftover(pid int) (Leftover, error) {
	return openLeftover(pid, func(l *Leftover, stat procStat) (bool, error) {
		l.Group = stat.group == p.PID
		if l.Group {
			return true, nil
		}
		tag, err := tagOf(pid)
		return p.Tag != 0 && tag == p.Tag, err
	})
}

// openLeftover asks whether the process is the wanted one when the pidfd is there: before, the number might change hands.
func openLeftover(pid int, wanted func(*Leftover, procStat) (bool, error)) (Leftover, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Leftover{}, os.NewSyscallError("pidfd_open", err)
	}
	l := Leftover{PID: pid, pidfd: pidfd}
	stat, err := readStat(pid)
	want := false
	if err == nil {
		want, err = wanted(&l, stat)
	}
	if err == nil && (!want || !stat.living()) {
		err = os.ErrNotExist
	}
	if err != nil {
		unix.Close(pidfd)
		return Leftover{}, err
	}
	l.Command = commandOf(pid)
	return l, nil
}

// Signal sends sig; a process that has ended already is no error.
func (l Leftover) Signal(sig unix.Signal) error {
	err := unix.PidfdSendSignal(l.pidfd, sig, nil, 0)
	if err == nil || err == unix.ESRCH {
		return nil
	}
	return fmt.Errorf("cannot send %s to process %d (%s): %w", unix.SignalName(sig), l.PID, l.Command, err)
}

// KillRest sends KILL to what a process has left behind.
func (p *Process) KillRest() error {
	return killAll(p.rest, func(pid int) error {
		l, err := p.leftover(pid)
		if err != nil {
			return ignoreGone(err)
		}
		defer unix.Close(l.pidfd)
		return l.Signal(unix.SIGKILL)
	})
}

// killAll kills what is listed, and again as long as another one is: a process can have started one more before it was hit.
func killAll(list func() ([]int, error), kill func(pid int) error) error {
	for hit := map[int]bool{}; ; {
		pids, err := list()
		fresh := false
		for _, pid := range pids {
			fresh = fresh || !hit[pid]
			hit[pid] = true
			err = errors.Join(err, kill(pid))
		}
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
func (l Leftover) Sockets() ([]uint64, error) {
	var inodes []uint64
	tasks, err := openTasks(l.PID)
	if err == nil {
		defer tasks.close()
		err = tasks.eachDescriptor(func(fd, link string) (bool, error) {
			if inode, ok := socketInode(link); ok && fd != "0" && fd != "1" && fd != "2" {
				inodes = append(inodes, inode)
			}
			return true, nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look into process %d: %w", l.PID, err)
	}
	return inodes, nil
}

// ReadsOutputOf reports whether stdin of the process is a pipe that stdout or stderr of one of the others leads into, as it is of a log
// writer: it reads until they have ended. It is false where that cannot be seen.
func (l Leftover) ReadsOutputOf(others []Leftover) bool {
	input, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", l.PID))
	if err != nil || !strings.HasPrefix(input, "pipe:") {
		return false
	}
	return slices.ContainsFunc(others, func(o Leftover) bool {
		stdout, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/1", o.PID))
		stderr, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", o.PID))
		return o.PID != l.PID && (stdout == input || stderr == input)
	})
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
			if err := p.waitLeftover(pid, stop); err != nil {
				return err
			}
		}
	}
}

func (p *Process) waitLeftover(pid int, stop <-chan struct{}) error {
	l, err := p.leftover(pid)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot wait for process %d, which process %d has left behind: %w", pid, p.PID, err)
	}
	end, err := endOf(l.pidfd)
	if err != nil {
		return err
	}
	defer end.Close()
	return waitReadable(end, stop)
}
