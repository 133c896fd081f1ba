package childproc

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Birth tells a process from another one that gets its number later.
type Birth struct {
	Started int64  // after the boot, in 1/100 s
	Inode   uint64 // of its pidfd, which only that process has from Linux 6.9 on (fs/pidfs.c)
}

// birthOf leaves out what the kernel does not tell: then that says nothing.
func birthOf(pid, pidfd int) (b Birth) {
	var stat unix.Stat_t
	if unix.Fstat(pidfd, &stat) == nil {
		b.Inode = stat.Ino
	}
	if stat, err := readStat(pid); err == nil {
		b.Started = stat.started
	}
	return b
}

// Describe gives the state of a process that another grace process has started, but for the path.
func Describe(pid int) (ProcessState, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ProcessState{}, fmt.Errorf("cannot open process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	tag, err := tagOf(pid)
	if err != nil {
		return ProcessState{}, err
	}
	group, err := unix.Getpgid(pid)
	if err != nil {
		return ProcessState{}, fmt.Errorf("cannot learn the process group of process %d: %w", pid, err)
	}
	return ProcessState{PID: pid, PIDFD: -1, Group: group == pid, Tag: tag, Birth: birthOf(pid, pidfd)}, nil
}

// OwnBirth is that of this process.
func OwnBirth() Birth {
	pid := os.Getpid()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return birthOf(pid, -1)
	}
	defer unix.Close(pidfd)
	return birthOf(pid, pidfd)
}

// Open gives a pidfd of the process, which another grace process has described, and -1 if it has ended. Its number may be
// another process's by now. The error is ErrCannotLook where /proc hides whether it is the same.
func (s ProcessState) Open() (pidfd int, err error) {
	pidfd, err = unix.PidfdOpen(s.PID, 0)
	if err == unix.ESRCH {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open process %d: %w", s.PID, err)
	}
	birth := birthOf(s.PID, pidfd)
	switch {
	case birth == s.Birth:
		return pidfd, nil
	case birth.Started == 0 && birth.Inode == s.Birth.Inode && unix.PidfdSendSignal(pidfd, 0, nil, 0) != unix.ESRCH:
		why := fmt.Errorf("%w: process %d is hidden (/proc is mounted with hidepid): start grace as the user of the app, or as root", ErrCannotLook, s.PID)
		return -1, errors.Join(why, unix.Close(pidfd))
	}
	return -1, unix.Close(pidfd)
}

// DuplicateSockets takes duplicates of the sockets with these inodes from whichever of the processes has them. Some may be
// missing in what it gives: nobody has them. If one of the processes does not let go of what is missing, the error is
// ErrCannotLook. The caller owns what it gets, with an error too.
func DuplicateSockets(inodes []uint64, pids []int) (map[uint64]int, error) {
	missing, found := make(map[uint64]bool, len(inodes)), make(map[uint64]int, len(inodes))
	for _, inode := range inodes {
		missing[inode] = true
	}
	var blind error
	for _, pid := range pids {
		if len(missing) == 0 {
			return found, nil
		}
		unseen, err := settle(pid, duplicateFrom(pid, missing, found))
		if err != nil {
			return found, err
		}
		blind = cmp.Or(blind, unseen)
	}
	if len(missing) == 0 {
		blind = nil
	}
	return found, blind
}

func duplicateFrom(pid int, missing map[uint64]bool, found map[uint64]int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	tasks, err := openTasks(pid)
	if err != nil {
		return err
	}
	defer tasks.close()
	return tasks.eachDescriptor(func(fd, link string) (bool, error) {
		inode, ok := socketInode(link)
		if !ok || !missing[inode] {
			return true, nil
		}
		number, err := strconv.Atoi(fd)
		if err != nil {
			return true, nil
		}
		duplicate, err := unix.PidfdGetfd(pidfd, number, 0)
		if err == unix.EBADF {
			return true, nil // it was closed since
		}
		if err != nil {
			return false, err
		}
		var stat unix.Stat_t
		if err := unix.Fstat(duplicate, &stat); err != nil || stat.Ino != inode {
			return true, errors.Join(err, unix.Close(duplicate)) // the number is another file's by now
		}
		delete(missing, inode)
		found[inode] = duplicate
		return len(missing) > 0, nil
	})
}

