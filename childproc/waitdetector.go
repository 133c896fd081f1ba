package childproc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrCannotLook says that something could not be inspected, so that "not seen" means nothing. A later look may succeed.
var ErrCannotLook = errors.New("cannot inspect the app's processes")

// WaitDetector tells from outside whether processes wait on sockets: for connections or datagrams. It keeps nothing
// open, and is not safe for use by several goroutines at once.
//
// A process waits on a socket if one of its epoll sets has the socket registered for reading, or if one of its threads
// is in accept, recv, read, poll or select on it. Registered is enough: whether a thread is in epoll_wait at this
// moment would only say that the app has nothing else to do, and one that is busy would never be seen. The price is
// that a runtime that registers a listener when it is made (Go) counts as waiting before its server does.
type WaitDetector struct {
	sought map[uint64]int // where in seen, by inode
	sockfs uint32         // the device that socket inodes belong to, once known
	text   []byte         // what was read last, kept for its space
	looks  int
	places map[int]int64 // where the look at a process's descriptors goes on

	seen   []bool
	unseen int
	blind  error
}

// NewWaitDetector makes one for the sockets with these inodes (st_ino of fstat).
func NewWaitDetector(inodes []uint64) *WaitDetector {
	l := &WaitDetector{
		sought: make(map[uint64]int, len(inodes)),
		places: map[int]int64{},
		seen:   make([]bool, len(inodes)),
		unseen: len(inodes),
	}
	for i, inode := range inodes {
		l.sought[inode] = i
	}
	return l
}

// Look says for each socket whether one of pids was seen waiting on it, in this look or an earlier one: a thread that
// serves one socket need not be idle when that of the other is. Processes that have ended are passed over.
//
// If a socket was not seen and something could not be looked at, the error is ErrCannotLook: another user's process
// without the right to trace it (ptrace(2), PTRACE_MODE_ATTACH), a /proc that hides it, a kernel that does not show
// what threads do, or an io_uring that waits on something. After any other error, such as EMFILE, this look has told
// nothing.
func (l *WaitDetector) Look(pids []int) ([]bool, error) {
	if err := l.findSockfs(); err != nil {
		return nil, err
	}
	l.blind = nil
	l.looks++
	for _, pid := range pids {
		if l.unseen == 0 {
			break
		}
		if err := l.lookInto(pid); err != nil {
			return nil, err
		}
	}
	if l.unseen == 0 {
		return slices.Clone(l.seen), nil
	}
	return slices.Clone(l.seen), l.blind
}

// findSockfs is needed because an inode number alone does not say that it is a
// socket's: an epoll set may also hold named pipes and terminals.
func (l *WaitDetector) findSockfs() error {
	if l.sockfs != 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot inspect processes: %w", err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return fmt.Errorf("cannot inspect processes: %w", err)
	}
	l.sockfs = unix.Minor(stat.Dev)
	return nil
}

// lookInto goes through the descriptors even if the threads may not be looked
// at: that takes less of a right (PTRACE_MODE_READ).
func (l *WaitDetector) lookInto(pid int) error {
	tasks, err := openTasks(pid)
	if err != nil {
		return l.settle(pid, err)
	}
	defer tasks.close()
	if err := l.settle(pid, l.lookAtThreads(tasks)); err != nil || l.unseen == 0 {
		return err
	}
	return l.settle(pid, l.lookAtDescriptors(tasks))
}

func (l *WaitDetector) settle(pid int, err error) error {
	blind, other := settle(pid, err)
	if blind != nil {
		l.blind = blind
	}
	return other
}

// threadsAtOnce is how many threads of a process one look is at.
const threadsAtOnce = 64

func (l *WaitDetector) lookAtThreads(tasks *procTasks) error {
	for i := range min(threadsAtOnce, len(tasks.threads)) {
		tid := tasks.threads[(l.looks*threadsAtOnce+i)%len(tasks.threads)]
		err := l.read(tasks.dir, tid+"/syscall")
		if errors.Is(err, fs.ErrNotExist) && inProc(tasks.dir, tid+"/stat") == nil {
			l.blind = fmt.Errorf("%w: this kernel does not show what a thread waits for", ErrCannotLook)
			return nil
		}
		if err == nil {
			err = l.lookAtThread(tasks, tid)
		}
		if err := ignoreGone(err); err != nil {
			return err
		}
	}
	return nil
}

