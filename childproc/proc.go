package childproc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procStat is what is needed of /proc/PID/stat (proc_pid_stat(5)).
type procStat struct {
	state    byte
	parent   int
	group    int
	threads  int
	ticks    int64 // of processor time, in clockTicks
	started  int64 // after the boot, in clockTicks
	resident int64 // pages
	// exitCode is, of a stopped process, the signal that has stopped it (do_task_stat in fs/proc/array.c), for who may trace it.
	exitCode int
}

// living is false for a zombie; but a main thread that has ended before the others looks like one too.
func (s procStat) living() bool {
	return s.state != 'X' && (s.state != 'Z' || s.threads > 1)
}

// inProc reports whether a file of /proc is there. access(2) would ask without the capabilities of a user who is not
// root, and a /proc with hidepid then hides a process that has the same ones.
func inProc(dir int, path string) error {
	return unix.Fstatat(dir, path, &unix.Stat_t{}, 0)
}

// readProc reads a file of /proc by three calls: os.ReadFile asks for the size too, and offers the file to Go's poller.
func readProc(path string) ([]byte, error) { return readProcInto(nil, path) }

// readProcInto uses the room that text has.
func readProcInto(text []byte, path string) ([]byte, error) {
	text = slices.Grow(text[:0], 2048)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return text, nil
		}
		text = slices.Grow(text[:len(text)+n], 512)
	}
}

// readStat gives os.ErrNotExist for a process that is not there.
func readStat(pid int) (procStat, error) {
	text, err := readProc("/proc/" + strconv.Itoa(pid) + "/stat")
	if gone(err) {
		return procStat{}, os.ErrNotExist
	}
	if err != nil {
		return procStat{}, err
	}
	return parseStat(text)
}

// The fields of proc_pid_stat(5), counted from the state on.
const (
	statParent   = 1
	statGroup    = 2
	statUserTime = 11
	statSysTime  = 12
	statThreads  = 17
	statStarted  = 19
	statResident = 21
	statExitCode = 49
	statLength   = 50
)

// parseStat begins behind the last parenthesis: a program's name may contain blanks and parentheses, what follows it does not.
func parseStat(text []byte) (procStat, error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < statLength {
		return procStat{}, fmt.Errorf("cannot understand the kernel's process status %q", text)
	}
	var failed error
	number := func(field int) int64 {
		n, err := strconv.ParseInt(fields[field], 10, 64)
		failed = errors.Join(failed, err)
		return n
	}
	stat := procStat{
		state: fields[0][0], parent: int(number(statParent)), group: int(number(statGroup)), threads: int(number(statThreads)),
		ticks: number(statUserTime) + number(statSysTime), started: number(statStarted), resident: number(statResident), exitCode: int(number(statExitCode)),
	}
	if failed != nil {
		return procStat{}, fmt.Errorf("cannot understand the kernel's process status %q: %w", text, failed)
	}
	return stat, nil
}

// eachProcess calls visit for every process there is; those that end meanwhile are left out. It lists /proc again while
// something has ended before its turn: a child of that may be younger than the list. On a machine that starts processes
// all the time there is always something new, but that lives at its turn, which comes at once.
func eachProcess(wanted func(pid int) bool, visit func(pid int, stat procStat)) error {
	var known []int
	for {
		pids, err := numbersIn("/proc") // in ascending order
		if err != nil {
			return err
		}
		fresh := slices.DeleteFunc(slices.Clone(pids), func(pid int) bool {
			_, found := slices.BinarySearch(known, pid)
			return found
		})
		known = pids
		if ended, err := visitAll(fresh, wanted, visit); err != nil || !ended {
			return err
		}
	}
}

// visitAll reports whether one has ended before its turn. It asks whether a process is wanted before it is seen to be
// there: of one that has gone the answer would say nothing.
func visitAll(pids []int, wanted func(pid int) bool, visit func(pid int, stat procStat)) (ended bool, err error) {
	for _, pid := range pids {
		want := wanted(pid)
		stat, err := readStat(pid)
		if ignoreGone(err) != nil {
			return ended, err
		}
		ended = ended || err != nil || !stat.living()
		if err == nil && want {
			visit(pid, stat)
		}
	}
	return ended, nil
}

func numbersIn(path string) ([]int, error) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	names, err := entries(dir)
	if err != nil {
		return nil, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers, nil
}

