package childproc

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Message is what one sd_notify(3) message says. What it does not say, and what
// it says in a way that makes no sense, is zero.
type Message struct {
	PID      int // the sender's
	Ready    bool
	Stopping bool
	Watchdog bool    // a sign of life
	Status   *string // one line, safe to print
	MainPID  int
	Extend   time.Duration // of the time to start or stop in, from now on
	InFlight *int
	Drains   bool // the app sends its clients away itself when it is told to stop
}

// parseMessage reads lines of KEY=VALUE. The last of several values counts; unknown keys are passed over.
func parseMessage(text []byte) (Message, error) {
	text = bytes.TrimSuffix(text, []byte{0}) // some send C's terminator too
	if bytes.IndexByte(text, 0) >= 0 {
		return Message{}, errors.New("cannot understand a notification: it contains a NUL byte")
	}
	if bytes.IndexByte(text, '=') < 0 {
		return Message{}, errors.New("cannot understand a notification: it has no KEY=VALUE")
	}
	var m Message
	for line := range strings.SplitSeq(string(text), "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			m.set(key, value)
		}
	}
	return m, nil
}

func (m *Message) set(key, value string) {
	switch key {
	case "READY":
		m.Ready = value == "1"
	case "STOPPING":
		m.Stopping = value == "1"
	case "WATCHDOG":
		m.Watchdog = value == "1"
	case "STATUS":
		status := printable(value)
		m.Status = &status
	case "MAINPID":
		m.MainPID = 0
		if pid := number(value); pid != nil {
			m.MainPID = *pid
		}
	case "EXTEND_TIMEOUT_USEC":
		m.Extend = microseconds(value)
	case "X_GRACE_DRAINS":
		m.Drains = value == "1"
	case "X_GRACE_INFLIGHT":
		m.InFlight = number(value)
	}
}

func number(value string) *int {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil
	}
	i := int(n)
	return &i
}

func microseconds(value string) time.Duration {
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(min(n, math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
}

// printable keeps an app from writing control sequences to logs and terminals.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// maxMessage is as much as systemd takes (NOTIFY_BUFFER_MAX, a page).
const maxMessage = 4096

// NotifySocket is the supervisor's end of NOTIFY_SOCKET for one instance. It owns its descriptors and its path until
// Close. One goroutine at a time may call Receive; the other methods may be called from any.
type NotifySocket struct {
	path string
	set  *os.File // an epoll set of the sockets, known to Go's poller

	mu      sync.Mutex
	sockets []int // bound at the path one after the other: senders may be connected to one whose path was removed
	resting bool
	refused int
	last    int
}

// OpenNotify binds a socket at a fresh name in dir, which only uid and gid can send to; -1 stands for grace's own.
// Without a dir the name is an abstract one, which anybody on the machine can send to.
func OpenNotify(dir string, uid, gid int) (*NotifySocket, error) {
	path := "@grace-notify-" + rand.Text()
	if dir != "" {
		path = filepath.Join(dir, "notify-"+rand.Text()[:13]) // short, as a path has to be
	}
	if len(path) >= len(unix.RawSockaddrUnix{}.Path) {
		return nil, fmt.Errorf("cannot open a notification socket: %s is longer than a socket's path may be (107 bytes): use a shorter directory", path)
	}
	fd, err := bindNotify(path, uid, gid)
	if err != nil {
		return nil, err
	}
	return newNotifySocket(path, fd)
}

// newNotifySocket closes the sockets where it fails.
func newNotifySocket(path string, sockets ...int) (*NotifySocket, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		closeAll(sockets)
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(set, true) // for os.NewFile; fcntl(2) cannot fail here
	s := &NotifySocket{path: path, set: os.NewFile(uintptr(set), "notification sockets")}
	err = s.set.SetReadDeadline(time.Time{}) // fails if Go's poller has not taken it (fs.epoll.max_user_watches)
	for _, fd := range sockets {
		err = errors.Join(err, s.add(fd))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot wait for notifications: %w", err), s.Close())
	}
	return s, nil
}

func (s *NotifySocket) add(fd int) error {
	s.sockets = append(s.sockets, fd)
	err := control(s.set, func(set int) error {
		return unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
	})
	return os.NewSyscallError("epoll_ctl", err)
}

func control(f *os.File, do func(fd int) error) (err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err2 := conn.Control(func(fd uintptr) { err = do(int(fd)) })
	return errors.Join(err2, err)
}

func bindNotify(path string, uid, gid int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open a notification socket: %w", os.NewSyscallError("socket", err))
	}
	err = prepareNotify(fd)
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot open a notification socket at %s: %w", path, err)
	}
	if path[0] == '@' || uid == -1 && gid == -1 {
		return fd, nil
	}
	if err := os.Lchown(path, uid, gid); err != nil {
		unix.Close(fd)
		return -1, errors.Join(fmt.Errorf("cannot give the notification socket to the app: %w", err), os.Remove(path))
	}
	return fd, nil
}

