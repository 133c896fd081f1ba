package childproc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxMessage is as much as systemd takes (NOTIFY_BUFFER_MAX, a page).
const maxMessage = 4096

// NotifySocket is the supervisor's end of NOTIFY_SOCKET for one instance. It owns
// its descriptor and its path until Close. One goroutine at a time may call
// Receive; Refused and Close may be called from any.
type NotifySocket struct {
	path string
	conn *net.UnixConn

	mu      sync.Mutex
	refused int
	last    int
}

// OpenNotify binds a socket at a fresh name in dir, which only uid and gid can
// send to; -1 stands for grace's own. Without a dir the name is an abstract one,
// which anybody on the machine can send to.
func OpenNotify(dir string, uid, gid int) (*NotifySocket, error) {
	path := "@grace-notify-" + rand.Text()
	if dir != "" {
		path = filepath.Join(dir, "notify-"+rand.Text()[:13]) // short, as a path has to be
	}
	if len(path) >= len(unix.RawSockaddrUnix{}.Path) {
		return nil, fmt.Errorf("cannot open a notification socket: %s is longer than a socket's path may be (107 bytes): use a shorter directory", path)
	}
	config := net.ListenConfig{Control: prepareNotify}
	conn, err := config.ListenPacket(context.Background(), "unixgram", path)
	if err != nil {
		return nil, fmt.Errorf("cannot open a notification socket: %w", err)
	}
	s := &NotifySocket{path: path, conn: conn.(*net.UnixConn)}
	if dir == "" || uid == -1 && gid == -1 {
		return s, nil
	}
	if err := os.Lchown(path, uid, gid); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot give the notification socket to the app: %w", err), s.Close())
	}
	return s, nil
}

// prepareNotify comes before bind, when nobody can send yet. Bind takes the
// mode of the path from the socket's (unix_bind_bsd in net/unix/af_unix.c).
func prepareNotify(_, _ string, conn syscall.RawConn) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		failed = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1),
			unix.Fchmod(int(fd), 0o600),
		)
	})
	return errors.Join(err, failed)
}

// Path is the value for NOTIFY_SOCKET.
func (s *NotifySocket) Path() string { return s.path }

// Receive blocks for the next message whose sender is allowed, and refuses all
// others and all that make no sense. What it gives may say nothing that grace
// knows of. By the next call the message counts as dealt with: that is when a
// sender that waits by BARRIER=1 goes on. After Close the error is net.ErrClosed.
func (s *NotifySocket) Receive(allowed func(pid int) bool) (Message, error) {
	text := make([]byte, maxMessage)
	for {
		n, pid, err := s.read(text)
		if err != nil {
			return Message{}, fmt.Errorf("cannot receive notifications: %w", err)
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

// read gives no byte of a message that is too long, and pid 0 for a sender that
// the kernel does not name.
//
// There is room for the credentials, which the kernel writes first, and for
// nothing else: it drops the descriptors of a message for which there is no
// room (MSG_CTRUNC, scm_detach_fds in net/core/scm.c). So no sender can fill
// grace's table, and the one that waits at a barrier sees its pipe closed.
func (s *NotifySocket) read(text []byte) (n, pid int, err error) {
	control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, _, err := s.conn.ReadMsgUnix(text, control)
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

func (s *NotifySocket) refuse(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	s.last = pid
}

// Refused says how many messages were refused, and who sent the last of them
// (0 if the kernel could not tell).
func (s *NotifySocket) Refused() (count, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused, s.last
}

// Close removes the path and ends Receive.
func (s *NotifySocket) Close() error {
	var err error
	if s.path[0] != '@' {
		err = os.Remove(s.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.conn.Close())
}

// There reports whether who is told of the path can still send to the socket.
func (s *NotifySocket) There() bool {
	return s.path[0] == '@' || unix.Access(s.path, unix.F_OK) == nil
}