func entries(dir int) ([]string, error) {
	var names []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(dir, buf)
		if n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// procTasks is an open /proc/PID/task. What a process has is looked up by way of its threads, because a main thread
// that has ended before the others has no descriptors any more.
type procTasks struct {
	pid     int
	dir     int
	threads []string
	lister  string // the thread whose descriptors are listed, once known
}

func openTasks(pid int) (*procTasks, error) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	threads, err := entries(dir)
	if err != nil {
		unix.Close(dir)
		return nil, err
	}
	return &procTasks{pid: pid, dir: dir, threads: threads}, nil
}

func (t *procTasks) close() { unix.Close(t.dir) }

// window is how many descriptors are listed in one go.
const window = 512

// descriptors lists some of the process's descriptors, from a place on, 0 at first, and gives the place where the list
// goes on. None are left when it gives none. All are those of one thread, the first that has any.
func (t *procTasks) descriptors(place int64) (fds []string, next int64, err error) {
	if t.lister != "" {
		return t.descriptorsOf(t.lister, place)
	}
	for _, tid := range t.threads {
		fds, next, err := t.descriptorsOf(tid, place)
		if len(fds) > 0 {
			t.lister = tid
		}
		if len(fds) > 0 || ignoreGone(err) != nil {
			return fds, next, err
		}
	}
	return nil, 0, nil
}

func (t *procTasks) descriptorsOf(tid string, place int64) (fds []string, next int64, err error) {
	dir, err := unix.Openat(t.dir, tid+"/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(dir)
	if _, err := unix.Seek(dir, place, io.SeekStart); err != nil {
		return nil, 0, err
	}
	if fds, err = someNames(dir); err != nil {
		return nil, 0, err
	}
	next, err = unix.Seek(dir, 0, io.SeekCurrent)
	return fds, next, err
}

// someNames gives half a window or more, unless there are no more. A signal ends a read of a folder early, also when it
// has got . and .. only (filldir64 in fs/readdir.c).
func someNames(dir int) (names []string, err error) {
	var some [window * 24]byte // numbers of up to four digits take 24 bytes each
	for len(names) < window/2 {
		n, err := unix.ReadDirent(dir, some[:])
		if n <= 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(some[:n], -1, names)
	}
	return names, nil
}

// eachDescriptor calls visit with each descriptor of the process and what it is,
// until it returns false or an error other than that it has gone.
func (t *procTasks) eachDescriptor(visit func(fd, link string) (bool, error)) error {
	for place := int64(0); ; {
		fds, next, err := t.descriptors(place)
		if len(fds) == 0 {
			return err
		}
		place = next
		for _, fd := range fds {
			link, err := t.link(t.lister, fd)
			more := true
			if err == nil {
				more, err = visit(fd, link)
			}
			if !more || ignoreGone(err) != nil {
				return ignoreGone(err)
			}
		}
	}
}

// eachSocket calls visit with the inode of each socket that the process has open, until it returns false.
func (t *procTasks) eachSocket(visit func(inode uint64) bool) error {
	return t.eachDescriptor(func(_, link string) (bool, error) {
		inode, ok := socketInode(link)
		return !ok || visit(inode), nil
	})
}

// link gives what a descriptor is, as far as it fits: sockets and the kernel's anonymous files have short names.
func (t *procTasks) link(tid, fd string) (string, error) {
	var link [64]byte
	n, err := unix.Readlinkat(t.dir, tid+"/fd/"+fd, link[:])
	return string(link[:max(n, 0)]), err
}

// socketInode reads "socket:[123]".
func socketInode(link string) (uint64, bool) {
	number, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}

// gone is what /proc answers about processes, threads and descriptors that have ended: ENOENT to open, ESRCH to read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// settle sorts what /proc has refused to show: blind is why a living process could not be looked into, other is an
// error that has nothing to do with the process. A process that has ended is neither.
func settle(pid int, err error) (blind, other error) {
	switch {
	case gone(err):
		if unix.Kill(pid, 0) == unix.ESRCH {
			return nil, nil
		}
		return fmt.Errorf("%w: process %d is hidden (/proc is mounted with hidepid)", ErrCannotLook, pid), nil
	case errors.Is(err, fs.ErrPermission):
		if stat, err := readStat(pid); gone(err) || err == nil && !stat.living() {
			return nil, nil
		}
		return fmt.Errorf("%w: process %d: %v (run grace as the app's user, or as root with CAP_SYS_PTRACE)", ErrCannotLook, pid, err), nil
	case err != nil:
		return nil, fmt.Errorf("cannot inspect process %d: %w", pid, err)
	}
	return nil, nil
}