// lookAtThread understands a line of proc_pid_syscall(5): number, six arguments,
// stack pointer and program counter. A thread that does not wait has a shorter one.
func (l *WaitDetector) lookAtThread(tasks *procTasks, tid string) error {
	fields := strings.Fields(string(l.text))
	if len(fields) < 9 {
		return nil
	}
	var call [4]uint64
	for i := range call {
		var err error
		if call[i], err = strconv.ParseUint(fields[i], 0, 64); err != nil {
			return fmt.Errorf("cannot understand the kernel's system call %q: %w", l.text, err)
		}
	}
	switch fd := strconv.Itoa(int(int32(call[1]))); waitOf(call[0]) {
	case onDescriptor:
		return l.lookAtSocket(tasks, tid, fd)
	case onEpoll:
		return l.lookAtEpoll(tasks, tid, fd)
	case onPollfds:
		return l.lookAtPollfds(tasks, tid, uintptr(call[1]), call[2])
	case onPollfdsAgain:
		return l.lookAtPollAgain(tasks, tid, uintptr(call[1]), call[2])
	case onSet:
		return l.lookAtSet(tasks, tid, uintptr(call[2]), call[1])
	case onUnknown:
		l.blind = fmt.Errorf("%w: the system calls of this architecture are unknown", ErrCannotLook)
	}
	return nil
}

// maxPolled bounds how many descriptors of one poll or select are looked at.
const maxPolled = 1 << 16

func (l *WaitDetector) lookAtPollfds(tasks *procTasks, tid string, address uintptr, n uint64) error {
	if n == 0 {
		return nil
	}
	fds := make([]unix.PollFd, min(n, maxPolled))
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&fds[0])), len(fds)*int(unsafe.Sizeof(fds[0])))
	if err := readMemory(tid, address, raw); err != nil {
		return err
	}
	var polled []int
	for _, fd := range fds {
		if fd.Events&(unix.POLLIN|unix.EPOLLRDNORM) != 0 {
			polled = append(polled, int(fd.Fd))
		}
	}
	return l.lookAtSockets(tasks, tid, polled)
}

// lookAtPollAgain is for a thread that was stopped or frozen (restart_syscall(2)). A futex or a sleep goes on in this
// way too, with arguments that point elsewhere; the kernel's function that it waits in tells them apart.
func (l *WaitDetector) lookAtPollAgain(tasks *procTasks, tid string, address uintptr, n uint64) error {
	if err := l.read(tasks.dir, tid+"/wchan"); err != nil {
		return err
	}
	if !bytes.Contains(l.text, []byte("poll")) {
		return nil
	}
	return l.lookAtPollfds(tasks, tid, address, n)
}

func (l *WaitDetector) lookAtSet(tasks *procTasks, tid string, address uintptr, n uint64) error {
	if n == 0 {
		return nil
	}
	n = min(n, maxPolled)
	words := make([]byte, (n+63)/64*8)
	if err := readMemory(tid, address, words); err != nil {
		return err
	}
	var selected []int
	for fd := range int(n) {
		if binary.NativeEndian.Uint64(words[fd/64*8:])&(1<<(fd%64)) != 0 {
			selected = append(selected, fd)
		}
	}
	return l.lookAtSockets(tasks, tid, selected)
}

func (l *WaitDetector) lookAtSockets(tasks *procTasks, tid string, fds []int) error {
	for _, fd := range fds {
		if err := l.lookAtSocket(tasks, tid, strconv.Itoa(fd)); ignoreGone(err) != nil {
			return err
		}
	}
	return nil
}

// readMemory gives zeros where there is nothing: for a null pointer, and if the
// thread has gone on and what its arguments pointed to is there no more.
func readMemory(tid string, address uintptr, into []byte) error {
	pid, err := strconv.Atoi(tid)
	if err != nil {
		return err
	}
	local := []unix.Iovec{{Base: &into[0]}}
	local[0].SetLen(len(into))
	remote := []unix.RemoteIovec{{Base: address, Len: len(into)}}
	_, err = unix.ProcessVMReadv(pid, local, remote, 0)
	if err == unix.EFAULT {
		return nil
	}
	return err
}

func (l *WaitDetector) lookAtSocket(tasks *procTasks, tid, fd string) error {
	link, err := tasks.link(tid, fd)
	if err != nil {
		return err
	}
	if inode, ok := socketInode(link); ok {
		l.see(inode)
	}
	return nil
}

