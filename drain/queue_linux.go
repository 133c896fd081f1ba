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

// queueLength is how many connections wait in the queue of a TCP listener; of others it is not known, and 0.
func queueLength(ln net.Listener) (n int) {
	conn, ok := ln.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		// For a socket that listens this field is the length (tcp_get_info in net/ipv4/tcp.c).
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(info.Unacked)
		}
	})
	return n
}