// Listens reports whether one of the processes has a socket that listens, as far as that can be seen.
func Listens(pids []int) bool {
	for _, pid := range pids {
		var inodes []uint64
		_, _ = eachSocketOf(pid, func(inode uint64) bool {
			inodes = append(inodes, inode)
			return true
		})
		found, _ := DuplicateSockets(inodes, []int{pid})
		listens := false
		for _, fd := range found {
			accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
			listens = listens || err == nil && accepts != 0
			unix.Close(fd)
		}
		if listens {
			return true
		}
	}
	return false
}

// Environment is what a process was started with, as far as it has not been written over.
func Environment(pid int) ([]string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil, fmt.Errorf("cannot read the environment of process %d: %w", pid, err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == 0 }), nil
}

// Parent is the process that looks after another one, or 0. The error is os.ErrNotExist if there is no process pid.
func Parent(pid int) (int, error) {
	stat, err := readStat(pid)
	return stat.parent, err
}

// Arguments are those of the command line, as far as the process has not written over it.
func Arguments(pid int) []string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") // who has ended has none
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}

// RestoreNotify binds a socket at the path of one whose grace process was killed, for uid and gid as OpenNotify does.
func RestoreNotify(path string, uid, gid int) (fd int, err error) {
	if path[0] != '@' {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return -1, fmt.Errorf("cannot open the notification socket %s again: %w", path, err)
		}
	}
	return bindNotify(path, uid, gid)
}

// NotifyIsThere reports whether an app can send to the path: whether it leads to a socket that some process has.
func NotifyIsThere(path string) bool {
	if _, err := os.Lstat(path); path[0] != '@' && errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return NotifyIsRead(path)
}

// NotifyIsRead reports whether any process has the socket at the path, in whatever namespaces that is: otherwise the kernel refuses the
// connection.
func NotifyIsRead(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // nothing is known
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) != unix.ECONNREFUSED
}

// HaveVariable lists the processes that were started with a variable of this name and a wanted value.
func HaveVariable(name string, wanted func(value string) bool) (pids []int, err error) {
	has := func(pid int) bool {
		env, err := Environment(pid)
		return err == nil && slices.ContainsFunc(env, func(v string) bool {
			value, ok := strings.CutPrefix(v, name+"=")
			return ok && wanted(value)
		})
	}
	err = eachProcess(has, func(pid int, stat procStat) {
		if stat.living() {
			pids = append(pids, pid)
		}
	})
	return pids, err
}

// endedWithin is how long processes that were sent KILL may take to end.
const endedWithin = 5 * time.Second

// End kills processes, with the groups that they lead, and returns when they have ended.
func End(pids []int) error {
	var errs []error
	for _, pid := range pids {
		errs = append(errs, endOne(pid))
	}
	return errors.Join(errs...)
}

func endOne(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ESRCH {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot kill process %d: %w", pid, err)
	}
	ended, err := endOf(pidfd)
	if err != nil {
		return err
	}
	defer ended.Close()
	if group, err := unix.Getpgid(pid); err == nil && group == pid {
		_ = unix.Kill(-pid, unix.SIGKILL) // an error comes with the next call too
	}
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("cannot kill process %d: %w", pid, err)
	}
	stop := make(chan struct{})
	defer time.AfterFunc(endedWithin, func() { close(stop) }).Stop()
	if err := waitReadable(ended, stop); err != nil {
		return fmt.Errorf("process %d has not ended after SIGKILL: %w", pid, err)
	}
	return nil
}
