package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is one bind, listen or unlink of an app's thread, which waits until it is answered by exactly one of Continue,
// Return and Install. Its methods may be called from any goroutine.
type Call struct {
	listener *Listener
	notification
	address []byte
	unread  error // why there is no address
}

func (l *Listener) call(n notification) Call {
	c := Call{listener: l, notification: n}
	if c.Syscall() == Bind {
		c.address, c.unread = c.readAddress()
	}
	return c
}

// Syscall is what was called.
func (c Call) Syscall() Syscall {
	switch c.number {
	case unix.SYS_BIND:
		return Bind
	case unix.SYS_LISTEN:
		return Listen
	}
	return Unlink
}

// FD is the app's number of the socket, for bind and listen. Nothing says that it is one.
func (c Call) FD() int { return int(int32(c.args[0])) }

// Backlog is what listen was called with.
func (c Call) Backlog() int { return int(int32(c.args[1])) }

// Addr is the address that bind was called with, a sockaddr as the kernel has it.
// Where the app gave none that can be read the error is EFAULT or EINVAL, the
// same that it will get itself when it goes on. The error may be ErrNotPermitted.
func (c Call) Addr() ([]byte, error) {
	if c.unread != nil {
		return nil, c.failed("read the address", c.unread)
	}
	return c.address, nil
}

// Valid reports whether the thread still waits for the answer.
func (c Call) Valid() bool {
	return c.listener.use(func(fd int) error {
		return ioctl(fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.id))
	}) == nil
}

// Duplicate gives the app's socket itself; the descriptor is close-on-exec and the caller's. The error may be
// ErrNotPermitted, ErrGone, or EBADF if the app has no such descriptor.
func (c Call) Duplicate() (int, error) {
	pidfd, err := c.open()
	if err != nil {
		return -1, c.failed("duplicate the socket", err)
	}
	defer unix.Close(pidfd)
	if !c.Valid() { // the number could have been given to another thread
		return -1, c.failed("duplicate the socket", ErrGone)
	}
	fd, err := unix.PidfdGetfd(pidfd, c.FD(), 0)
	if err != nil {
		return -1, c.failed("duplicate the socket", err)
	}
	return fd, nil
}

// open prefers the thread: its process's first one may have ended, or may have
// other descriptors. Linux before 6.9 has pidfds of processes only.
func (c Call) open() (int, error) {
	pidfd, err := unix.PidfdOpen(int(c.thread), unix.PIDFD_THREAD)
	if err == unix.EINVAL {
		return unix.PidfdOpen(c.PID(), 0)
	}
	return pidfd, err
}

// Protocol is the kernel's name of the socket's kind: TCP, TCPv6, UDP, UNIX-STREAM
// and so on. Where Duplicate is not permitted, this can be.
func (c Call) Protocol() (string, error) {
	name := make([]byte, 64)
	n, err := unix.Getxattr(c.path("fd"), "system.sockprotoname", name)
	if err != nil || !c.Valid() {
		return "", c.failed("look at the socket", err)
	}
	return string(bytes.TrimRight(name[:n], "\x00")), nil
}

// Inode tells one socket from another. Where Duplicate is not permitted, this can be.
func (c Call) Inode() (uint64, error) {
	var stat unix.Stat_t
	err := unix.Stat(c.path("fd"), &stat)
	if err != nil || !c.Valid() {
		return 0, c.failed("look at the socket", err)
	}
	return stat.Ino, nil
}

// Continue lets the kernel do what the app has called it for.
func (c Call) Continue() error {
	return c.answered(response{id: c.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// Return gives the app a result, without what it has called for having been done: success if errno is 0.
func (c Call) Return(errno syscall.Errno) error {
	return c.answered(response{id: c.id, errno: -int32(errno)})
}

func (c Call) answered(r response) error {
	if err := c.listener.answer(r); err != nil {
		return c.failed("answer", err)
	}
	return nil
}

// Install puts a socket in place of the app's, under the same number and with the same flags close-on-exec and
// non-blocking, and returns success to the app. fd stays the caller's. Other descriptors of the app's first socket, and
// what waits for it in epoll, keep that one. After an error the call is to be answered still.
func (c Call) Install(fd int) error {
	if err := c.install(fd); err != nil {
		return c.failed("put another socket in place", err)
	}
	return c.Return(0)
}

func (c Call) install(fd int) error {
	flags, err := c.flags()
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, flags&unix.O_NONBLOCK != 0); err != nil {
		return err
	}
	add := newDescriptor{
		id: c.id, source: uint32(fd), number: uint32(c.FD()),
		flags: unix.SECCOMP_ADDFD_FLAG_SETFD, newFlags: flags & unix.O_CLOEXEC,
	}
	return c.listener.use(func(listener int) error {
		return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
	})
}

// flags are those of the descriptor in the form of open (proc_pid_fdinfo(5)).
func (c Call) flags() (uint32, error) {
	text, err := os.ReadFile(c.path("fdinfo"))
	if err != nil {
		return 0, err
	}
	value, ok := field(text, "flags:")
	if !ok {
		return 0, fmt.Errorf("no flags in %q", text)
	}
	flags, err := strconv.ParseUint(value, 8, 32)
	return uint32(flags), err
}

// PID is the process whose thread calls. It is the thread's own number where /proc does not tell.
func (c Call) PID() int {
	text, err := os.ReadFile(c.proc("status"))
	if err != nil {
		return int(c.thread)
	}
	value, _ := field(text, "Tgid:")
	pid, err := strconv.Atoi(value)
	if err != nil {
		return int(c.thread)
	}
	return pid
}

func field(text []byte, name string) (string, bool) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

const maxAddress = 128 // sizeof(struct sockaddr_storage)

// readAddress refuses what bind refuses (move_addr_to_kernel in net/socket.c).
func (c Call) readAddress() ([]byte, error) {
	length := int32(c.args[2])
	if length < 0 || length > maxAddress {
		return nil, unix.EINVAL
	}
	memory, err := unix.Open(c.proc("mem"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(memory)
	address := make([]byte, length)
	if n, err := unix.Pread(memory, address, int64(c.args[1])); err != nil || n < len(address) {
		return nil, unix.EFAULT // it gives EIO
	}
	return address, nil
}

func (c Call) proc(file string) string {
	return "/proc/" + strconv.Itoa(int(c.thread)) + "/" + file
}

func (c Call) path(directory string) string {
	return c.proc(directory + "/" + strconv.Itoa(c.FD()))
}

// failed sorts errors: what a call that is gone gives is not what it seems.
func (c Call) failed(what string, err error) error {
	switch {
	case !c.Valid():
		err = ErrGone
	case errors.Is(err, fs.ErrPermission) || err == unix.ENOSYS:
		err = fmt.Errorf("%w: %v", ErrNotPermitted, err)
	case errors.Is(err, fs.ErrNotExist):
		err = unix.EBADF
	}
	return fmt.Errorf("cannot %s of %s by process %d, descriptor %d: %w", what, c.Syscall(), c.PID(), c.FD(), err)
}
