package drain

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// queued tells whether a connection waits in the queue of ln, and whether that can be seen at all.
func queued(ln net.Listener) (waits, seen bool) {
	conn, ok := ln.(syscall.Conn)
	if !ok {
		return false, false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false, false
	}
	ready := 0
	err = raw.Control(func(fd uintptr) {
		ready, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return ready > 0, err == nil
}
