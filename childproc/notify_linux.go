package childproc

import "net"

// NotifySocket is the supervisor's end of NOTIFY_SOCKET for one instance.
type NotifySocket struct {
	conn *net.UnixConn
	path string
}

// OpenNotify binds a fresh socket in dir.
func OpenNotify(dir string, uid, gid int) (*NotifySocket, error) {
	return &NotifySocket{}, nil
}

// Path is the value for NOTIFY_SOCKET.
func (s *NotifySocket) Path() string { return s.path }

// Receive blocks for the next message of an allowed sender.
func (s *NotifySocket) Receive(allowed func(pid int) bool) (Message, error) {
	return Message{}, net.ErrClosed
}

// Refused says how many messages were refused, and who sent the last of them.
func (s *NotifySocket) Refused() (count, pid int) { return 0, 0 }

// Close ends Receive.
func (s *NotifySocket) Close() error { return nil }