// lookAtDescriptors takes the descriptors of a process that has many in several
// looks. This delays only the sight of an epoll set that no thread waits for.
func (l *WaitDetector) lookAtDescriptors(tasks *procTasks) error {
	fds, next, err := tasks.descriptors(l.places[tasks.pid])
	if err != nil {
		return err
	}
	if len(fds) < window/2 {
		next = 0 // these were the last
	}
	l.places[tasks.pid] = next
	for _, fd := range fds {
		if err := l.lookAtDescriptor(tasks, tasks.lister, fd); ignoreGone(err) != nil {
			return err
		}
	}
	return nil
}

func (l *WaitDetector) lookAtDescriptor(tasks *procTasks, tid, fd string) error {
	link, err := tasks.link(tid, fd)
	if err != nil {
		return err
	}
	switch link {
	case epollLink:
		return l.lookAtEpoll(tasks, tid, fd)
	case "anon_inode:[io_uring]":
		return l.lookAtRing(tasks, tid, fd)
	}
	return nil
}

const epollLink = "anon_inode:[eventpoll]"

func (l *WaitDetector) lookAtEpoll(tasks *procTasks, tid, fd string) error {
	if err := l.read(tasks.dir, tid+"/fdinfo/"+fd); err != nil {
		return err
	}
	for line := range bytes.Lines(l.text) {
		if r, ok := readRegistration(line); ok && r.events&(unix.EPOLLIN|unix.EPOLLRDNORM) != 0 && r.device == l.sockfs {
			l.see(r.inode)
		}
	}
	return nil
}

// registration is a line of an epoll set's fdinfo (proc_pid_fdinfo(5)):
//
//	tfd:        3 events:       19 data:     7fb900000003  pos:0 ino:4c9c sdev:9
type registration struct {
	events, device uint32
	inode          uint64
}

func readRegistration(line []byte) (registration, bool) {
	if !bytes.HasPrefix(line, []byte("tfd:")) {
		return registration{}, false
	}
	var fields [9]string
	if n := copy(fields[:], strings.Fields(string(line))); n < len(fields) {
		return registration{}, false
	}
	events, err1 := strconv.ParseUint(fields[3], 16, 32)
	inode, err2 := strconv.ParseUint(strings.TrimPrefix(fields[7], "ino:"), 16, 64)
	device, err3 := strconv.ParseUint(strings.TrimPrefix(fields[8], "sdev:"), 16, 32)
	return registration{uint32(events), uint32(device), inode}, errors.Join(err1, err2, err3) == nil
}

// lookAtRing tells only whether requests are pending: an io_uring shows their kind, but not their descriptor.
func (l *WaitDetector) lookAtRing(tasks *procTasks, tid, fd string) error {
	if err := l.read(tasks.dir, tid+"/fdinfo/"+fd); err != nil {
		return err
	}
	_, pending, known := bytes.Cut(l.text, []byte("\nPollList:\n"))
	if !known || bytes.HasPrefix(pending, []byte("  op=")) {
		l.blind = fmt.Errorf("%w: process %d uses io_uring, which does not show what it waits on", ErrCannotLook, tasks.pid)
	}
	return nil
}

func (l *WaitDetector) see(inode uint64) {
	if i, sought := l.sought[inode]; sought && !l.seen[i] {
		l.seen[i] = true
		l.unseen--
	}
}

// read leaves a file of /proc in l.text. It relies on /proc's giving as much as there is room for.
func (l *WaitDetector) read(dir int, path string) error {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	l.text = l.text[:0]
	for {
		l.text = slices.Grow(l.text, 1024)
		room := l.text[len(l.text):cap(l.text)]
		n, err := unix.Read(fd, room)
		l.text = l.text[:len(l.text)+max(n, 0)]
		if n < len(room) {
			return err
		}
	}
}

// wait is what a system call waits on, as its arguments say.
type wait int

const (
	onNothing      wait = iota
	onDescriptor        // the first is the descriptor
	onEpoll             // the first is the epoll set
	onPollfds           // the first points to pollfds, the second counts them
	onPollfdsAgain      // the same, if the thread is in poll: other calls go on under this number too
	onSet               // the first counts descriptors, the second points to the fd_set for reading
	onUnknown           // nobody has written down this architecture's numbers
)