// prepareNotify comes before bind, when nobody can send yet. Bind takes the
// mode of the path from the socket's (unix_bind_bsd in net/unix/af_unix.c).
func prepareNotify(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1),
		unix.Fchmod(fd, 0o600),
	)
}

// Renew binds another socket at the path, which was removed, for uid and gid as OpenNotify does. Who is connected to one
// before is heard too. While the socket is suspended it makes none: it may be a successor's already. Nor once it is closed.
func (s *NotifySocket) Renew(uid, gid int) (made bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resting || len(s.sockets) == 0 {
		return false, nil
	}
	fd, err := bindNotify(s.path, uid, gid)
	if err != nil {
		return false, err
	}
	return true, s.add(fd)
}

// Lend shows the socket that is bound at the path, while it is open for sure.
func (s *NotifySocket) Lend(do func(inode uint64, fd int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sockets) == 0 {
		return
	}
	var stat unix.Stat_t
	if fd := s.sockets[len(s.sockets)-1]; unix.Fstat(fd, &stat) == nil {
		do(stat.Ino, fd)
	}
}

// Path is the value for NOTIFY_SOCKET.
func (s *NotifySocket) Path() string { return s.path }

// Receive blocks for the next message whose sender is allowed, and refuses all others and all that make no sense. What
// it gives may say nothing that grace knows of. By the next call the message counts as dealt with: that is when a
// sender that waits by BARRIER=1 goes on. After Close the error is net.ErrClosed.
func (s *NotifySocket) Receive(allowed func(pid int) bool) (Message, error) {
	text := make([]byte, maxMessage)
	for {
		n, pid, err := s.read(text)
		if err != nil {
			return Message{}, s.failed(err)
		}
		m, err := parseMessage(text[:n])
		if err != nil || pid == 0 || !allowed(pid) {
			s.refuse(pid)
			continue
		}
		m.PID = pid
		return m, nil
	}
}

// read gives no byte of a message that is too long, and pid 0 for a sender that the kernel does not name.
//
// There is room for the credentials, which the kernel writes first, and for nothing else: it drops the descriptors of a
// message for which there is no room (MSG_CTRUNC, scm_detach_fds in net/core/scm.c). So no sender can fill grace's
// table, and the one that waits at a barrier sees its pipe closed.
func (s *NotifySocket) read(text []byte) (n, pid int, err error) {
	conn, err := s.set.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	err2 := conn.Read(func(uintptr) bool {
		n, pid, err = s.readNow(text)
		return err != unix.EAGAIN
	})
	if err == nil || err == unix.EAGAIN {
		err = err2
	}
	return n, pid, err
}

// readNow takes the oldest socket first: what it has was said before the path was removed.
func (s *NotifySocket) readNow(text []byte) (n, pid int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = unix.EAGAIN
	for _, fd := range s.sockets {
		if n, pid, err = readNotify(fd, text); err != unix.EAGAIN {
			break
		}
	}
	return n, pid, err
}

func readNotify(fd int, text []byte) (n, pid int, err error) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, _, err := unix.Recvmsg(fd, text, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, 0, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		n = 0
	}
	return n, senderOf(control[:oobn]), nil
}

func senderOf(control []byte) int {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 {
		return 0
	}
	sender, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		return 0
	}
	return int(sender.Pid)
}

// failed: the poller has an error of its own for a file that was closed.
func (s *NotifySocket) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sockets) == 0 {
		err = net.ErrClosed
	}
	return fmt.Errorf("cannot receive notifications: %w", err)
}

func (s *NotifySocket) refuse(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	s.last = pid
}

// refusals says how many messages were refused, and who sent the last of them (0 if the kernel could not tell).
func (s *NotifySocket) refusals() (count, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused, s.last
}

// Close removes the path and ends Receive. It waits for one that has a message in its hands, and so must not have the lock
// (FD.Close in internal/poll/fd_unix.go).
func (s *NotifySocket) Close() error {
	err := s.unbind()
	return errors.Join(err, s.set.Close())
}

func (s *NotifySocket) unbind() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeAll(s.sockets)
	s.sockets = nil
	if s.path[0] == '@' {
		return nil
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// There reports whether the path is still there, for apps to send to.
func (s *NotifySocket) There() bool {
	return s.path[0] == '@' || unix.Access(s.path, unix.F_OK) == nil
}
