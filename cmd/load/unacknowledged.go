package load

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unacknowledged reports whether a TCP peer, which has closed its end, did so before what was written last arrived there.
// A socket that is still open acknowledges what it gets, whether it is read or not; a closed one answers by a reset. So the
// bytes that SIOCOUTQ still counts after the peer's end (tcp(7)) are those that no process can have seen.
func unacknowledged(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false // on a unix socket, unread data makes a reset of the close: an end of file means that it was read
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	return queued(raw) > 0
}

func queued(raw syscall.RawConn) (bytes int) {
	raw.Control(func(fd uintptr) {
		bytes, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
	})
	return bytes
}
